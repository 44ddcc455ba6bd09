//! The revisions of the configuration on the control plane's own disk: `revisions/000007.json`, one file each, written whole
//! and synced before a revision counts, with a checksum in its first line. `revision` beside the folder holds the last one's number, so that a
//! number is not given twice where the last file, or all of them, are gone.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::config::Config;
use runtime::clock;
use serde::{Deserialize, Serialize};
use storage::disk::Disk;
use storage::kept;

use crate::hub::Revision;

/// Revisions that are kept; older ones are removed.
pub const KEPT_MAX: usize = 64;
/// Largest file of a revision, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
const FOLDER: &str = "revisions";
/// The file with the last one's number, and how long it is at most in bytes.
const LAST_FILE: &str = "revision";
const LAST_FILE_BYTES_MAX: u64 = 64;

/// The revisions in a folder.
#[derive(Debug)]
pub struct Revisions {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    last_file: PathBuf,
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
        Ok(Self { disk, folder, last_file: dir.join(LAST_FILE) })
    }

    /// Whether revisions were ever kept in `dir`, as far as anything there says so.
    ///
    /// # Errors
    /// As the disk says.
    pub fn were_kept(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
        let kept = match disk.list(&dir.join(FOLDER)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            names => names?.iter().any(|name| number_of(name).is_some()),
        };
        Ok(kept || disk.exists(&dir.join(LAST_FILE))?)
    }

    /// The last revision. Its configuration is `None` when the file is missing or damaged, or does not parse, as one that a later release
    /// wrote may not: its number is taken all the same.
    ///
    /// # Errors
    /// As the disk says.
    pub fn last(&self) -> io::Result<Option<(u64, Option<Config>)>> {
        let number = self.numbers()?.pop();
        let said = self.last_number()?;
        if said > number {
            let revision = said.unwrap_or_default();
            tracing::warn!(revision, "the file of the last kept revision is missing; its number is not given again");
            return Ok(said.map(|number| (number, None)));
        }
        let Some(number) = number else {
            tracing::info!("no revision is kept, and nothing says that one was: the first one is made");
            return Ok(None);
        };
        let parsed = match kept::read(&*self.disk, &self.path(number), FILE_BYTES_MAX) {
            Ok(text) => {
                serde_json::from_slice::<File<Config>>(&text.unwrap_or_default()).map_err(|error| error.to_string())
            }
            Err(error @ kept::Error::Damaged { .. }) => Err(error.to_string()),
            Err(error) => return Err(io::Error::other(error)),
        };
        if let Err(error) = &parsed {
            tracing::warn!(revision = number, %error, "the last kept revision cannot be read; the mesh file becomes a new one");
        }
        Ok(Some((number, parsed.ok().map(|file| file.config))))
    }

    /// The number of the last revision, as its own file has it.
    fn last_number(&self) -> io::Result<Option<u64>> {
        match kept::read(&*self.disk, &self.last_file, LAST_FILE_BYTES_MAX) {
            Ok(None) => Ok(None),
            Ok(Some(text)) => Ok(std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok())),
            Err(error @ kept::Error::Damaged { .. }) => {
                tracing::warn!(%error, "the number of the last revision is taken from the revisions' files");
                Ok(None)
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Keeps a revision; it is on the disk when this returns.
    ///
    /// # Errors
    /// As the disk says; the revision then does not count.
    pub fn keep(&self, revision: &Revision) -> io::Result<()> {
        let file = File { revision: revision.number, published_ms: clock::wall_ms(), config: &*revision.config };
        let text = serde_json::to_vec_pretty(&file).map_err(io::Error::other)?;
        kept::write(&*self.disk, &self.path(revision.number), &text)?;
        // Its own file says the number as well, as long as it is there.
        if let Err(error) = kept::write(&*self.disk, &self.last_file, format!("{}\n", revision.number).as_bytes()) {
            tracing::warn!(revision = revision.number, %error, "the number of the last revision could not be kept");
        }
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
        let text = match kept::read(&*self.disk, &self.path(revision), FILE_BYTES_MAX) {
            Ok(text) => text.unwrap_or_default(),
            Err(kept::Error::Damaged { .. }) => Vec::new(),
            Err(error) => return Err(io::Error::other(error)),
        };
        let file = serde_json::from_slice::<File<serde::de::IgnoredAny>>(&text);
        Ok(Kept { revision, published_ms: file.ok().map(|file| file.published_ms) })
    }

    /// The numbers of the kept revisions, ascending.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let names = self.disk.list(&self.folder)?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
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

fn number_of(file_name: &str) -> Option<u64> {
    file_name.strip_suffix(".json")?.parse().ok()
}
