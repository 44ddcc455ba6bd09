//! The revisions of the configuration on the control plane's own disk: `revisions/000007.json`, one file each, written whole
//! and synced before a revision counts, with a checksum in its first line. `revision` beside the folder holds the last one's number, so that a
//! number is not given twice where the last file, or all of them, are gone.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::config::Config;
use runtime::clock;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use storage::disk::Disk;
use storage::kept;

use crate::hub::Revision;

/// Revisions that are kept; older ones are removed.
pub const KEPT_MAX: usize = 64;
/// Largest file of a revision, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Longest note, in bytes; the rest is cut off.
const NOTE_BYTES_MAX: usize = 200;
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its number.
    pub revision: u64,
    /// When it was published, in milliseconds since 1970; `None` when the file cannot be read.
    pub published_ms: Option<u64>,
    /// Where it came from, as its publisher said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What stands in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct File<C> {
    /// Its number.
    pub revision: u64,
    /// When it was published, in milliseconds since 1970.
    pub published_ms: u64,
    /// Where it came from, as its publisher said. Revisions of earlier releases have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The configuration.
    pub config: C,
}

/// What is kept, as far as a start needs it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Last {
    /// Nothing.
    Nothing,
    /// The last revision.
    Good(u64, Config),
    /// The last revision, `number`, cannot be read; the latest that can be is `earlier`.
    Unreadable { number: u64, earlier: Option<(u64, Config)> },
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

    /// The revisions of a control plane whose folder is `dir`, for whoever only reads them.
    #[must_use]
    pub fn of(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self { disk, folder: dir.join(FOLDER), last_file: dir.join(LAST_FILE) }
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

    /// The configuration with which its control plane begins; `None`: none is kept that can be read.
    ///
    /// # Errors
    /// As the disk says.
    pub fn kept(&self) -> io::Result<Option<Config>> {
        match self.last() {
            Ok(Last::Good(_, config) | Last::Unreadable { earlier: Some((_, config)), .. }) => Ok(Some(config)),
            Ok(Last::Nothing | Last::Unreadable { earlier: None, .. }) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The last revision, or the latest that can be read: one that a later release wrote, that the disk has damaged, or whose file is
    /// gone, cannot be. Its number is taken all the same.
    ///
    /// # Errors
    /// As the disk says when it is asked which revisions there are.
    pub(crate) fn last(&self) -> io::Result<Last> {
        let (numbers, said) = (self.numbers()?, self.last_number()?);
        let Some(last) = numbers.last().copied().max(said) else {
            tracing::info!("no revision is kept, and nothing says that one was: the first one is made");
            return Ok(Last::Nothing);
        };
        if numbers.last() != Some(&last) {
            tracing::error!(
                revision = last,
                "the file of the last kept revision is missing; its number is not given again"
            );
        }
        for &number in numbers.iter().rev() {
            match self.file::<Config>(number) {
                Ok(file) if number == last => return Ok(Last::Good(number, file.config)),
                Ok(file) => return Ok(Last::Unreadable { number: last, earlier: Some((number, file.config)) }),
                Err(error) if is_damage(&error) => {
                    tracing::error!(revision = number, %error, "a kept revision cannot be read");
                }
                // The disk may give it later: another one in its place would undo what was published.
                Err(error) => return Err(error),
            }
        }
        Ok(Last::Unreadable { number: last, earlier: None })
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
    pub fn keep(&self, revision: &Revision, note: Option<&str>) -> io::Result<()> {
        let file = File {
            revision: revision.number,
            published_ms: clock::wall_ms(),
            note: note.map(|note| note[..note.floor_char_boundary(NOTE_BYTES_MAX)].to_owned()),
            config: &*revision.config,
        };
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
        Ok(self.numbers()?.into_iter().map(|number| self.read(number)).collect())
    }

    /// One kept revision, whole; `None` when it is not kept.
    ///
    /// # Errors
    /// As the disk says, and when the file does not parse.
    pub fn get(&self, number: u64) -> io::Result<Option<File<Config>>> {
        match self.file(number) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(&self, revision: u64) -> Kept {
        match self.file::<IgnoredAny>(revision) {
            Ok(file) => Kept { revision, published_ms: Some(file.published_ms), note: file.note },
            Err(error) => {
                tracing::warn!(revision, %error, "a kept revision cannot be read");
                Kept { revision, published_ms: None, note: None }
            }
        }
    }

    fn file<C: DeserializeOwned>(&self, number: u64) -> io::Result<File<C>> {
        let text = match kept::read(&*self.disk, &self.path(number), FILE_BYTES_MAX) {
            Ok(Some(text)) => text,
            Ok(None) => return Err(io::ErrorKind::NotFound.into()),
            Err(error @ kept::Error::Damaged { .. }) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            Err(error) => return Err(io::Error::other(error)),
        };
        serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
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

/// Whether the file itself is wrong, and not the way to it.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::FileTooLarge)
}
