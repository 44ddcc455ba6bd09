//! Publication: a configuration that was proven whole becomes a revision, first on the disk, then in force.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use model::config::finding::{Finding, Source};
use model::config::{self, Config, Enclosed, Enclosures, check_enclosed};
use model::name::Name;
use runtime::tls;

use crate::hub::{Hub, Revision};
use crate::revisions::{Kept, Revisions};
use crate::serve::counters::Counters;

/// What a mesh file that came without a name is called in findings.
const FILE: &str = "mesh.yaml";

/// Publishes revisions.
#[derive(Debug)]
pub struct Publisher {
    hub: Arc<Hub>,
    counters: Counters,
    // One publication at a time: a number is taken, written and put in force before the next one is.
    revisions: Mutex<Revisions>,
}

/// Why a configuration did not become a revision.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The mesh file has mistakes.
    #[error("the mesh file has {} mistakes", .0.len())]
    Mistakes(Vec<Finding>),
    /// A mesh keeps its name, since every identity carries it.
    #[error("this control plane runs the mesh {mesh}; the file is of the mesh {found}")]
    OtherMesh {
        /// The mesh that is running.
        mesh: Name,
        /// The one in the file.
        found: Name,
    },
    /// The disk said no.
    #[error("the revision could not be kept: {0}")]
    Disk(#[from] io::Error),
}

impl Publisher {
    /// Takes up the last kept revision, or makes `config` a new one when it differs. Snapshots are numbered above `version`.
    pub(crate) fn start(revisions: Revisions, config: Config, version: u64, counters: Counters) -> io::Result<Self> {
        let last = revisions.last()?;
        let restarted = last.is_some();
        let number = last.as_ref().map_or(0, |(number, _)| *number);
        let same = last.is_some_and(|(_, kept)| kept.as_ref() == Some(&config));
        let revision = Revision { number: if same { number } else { number + 1 }, config: Arc::new(config) };
        if !same {
            revisions.keep(&revision)?;
        }
        tracing::info!(revision = revision.number, new = !same, "the configuration is in force");
        counters.revision.set(i64::try_from(revision.number).unwrap_or(i64::MAX));
        Ok(Self { hub: Hub::new(revision, restarted, version), counters, revisions: Mutex::new(revisions) })
    }

    /// The hub that the revisions are put into.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Publishes a configuration and answers its revision: the one in force when nothing differs.
    ///
    /// # Errors
    /// When it is of another mesh, or could not be kept; then nothing has changed.
    pub fn publish(&self, config: Config) -> Result<u64, Error> {
        let revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.hub.revision();
        if config.mesh != current.config.mesh {
            return Err(Error::OtherMesh { mesh: current.config.mesh.clone(), found: config.mesh });
        }
        if config == *current.config {
            return Ok(current.number);
        }
        let next = Revision { number: current.number + 1, config: Arc::new(config) };
        revisions.keep(&next)?;
        let number = next.number;
        self.hub.put(next);
        self.counters.revision.set(i64::try_from(number).unwrap_or(i64::MAX));
        tracing::info!(revision = number, "a new configuration is in force");
        Ok(number)
    }

    /// Publishes the text of a mesh file.
    ///
    /// # Errors
    /// As [`Publisher::publish`], and when the text has mistakes.
    pub fn publish_text(&self, text: &str) -> Result<u64, Error> {
        let sources = [Source { name: FILE, text }];
        let mut enclosures = Enclosures::default();
        for enclosed in config::enclosed(&sources) {
            let content = proven(&enclosed);
            enclosures.insert(enclosed, content);
        }
        let checked = check_enclosed(&sources, &enclosures).map_err(Error::Mistakes)?;
        self.publish(checked.config)
    }

    /// The kept revisions, oldest first.
    ///
    /// # Errors
    /// As the disk says.
    pub fn kept(&self) -> io::Result<Vec<Kept>> {
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner).list()
    }
}

/// Certificates that stand in a mesh file that came as a text alone.
fn proven(enclosed: &Enclosed) -> Result<String, String> {
    if !enclosed.is_pem() {
        let path = &enclosed.text;
        return Err(format!("a mesh file that is sent here brings no other file with it, so {path:?} cannot be read"));
    }
    match tls::external_roots(enclosed.text.as_bytes()) {
        Ok(_) => Ok(enclosed.text.clone()),
        Err(why) => Err(format!("these certificates cannot be used: {why}")),
    }
}
