//! Publication: a configuration that was proven whole becomes a revision, first on the disk, then in force.
//!
//! The kept revisions are the truth: a mesh file at a start makes the first one, and no other.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use model::config::finding::Finding;
use model::config::{Change, Config, changes};
use model::name::Name;

use crate::hub::{Hub, Revision};
use crate::publication::Publication;
use crate::revisions::{File, Kept, Last, Revisions};
use crate::serve::counters::Counters;

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
    /// Somebody else has published since.
    #[error("revision {current} is in force, not {from}: somebody has changed the mesh meanwhile")]
    Moved {
        /// The revision it was made from.
        from: u64,
        /// The revision in force.
        current: u64,
    },
    /// There is no such revision, or not any more.
    #[error("revision {0} is not kept")]
    NotKept(u64),
    /// There is neither a kept revision nor a mesh file to begin with.
    #[error("{0} and there is no good mesh file to begin with")]
    NothingToBeginWith(&'static str),
    /// The disk said no.
    #[error("the disk of the revisions: {0}")]
    Disk(#[from] io::Error),
}

/// What a control plane begins with.
#[derive(Debug, PartialEq)]
pub(crate) struct Beginning {
    /// Its number.
    pub(crate) number: u64,
    /// Its configuration.
    pub(crate) config: Config,
    /// It has to be kept first; why it is there.
    fresh: Option<String>,
    /// An earlier life may have told roles of instances.
    restarted: bool,
    /// The mesh file says something else.
    differs: bool,
}

impl Beginning {
    /// Kept revisions win over the mesh file, which `file` is: what was published since it was written must outlive a restart.
    pub(crate) fn choose(last: Last, file: Option<Config>) -> Result<Self, Error> {
        let restarted = last != Last::Nothing;
        let (number, config, fresh) = match last {
            Last::Good(number, config) => (number, config, None),
            Last::Unreadable { number, earlier: Some((earlier, config)) } => {
                let why = format!("revision {earlier} again, since {number} cannot be read");
                (number + 1, config, Some(why))
            }
            last => {
                let (number, why) = match last {
                    Last::Unreadable { number, .. } => (number + 1, "no kept revision can be read"),
                    _ => (1, "no revision is kept"),
                };
                let config = file.ok_or(Error::NothingToBeginWith(why))?;
                let fresh = Some("the mesh file at the start".to_owned());
                return Ok(Self { number, config, fresh, restarted, differs: false });
            }
        };
        match file {
            // Whoever starts it with the file of another mesh has taken the wrong folder.
            Some(file) if file.mesh != config.mesh => Err(Error::OtherMesh { mesh: config.mesh, found: file.mesh }),
            file => {
                let differs = file.is_some_and(|file| file != config);
                Ok(Self { number, config, fresh, restarted, differs })
            }
        }
    }
}

impl Publisher {
    /// Puts in force what it begins with, which is on the disk when this returns. Snapshots are numbered above `version`.
    pub(crate) fn start(
        revisions: Revisions,
        beginning: Beginning,
        version: u64,
        counters: Counters,
    ) -> io::Result<Self> {
        let Beginning { number, config, fresh, restarted, differs } = beginning;
        let revision = Revision { number, config: Arc::new(config) };
        if let Some(note) = &fresh {
            revisions.keep(&revision, Some(note))?;
        }
        tracing::info!(revision = number, new = fresh.is_some(), "the configuration is in force");
        if differs {
            tracing::info!(
                revision = number,
                "the mesh file differs from the kept revision, which stays in force; `meshwork apply FILE` publishes the file"
            );
        }
        counters.revision.set(i64::try_from(number).unwrap_or(i64::MAX));
        Ok(Self { hub: Hub::new(revision, restarted, version), counters, revisions: Mutex::new(revisions) })
    }

    /// The hub that the revisions are put into.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Publishes a configuration and answers its revision: the one in force when nothing differs. With `from` only while that is
    /// the revision in force: whoever publishes has then seen what is replaced.
    ///
    /// # Errors
    /// When it is of another mesh, was made from another revision, or could not be kept; then nothing has changed.
    pub fn publish(&self, config: Config, from: Option<u64>, note: Option<&str>) -> Result<u64, Error> {
        let revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        self.publish_in(&revisions, config, from, note)
    }

    /// Publishes mesh files.
    ///
    /// # Errors
    /// As [`Publisher::publish`], and when they have mistakes.
    pub fn publish_files(&self, publication: &Publication, from: Option<u64>) -> Result<u64, Error> {
        let config = publication.prove().map_err(Error::Mistakes)?;
        self.publish(config, from, publication.note.as_deref())
    }

    /// What publishing these mesh files would change now: the revision in force, and what differs from it.
    ///
    /// # Errors
    /// When they have mistakes, or are of another mesh.
    pub fn preview_files(&self, publication: &Publication) -> Result<(u64, Vec<Change>), Error> {
        self.preview(&publication.prove().map_err(Error::Mistakes)?)
    }

    /// What a rollback would change now.
    ///
    /// # Errors
    /// When the earlier revision is not kept.
    pub fn preview_rollback(&self, to: u64) -> Result<(u64, Vec<Change>), Error> {
        self.preview(&self.revision(to)?.ok_or(Error::NotKept(to))?.config)
    }

    fn preview(&self, config: &Config) -> Result<(u64, Vec<Change>), Error> {
        let current = self.hub.revision();
        if config.mesh != current.config.mesh {
            return Err(Error::OtherMesh { mesh: current.config.mesh.clone(), found: config.mesh.clone() });
        }
        Ok((current.number, changes(&current.config, config)))
    }

    /// Publishes what an earlier revision held as a new one.
    ///
    /// # Errors
    /// As [`Publisher::publish`], and when the earlier revision is not kept.
    pub fn roll_back(&self, to: u64, from: Option<u64>) -> Result<u64, Error> {
        let revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        let file = revisions.get(to)?.ok_or(Error::NotKept(to))?;
        self.publish_in(&revisions, file.config, from, Some(&format!("rollback to {to}")))
    }

    fn publish_in(
        &self,
        revisions: &Revisions,
        config: Config,
        from: Option<u64>,
        note: Option<&str>,
    ) -> Result<u64, Error> {
        let current = self.hub.revision();
        if config.mesh != current.config.mesh {
            return Err(Error::OtherMesh { mesh: current.config.mesh.clone(), found: config.mesh });
        }
        // Before the comparison of the numbers: whoever asks again since the answer was lost has what was asked for.
        if config == *current.config {
            return Ok(current.number);
        }
        if let Some(from) = from.filter(|from| *from != current.number) {
            return Err(Error::Moved { from, current: current.number });
        }
        let next = Revision { number: current.number + 1, config: Arc::new(config) };
        revisions.keep(&next, note)?;
        let number = next.number;
        self.hub.put(next);
        self.counters.revision.set(i64::try_from(number).unwrap_or(i64::MAX));
        tracing::info!(revision = number, note, "a new configuration is in force");
        Ok(number)
    }

    /// The kept revisions, oldest first.
    ///
    /// # Errors
    /// As the disk says.
    pub fn kept(&self) -> io::Result<Vec<Kept>> {
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner).list()
    }

    /// One kept revision; `None` when it is not kept.
    ///
    /// # Errors
    /// As the disk says, and when it cannot be read.
    pub fn revision(&self, number: u64) -> io::Result<Option<File<Config>>> {
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner).get(number)
    }
}

#[cfg(test)]
mod tests;
