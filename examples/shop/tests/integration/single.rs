//! One service alone: how it starts and how it ends.

use std::process::Stdio;

use http::{Method, StatusCode};
use tempfile::TempDir;

use crate::client;
use crate::process::{Process, program};

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
        let output = program(service, environment).stderr(Stdio::piped()).output().await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(said), "{service}: {error}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let data = TempDir::new().unwrap();
    let first = Process::start("catalog", "127.0.0.1:1", data.path()).await;
    let port = first.address.port().to_string();
    let output = program("catalog", &[("PORT", &port)]).stderr(Stdio::piped()).output().await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains(&format!("127.0.0.1:{port} (PORT)")), "{error}");
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
