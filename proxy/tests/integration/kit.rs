//! What tests are made of: a certificate authority, applications, clients, and meshes of data planes.

mod app;
mod ca;
mod client;
mod mesh;

pub use app::App;
pub use ca::Ca;
pub use client::{Client, get, header, raw};
pub use mesh::{Mesh, Node, endpoint, external, in_mesh, name};

use std::time::Duration;

/// Waits until something holds; a test that waits longer than ten seconds has failed.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("never came: {what}"));
}
