//! `meshwork demo`: the shop with its faults, from the first process to the report and the last.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::process::{BOUND, all_gone, eventually, family, gateway, get, meshwork, output, signal};

/// How long the whole demo may take; alone on two cores it takes half a minute.
const DEMO_BOUND: Duration = Duration::from_secs(300);

/// The program; the shop is built beside it by the program itself, where it is not there yet.
fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshwork"));
    command.arg("demo").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Where `up` has put what it knows of the demo in `folder`.
fn mesh(folder: &Path) -> std::path::PathBuf {
    folder.join("mesh")
}

fn is_open(folder: &Path, child: &mut Child) -> bool {
    assert!(child.try_wait().unwrap().is_none(), "the demo ended before it was told to");
    mesh(folder).join("state.json").is_file() && get(gateway(&mesh(folder)), "/products").is_some()
}

#[test]
fn every_accepted_order_is_shipped_and_notified_through_three_faults() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let arguments =
        ["--orders", "40", "--rate", "10", "--port", "0", "--seed", "7", "--format", "json", "--data", data];
    let output = output(demo(&arguments).spawn().unwrap(), DEMO_BOUND);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let orders = &report["orders"];
    assert_eq!(
        (&report["holds"], &orders["placed"], &orders["lost"]),
        (&true.into(), &40.into(), &0.into()),
        "{report}"
    );
    assert_eq!(orders["accepted"], orders["completed"], "{report}");
    let faults = report["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 3, "{report}");
    for fault in faults {
        assert!(fault["back_after_ms"].is_u64() && fault["orders"].as_u64() > Some(0), "{fault}");
    }
    // Each order is a task, and news to one subscriber when it is placed and to two when it is shipped.
    assert!(
        report["messages"]["deliveries"].as_u64() >= orders["accepted"].as_u64().map(|orders| orders * 4),
        "{report}"
    );
    assert!(told.contains("the broker killed with -9"), "{told}");
}

#[test]
fn a_signal_in_the_middle_ends_it_with_no_process_left() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let mut child = demo(&["--orders", "1000", "--rate", "5", "--port", "0", "--data", data]).spawn().unwrap();
    eventually("the shop is open", || is_open(folder.path(), &mut child).then_some(()));
    let all = family(child.id());
    // Itself, the control plane, the broker, the gateway, ten sidecars and their applications.
    assert!(all.len() >= 24, "{all:?}");
    signal(child.id(), "INT");
    let output = output(child, BOUND);
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    all_gone(&all);
}

#[test]
fn a_port_in_use_is_named_with_the_flag_that_moves_it() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    let output = meshwork(&["demo", "--port", &port]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("127.0.0.1:{port} is in use")) && told.contains("--port"), "{told}");
}
