//! The roles of the one binary. Each wires planes into a process: it holds no decision and no protocol of its own.
//!
//! Every role runs the same on the machine and in the simulation: what differs is in [`Ground`].

pub mod application;
pub mod broker;
pub mod control_plane;
pub mod deadline;
pub mod gateway;
pub mod health;
pub mod member;
pub mod ready;
pub mod sidecar;

use std::sync::Arc;

use runtime::lanes::{Lanes, Place};
use storage::disk::Disk;

/// What a role stands on.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Where files are.
    pub disk: Arc<dyn Disk>,
    /// Where threads are.
    pub threads: Threads,
}

/// Where a role's threads are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// So many core lanes, and disk lanes as they are needed.
    Lanes(usize),
    /// None: everything runs on the caller's runtime. For the simulation.
    Inline,
}

impl Ground {
    /// The machine's own disk and `lanes` core lanes.
    #[must_use]
    pub fn machine(lanes: usize) -> Self {
        Self { disk: Arc::new(storage::disk::real::RealDisk), threads: Threads::Lanes(lanes) }
    }

    fn lanes(&self, name: &str) -> std::io::Result<Arc<Lanes>> {
        Ok(Arc::new(match self.threads {
            Threads::Lanes(count) => Lanes::start(count, name)?,
            Threads::Inline => Lanes::inline(),
        }))
    }

    fn place(&self) -> Place {
        match self.threads {
            Threads::Lanes(_) => Place::Thread,
            Threads::Inline => Place::Inline,
        }
    }
}

/// With the setting that moves what cannot be listened on.
fn remedied(error: proxy::Error) -> anyhow::Error {
    match &error {
        proxy::Error::Listen { door: "gateway", .. } => {
            anyhow::anyhow!("{error}; `listen` of the gateway in the mesh file moves it, or `--listen`")
        }
        proxy::Error::Listen { door, .. } => anyhow::anyhow!("{error}; `--{door}` moves it"),
        proxy::Error::InTheOpen { door, .. } => anyhow::anyhow!("{error}; `--{door}` moves it"),
        proxy::Error::NoIdentity => error.into(),
    }
}

fn access_log(on: bool) -> proxy::AccessLog {
    if on { proxy::AccessLog::Stderr } else { proxy::AccessLog::Off }
}
