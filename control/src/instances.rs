//! Who lives, on the control plane's own disk: `instances.json`, one file that is written when somebody comes or goes.
//!
//! After a restart it says whom the registry may presume to live. It is a help and no record: it is written after the fact, at most
//! each [`KEEP_INTERVAL`], and nothing waits for it. Where it cannot be written it is removed, since an old list says less than
//! the truth, and after a restart without a list nobody is told less than he knows (`registry::REFILL`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::identity::Subject;
use runtime::drain::Drain;
use runtime::lanes::{self, Place};
use serde::{Deserialize, Serialize};
use storage::disk::Disk;
use storage::kept;
use tokio::sync::{mpsc, oneshot};

use crate::hub::Hub;
use crate::registry::Hello;

const FILE: &str = "instances.json";
/// Longest file, in bytes: many times what all roles that may be connected take.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The shortest time between two writes.
const KEEP_INTERVAL: Duration = Duration::from_millis(100);

/// The list in a folder.
#[derive(Debug, Clone)]
pub(crate) struct Instances {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

/// What stands in the file.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    instances: Vec<Listed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Listed {
    subject: Subject,
    #[serde(flatten)]
    hello: Hello,
}

/// Who lives, in the registry's order.
type Living = Vec<(Subject, Hello)>;

/// A list to write, and who waits for that.
type Writing = (Living, oneshot::Sender<()>);

/// Lists that wait to be written: whoever sends one waits for it before the next.
const WRITING_MAX: usize = 1;

/// Forgets who lived, for whoever knows that nobody does any more: all roles will be started anew.
///
/// # Errors
/// As the disk says.
pub fn forget(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    match disk.remove(&dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Instances {
    /// The list in `dir`, which is there.
    pub(crate) fn of(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self { disk, path: dir.join(FILE) }
    }

    /// Lets the hub presume that those live who lived before, and from then on keeps who lives until the drain; what it answers
    /// resolves when the last list is on the disk.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub(crate) fn follow(
        self,
        hub: Arc<Hub>,
        place: Place,
        drain: Drain,
    ) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let lived = self.read();
        if let Some(lived) = &lived {
            tracing::info!(instances = lived.len(), "instances that lived before are presumed to live");
            hub.presume(lived.clone());
        }
        let disk = lanes::disk_lane("instances", place, WRITING_MAX, WRITING_MAX, move |batch: &mut Vec<Writing>| {
            for (living, written) in batch.drain(..) {
                self.write(living);
                // Who waited may have ended.
                let _ = written.send(());
            }
        })?;
        Ok(keep(hub, lived, disk, drain))
    }

    /// Who lived; `None`: nobody knows.
    fn read(&self) -> Option<Living> {
        let read = || -> Result<Option<File>, String> {
            let Some(bytes) = kept::read(&*self.disk, &self.path, FILE_BYTES_MAX).map_err(|error| error.to_string())?
            else {
                return Ok(None);
            };
            serde_json::from_slice(&bytes).map(Some).map_err(|error| error.to_string())
        };
        let file = read().unwrap_or_else(|error| {
            tracing::warn!(path = %self.path.display(), error, "who lived before the restart cannot be read");
            None
        });
        file.map(|file| file.instances.into_iter().map(|listed| (listed.subject, listed.hello)).collect())
    }

    fn write(&self, living: Living) {
        let instances = living.into_iter().map(|(subject, hello)| Listed { subject, hello }).collect();
        let written = serde_json::to_vec_pretty(&File { instances })
            .map_err(io::Error::other)
            .and_then(|text| kept::write(&*self.disk, &self.path, &text));
        let Err(error) = written else { return };
        tracing::warn!(%error, "who lives could not be kept");
        let removed = self.path.parent().map(|dir| forget(&*self.disk, dir));
        if let Some(Err(error)) = removed {
            tracing::error!(%error, "an old list of who lives could not be removed");
        }
    }
}

/// Sends the list to the disk whenever it differs from the last one.
async fn keep(hub: Arc<Hub>, mut last: Option<Living>, disk: mpsc::Sender<Writing>, drain: Drain) {
    let mut bell = hub.bell();
    let mut ending = false;
    loop {
        // What rang until now is in the list that is made now.
        bell.mark_unchanged();
        let living = hub.view(|_, registry, _| registry.living());
        if last.as_ref() != Some(&living) {
            let (done, written) = oneshot::channel();
            // Neither fails while the disk's thread runs, and it runs until the sender is gone.
            if disk.send((living.clone(), done)).await.is_err() || written.await.is_err() {
                return;
            }
            last = Some(living);
        }
        if ending {
            return;
        }
        let next = async {
            tokio::time::sleep(KEEP_INTERVAL).await;
            // It rings until the hub is gone.
            let _ = bell.changed().await;
        };
        tokio::select! {
            () = next => {}
            () = drain.requested() => ending = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use model::name::Name;
    use storage::disk::memory::{MemoryDisk, Operation};
    use storage::disk::read_whole;

    use super::*;

    fn living() -> Living {
        let hello = |instance: &str, subset: Option<&str>, address: Option<&str>| Hello {
            instance: Name::new(instance).unwrap(),
            subset: subset.map(|subset| Name::new(subset).unwrap()),
            address: address.map(|address| address.parse::<SocketAddr>().unwrap()),
        };
        vec![
            ("service/orders".parse().unwrap(), hello("orders-0", Some("blue"), Some("127.0.0.1:1"))),
            ("gateway/public".parse().unwrap(), hello("public-0", None, None)),
            (Subject::Broker, hello("broker-0", None, Some("[::1]:2"))),
        ]
    }

    fn instances(disk: &Arc<MemoryDisk>) -> Instances {
        disk.create_dir_all(Path::new("/control")).unwrap();
        Instances::of(disk.clone(), Path::new("/control"))
    }

    #[test]
    fn the_list_reads_back_and_a_damaged_one_is_none() {
        let disk = Arc::<MemoryDisk>::default();
        let instances = instances(&disk);
        assert_eq!(instances.read(), None);
        instances.write(Vec::new());
        assert_eq!(instances.read(), Some(Vec::new()), "nobody is not the same as not knowing");
        instances.write(living());
        assert_eq!(instances.read(), Some(living()));
        let length = read_whole(&*disk, &instances.path, 10_000).unwrap().len();
        disk.flip_bit(&instances.path, length / 2, 0);
        assert_eq!(instances.read(), None);
        forget(&*disk, Path::new("/control")).unwrap();
        forget(&*disk, Path::new("/control")).unwrap();
        assert!(!disk.exists(&instances.path).unwrap());
    }

    #[test]
    fn an_old_list_does_not_stay_where_a_new_one_cannot_be_written() {
        let disk = Arc::<MemoryDisk>::default();
        let instances = instances(&disk);
        instances.write(living());
        disk.fail(Operation::Write, 0, io::ErrorKind::StorageFull, false);
        instances.write(Vec::new());
        assert_eq!(instances.read(), None);
    }
}
