//! One service alone: how it starts and how it ends.

use std::process::{ExitStatus, Stdio};

use http::{Method, StatusCode};
use tempfile::TempDir;
use tokio::process::Command;

use crate::PATIENCE;
use crate::client;
use crate::process::{Process, program};

/// How a program ends that does not come up, and what it says of it.
async fn refuses(mut program: Command) -> (ExitStatus, String) {
    let output = tokio::time::timeout(PATIENCE, program.stderr(Stdio::piped()).output()).await;
    let output = output.expect("it ends").unwrap();
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn says_what_is_missing() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    std::fs::File::create_new(&file).unwrap();
    for (service, environment, said) in [
        ("catalog", &[][..], "PORT is not set"),
        ("orders", &[("PORT", "0")][..], "MESHWORK_PROXY is not set"),
        ("payments", &[("PORT", "0"), ("VERSION", "v9")][..], "VERSION is `v9`"),
        ("payments", &[("PORT", "0"), ("SHOP_DATA", file.to_str().unwrap())][..], "charges.jsonl"),
    ] {
        let (status, error) = refuses(program(service, environment)).await;
        assert!(!status.success() && error.contains(said), "{service}: {error}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let data = TempDir::new().unwrap();
    let first = Process::start("catalog", "127.0.0.1:1", data.path()).await;
    let port = first.address.port().to_string();
    let (status, error) = refuses(program("catalog", &[("PORT", &port)])).await;
    assert!(!status.success() && error.contains(&format!("127.0.0.1:{port} (PORT)")), "{error}");
}

#[tokio::test]
async fn ends_in_order_when_asked_to() {
    let data = TempDir::new().unwrap();
    for service in ["catalog", "inventory", "orders", "notifications"] {
        let mut process = Process::start(service, "127.0.0.1:1", data.path()).await;
        if service != "inventory" {
            let health = client::call(process.address, Method::GET, "/healthz", &[], "").await;
            assert_eq!(health.status, StatusCode::OK);
        }
        process.terminate();
        assert!(process.ended().await.success(), "{service}");
    }
}
