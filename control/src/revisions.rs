//! The revisions of the configuration on the control plane's own disk: `revisions/000007.json`, one file each, written whole
//! and synced before a revision counts.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::config::Config;
use runtime::clock;
use serde::{Deserialize, Serialize};
use storage::disk::{self, Disk};

use crate::hub::Revision;

/// Revisions that are kept; older ones are removed.
pub const KEPT_MAX: usize = 64;
/// Largest file of a revision, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
const FOLDER: &str = "revisions";

/// The revisions in a folder.
#[derive(Debug)]
pub struct Revisions {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
}

/// A kept revision, without its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its number.
    pub revision: u64,
    /// When it was published, in milliseconds since 1970; `None` when the file does not say.
    pub published_ms: Option<u64>,
}

/// What stands in a file.
#[derive(Serialize, Deserialize)]
struct File<C> {
    revision: u64,
    published_ms: u64,
    config: C,
}

impl Revisions {
    /// The revisions in `dir`, which is created.
    ///
    /// # Errors
    /// As the disk says.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<Self> {
        let folder = dir.join(FOLDER);
        disk.create_dir_all(&folder)?;
        disk.sync_dir(dir)?;
        Ok(Self { disk, folder })
    }

    /// The last revision. Its configuration is `None` when the file does not parse, as one that a later release wrote may not:
    /// its number is taken all the same.
    ///
    /// # Errors
    /// As the disk says.
    pub fn last(&self) -> io::Result<Option<(u64, Option<Config>)>> {
        let Some(number) = self.numbers()?.pop() else { return Ok(None) };
        let text = disk::read_whole(&*self.disk, &self.path(number), FILE_BYTES_MAX)?;
        match serde_json::from_slice::<File<Config>>(&text) {
            Ok(file) => Ok(Some((number, Some(file.config)))),
            Err(error) => {
                tracing::warn!(revision = number, %error, "the last kept revision does not parse");
                Ok(Some((number, None)))
            }
        }
    }

    /// Keeps a revision; it is on the disk when this returns.
    ///
    /// # Errors
    /// As the disk says; the revision then does not count.
    pub fn keep(&self, revision: &Revision) -> io::Result<()> {
        let file = File { revision: revision.number, published_ms: clock::wall_ms(), config: &*revision.config };
        let text = serde_json::to_vec_pretty(&file).map_err(io::Error::other)?;
        disk::replace(&*self.disk, &self.path(revision.number), &text)?;
        self.forget_old();
        Ok(())
    }

    /// The kept revisions, oldest first.
    ///
    /// # Errors
    /// As the disk says.
    pub fn list(&self) -> io::Result<Vec<Kept>> {
        self.numbers()?.into_iter().map(|number| self.read(number)).collect()
    }

    fn read(&self, revision: u64) -> io::Result<Kept> {
        let text = disk::read_whole(&*self.disk, &self.path(revision), FILE_BYTES_MAX)?;
        let file = serde_json::from_slice::<File<serde::de::IgnoredAny>>(&text);
        Ok(Kept { revision, published_ms: file.ok().map(|file| file.published_ms) })
    }

    /// The numbers of the kept revisions, ascending.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let names = self.disk.list(&self.folder)?;
        let number = |name: &str| name.strip_suffix(".json")?.parse().ok();
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn forget_old(&self) {
        let numbers = self.numbers().unwrap_or_default();
        for old in numbers.iter().rev().skip(KEPT_MAX) {
            if let Err(error) = self.disk.remove(&self.path(*old)) {
                tracing::warn!(revision = old, %error, "an old revision could not be removed");
            }
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:06}.json"))
    }
}
