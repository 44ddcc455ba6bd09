//! `meshwork up`: what becomes of a mesh whose control plane is killed.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use crate::application;
use crate::process::{BOUND, Up, eventually, get_as, instance, signal};

/// `front` publishes to the queue `jobs` and calls `back`.
fn mesh(back: &str) -> String {
    let command = application::command();
    format!(
        "mesh: tests\n\
         queues: {{jobs: {{}}}}\n\
         services:\n  \
           front: {{protocol: http, command: '{command}', health: {{path: /}}, calls: [back], publishes: [jobs]}}\n  \
           back: {{protocol: http, command: '{command}', health: {{path: /}}, consumes: [{{queue: jobs}}]{back}}}\n"
    )
}

fn pid(folder: &Path, name: &str) -> u32 {
    u32::try_from(instance(folder, name)["pid"].as_u64().unwrap()).unwrap()
}

/// Publishes a message as `front`; whether the broker has it.
fn publish(outbound: SocketAddr) -> Option<bool> {
    let mut stream = TcpStream::connect(outbound).ok()?;
    stream.set_read_timeout(Some(BOUND)).ok()?;
    let head = "POST http://broker/v1/queues/jobs/messages HTTP/1.1\r\nhost: broker\r\nconnection: close\r\n";
    write!(stream, "{head}content-type: text/plain\r\ncontent-length: 3\r\n\r\njob").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.starts_with("HTTP/1.1 2"))
}

/// What the control plane says of whom it knows.
fn registry(folder: &Path) -> Option<Vec<Value>> {
    let admin = instance(folder, "control-plane")["addresses"]["admin"].as_str()?.parse().ok()?;
    let (_, body) = get_as(admin, "localhost", "/v1/registry")?;
    Some(serde_json::from_str::<Value>(&body).ok()?["instances"].as_array()?.clone())
}

/// Where the broker was came to its callers' knowledge after five seconds.
#[test]
fn publishing_goes_on_when_control_plane_and_broker_are_killed_together() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh(""));
    up.wait_for("front-0", "ready");
    let outbound = instance(folder.path(), "front-0")["addresses"]["outbound"].as_str().unwrap().parse().unwrap();
    eventually("a message is published", || publish(outbound).filter(|published| *published));
    let doomed = ["control-plane", "broker"].map(|name| pid(folder.path(), name));
    let killed = Instant::now();
    doomed.iter().for_each(|pid| signal(*pid, "KILL"));
    // What was on its way when the broker was killed may have been answered.
    up.wait_for("broker", "restarting");
    eventually("a message is published again", || publish(outbound).filter(|published| *published));
    println!("publishing again {:?} after both were killed", killed.elapsed());
    eventually("all are heard again", || {
        registry(folder.path()).filter(|all| all.len() == 3 && all.iter().all(|known| known["presumed"] == false))
    });
    up.signal("INT");
    assert!(up.end().0.success());
}

/// All of a new run's roles are new, and others may be where those of the killed one were.
#[test]
fn a_new_run_presumes_nobody_of_a_killed_one_to_live() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh(", instances: 2"));
    up.wait_for("front-0", "ready");
    let kept = folder.path().join("control-plane/instances.json");
    eventually("both are kept", || std::fs::read_to_string(&kept).ok().filter(|text| text.contains("back-1")));
    up.signal("KILL");
    assert!(!up.end().0.success());
    let up = Up::start(folder.path(), &mesh(""));
    up.wait_for("front-0", "ready");
    let names: Vec<_> = registry(folder.path()).unwrap().iter().map(|known| known["instance"].clone()).collect();
    assert!(!names.contains(&"back-1".into()) && names.len() == 3, "{names:?}");
    up.signal("INT");
    assert!(up.end().0.success());
}
