//! What tests are made of: a certificate authority, applications, clients, and meshes of data planes.

mod app;
mod ca;
mod client;
mod mesh;
mod wire;

pub use app::App;
pub use ca::Ca;
pub use client::{Client, get, header, raw};
pub use mesh::{Mesh, Node, called, endpoint, external, in_mesh, name};
pub use wire::{Wire, http2, next};

use std::time::Duration;

/// How long anything may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for `future`, and not for ever.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("it never came: {what}"))
}

/// Waits until something holds, at most [`PATIENCE`].
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, waiting).await;
}
