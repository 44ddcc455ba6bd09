//! A control plane inside of the test program, for roles that run there too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use control::{ControlPlane, token};
use runtime::drain::Drain;
use runtime::lanes::Place;
use runtime::metrics::Metrics;
use storage::disk::memory::MemoryDisk;

/// Starts one with the mesh file `text`.
pub async fn start(text: &str, disk: Arc<MemoryDisk>, secret: &token::Secret, drain: &Drain) -> ControlPlane {
    start_with(text, disk, secret, Duration::from_hours(1), drain).await
}

/// The same, whose certificates hold for `life`.
pub async fn start_with(
    text: &str,
    disk: Arc<MemoryDisk>,
    secret: &token::Secret,
    life: Duration,
    drain: &Drain,
) -> ControlPlane {
    let options = control::Options {
        file: Some(model::config::check("mesh.yaml", text).unwrap().config),
        disk,
        dir: PathBuf::from("/control"),
        place: Place::Thread,
        listen: ([127, 0, 0, 1], 0).into(),
        admin: None,
        token_secret: secret.clone(),
        certificate_life: life,
        renewal_grace: life * 24,
        metrics: Metrics::default(),
        drain: drain.clone(),
    };
    ControlPlane::start(options).await.unwrap()
}
