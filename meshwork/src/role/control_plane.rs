//! The control plane's role.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use control::{ControlPlane, token};
use model::config::Config;
use model::name::Name;
use runtime::drain::{self, Drain};
use runtime::metrics::Metrics;
use storage::disk;

use super::Ground;
use super::ready::Ready;

/// How many of its lives after its end a certificate can still be renewed: a day of the usual hour, so that a machine that was
/// suspended over night comes back by itself. Who shortens the life, since keys may be stolen, shortens this with it. What it
/// costs, docs/decisions/2026-11-30-identity.md says.
const RENEWAL_GRACE_LIVES: u32 = 24;
/// How long streams may take to end.
const DRAIN_BOUND: Duration = Duration::from_secs(5);

/// How a control plane runs.
#[derive(Debug)]
pub struct Options {
    /// The mesh file, proven: what an empty folder begins with. `None`: there is none, or it is not good.
    pub file: Option<Config>,
    /// The name under which it tells that it is ready.
    pub instance: Name,
    /// Where roles reach it.
    pub listen: SocketAddr,
    /// Where an operator reaches it, on loopback.
    pub admin: Option<SocketAddr>,
    /// What tokens are made and verified with.
    pub token_secret: token::Secret,
    /// How long a certificate holds.
    pub certificate_life: Duration,
    /// Its own folder.
    pub data: PathBuf,
    /// Where to write the ready file.
    pub ready_file: Option<PathBuf>,
}

/// The file in the control plane's folder that holds the mesh's roots in PEM, for whoever starts roles.
pub const ROOTS_FILE: &str = "roots.pem";

/// Runs until `stop`.
///
/// # Errors
/// When it cannot listen or its folder cannot be read.
pub async fn run(options: Options, ground: Ground, stop: Drain) -> anyhow::Result<()> {
    let (ending, drain) = drain::channel();
    ground.disk.create_dir_all(&options.data)?;
    let plane = ControlPlane::start(control::Options {
        file: options.file,
        disk: ground.disk.clone(),
        dir: options.data.clone(),
        place: ground.place(),
        listen: options.listen,
        admin: options.admin,
        token_secret: options.token_secret,
        certificate_life: options.certificate_life,
        renewal_grace: options.certificate_life.saturating_mul(RENEWAL_GRACE_LIVES),
        metrics: Metrics::default(),
        drain: drain.clone(),
    })
    .await
    .map_err(remedied)?;
    disk::replace(&*ground.disk, &options.data.join(ROOTS_FILE), plane.roots_pem().as_bytes())?;
    let addresses = [("control", Some(plane.address())), ("admin", plane.admin_address())];
    Ready::new("control-plane", &options.instance, addresses).tell(&*ground.disk, options.ready_file.as_deref())?;
    stop.requested().await;
    ending.drain(DRAIN_BOUND).await?;
    Ok(())
}

/// With the setting that moves what cannot be listened on.
fn remedied(error: control::Error) -> anyhow::Error {
    match &error {
        control::Error::Listen(_) => anyhow::anyhow!("{error}; `--listen` moves it"),
        control::Error::ListenAdmin(_) => anyhow::anyhow!("{error}; `--admin` moves it"),
        _ => error.into(),
    }
}
