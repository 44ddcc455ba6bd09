//! A ledger: what a service has done, one JSON line for each entry, kept in a file that all of its instances share.
//!
//! An entry that was written is on the disk, and stays so whatever is killed. Who writes holds the file's lock, has read what the
//! others wrote, and decides on that: so "once" holds across instances too. What entries mean is left to the [`Book`]s.
//!
//! It is not: a database. Every instance holds the whole book in memory, and nothing is ever removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most bytes of a ledger: past it, the shop has run for long enough.
const LEDGER_BYTES_MAX: u64 = 1 << 30;

/// What the entries of a ledger come to.
pub trait Book: Default + Send + 'static {
    /// One line.
    type Entry: Serialize + DeserializeOwned;
    /// Takes one entry in. Entries come in the order in which they were written.
    fn enter(&mut self, entry: Self::Entry);
}

/// Why a ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused; asking again may help.
    #[error("{path}: {source}")]
    Io {
        /// The ledger.
        path: String,
        /// What the file system said.
        source: io::Error,
    },
    /// A line that was written whole cannot be read: the file is damaged, and nothing after it is believed.
    #[error("{path}: the line at byte {at} is damaged: {reason}")]
    Damaged {
        /// The ledger.
        path: String,
        /// Where the line begins.
        at: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// It holds as much as it may.
    #[error("{0} is full")]
    Full(String),
    /// A sync failed before, so that nobody knows what is on the disk: only a restart reads it again.
    #[error("{0} could not be synced and is closed until a restart")]
    Unsynced(String),
}

/// A ledger and the book that is kept by it. Cheap to clone.
pub struct Ledger<B> {
    // A blocking lock: it is taken on blocking threads only, for the length of one read or write.
    inner: Arc<Mutex<Inner<B>>>,
}

impl<B> Clone for Ledger<B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<B> {
    path: PathBuf,
    file: File,
    /// Up to here the file is in the book.
    read_to: u64,
    unsynced: bool,
    book: B,
}

impl<B: Book> Ledger<B> {
    /// Opens `folder/name`, making both if they are not there, and reads what is in it.
    ///
    /// # Errors
    /// When it cannot be opened, or is damaged.
    pub fn open(folder: &Path, name: &str) -> Result<Self, Error> {
        let path = folder.join(name);
        let open = || {
            fs::create_dir_all(folder)?;
            let file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
            // The file's name is to survive as well as its content does.
            File::open(folder)?.sync_all()?;
            Ok(file)
        };
        let file = open().map_err(|source| Error::Io { path: path.display().to_string(), source })?;
        let mut inner = Inner { path, file, read_to: 0, unsynced: false, book: B::default() };
        inner.read(|_| ())?;
        Ok(Self { inner: Arc::new(Mutex::new(inner)) })
    }

    /// Looks into the book, with all that other instances have written.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn read<R: Send + 'static>(&self, look: impl FnOnce(&B) -> R + Send + 'static) -> Result<R, Error> {
        self.blocking(move |inner| inner.read(look)).await
    }

    /// Decides on the book as it stands what to write, writes and syncs it, and gives the decision's answer. Nobody else
    /// writes between the two. An empty decision writes nothing.
    ///
    /// # Errors
    /// When the entries are not on the disk; then they are not in the book either.
    pub async fn write<R: Send + 'static>(
        &self,
        decide: impl FnOnce(&B) -> (Vec<B::Entry>, R) + Send + 'static,
    ) -> Result<R, Error> {
        self.blocking(move |inner| inner.write(decide)).await
    }

    async fn blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inner<B>) -> Result<R, Error> + Send + 'static,
    ) -> Result<R, Error> {
        let inner = Arc::clone(&self.inner);
        let task = tokio::task::spawn_blocking(move || {
            // A panic under the lock leaves the book as it was before the entry: it is only changed after the sync.
            work(&mut inner.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match task.await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

impl<B: Book> Inner<B> {
    fn read<R>(&mut self, look: impl FnOnce(&B) -> R) -> Result<R, Error> {
        self.file.lock_shared().map_err(|error| self.io(error))?;
        let caught_up = self.catch_up();
        self.file.unlock().map_err(|error| self.io(error))?;
        caught_up.map(|()| look(&self.book))
    }

    fn write<R>(&mut self, decide: impl FnOnce(&B) -> (Vec<B::Entry>, R)) -> Result<R, Error> {
        if self.unsynced {
            return Err(Error::Unsynced(self.name()));
        }
        self.file.lock().map_err(|error| self.io(error))?;
        let written = self.write_locked(decide);
        self.file.unlock().map_err(|error| self.io(error))?;
        written
    }

    fn write_locked<R>(&mut self, decide: impl FnOnce(&B) -> (Vec<B::Entry>, R)) -> Result<R, Error> {
        self.catch_up()?;
        let (entries, answer) = decide(&self.book);
        if entries.is_empty() {
            return Ok(answer);
        }
        let mut lines = Vec::new();
        for entry in &entries {
            serde_json::to_writer(&mut lines, entry).map_err(|error| self.io(error.into()))?;
            lines.push(b'\n');
        }
        if self.read_to + lines.len() as u64 > LEDGER_BYTES_MAX {
            return Err(Error::Full(self.name()));
        }
        // What lies past the last whole line is what a killed writer left; under the lock nobody is writing it any more.
        self.file.set_len(self.read_to).map_err(|error| self.io(error))?;
        self.file.write_all(&lines).map_err(|error| self.io(error))?;
        if let Err(error) = self.file.sync_data() {
            self.unsynced = true;
            return Err(self.io(error));
        }
        self.read_to += lines.len() as u64;
        entries.into_iter().for_each(|entry| self.book.enter(entry));
        Ok(answer)
    }

    /// Takes in the whole lines that the book does not have yet.
    fn catch_up(&mut self) -> Result<(), Error> {
        if self.file.metadata().map_err(|error| self.io(error))?.len() == self.read_to {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let read = self.file.seek(SeekFrom::Start(self.read_to)).and_then(|_| {
            let mut rest = (&self.file).take(LEDGER_BYTES_MAX);
            rest.read_to_end(&mut bytes)
        });
        read.map_err(|error| self.io(error))?;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\n") else { break };
            let entry = serde_json::from_slice(line).map_err(|error| Error::Damaged {
                path: self.name(),
                at: self.read_to,
                reason: error.to_string(),
            })?;
            self.book.enter(entry);
            self.read_to += line.len() as u64 + 1;
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn io(&self, source: io::Error) -> Error {
        Error::Io { path: self.name(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Numbers(Vec<u32>);

    impl Book for Numbers {
        type Entry = u32;
        fn enter(&mut self, entry: u32) {
            self.0.push(entry);
        }
    }

    fn open(folder: &Path) -> Result<Ledger<Numbers>, Error> {
        Ledger::open(folder, "numbers.jsonl")
    }

    async fn all(ledger: &Ledger<Numbers>) -> Vec<u32> {
        ledger.read(|numbers| numbers.0.clone()).await.unwrap()
    }

    async fn add_once(ledger: &Ledger<Numbers>, number: u32) -> bool {
        let decide = move |numbers: &Numbers| match numbers.0.contains(&number) {
            true => (vec![], false),
            false => (vec![number], true),
        };
        ledger.write(decide).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_written_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = open(&folder.path().join("deep/down")).unwrap();
        assert!(add_once(&ledger, 7).await);
        assert!(!add_once(&ledger, 7).await);
        ledger.write(|_| (vec![8, 9], ())).await.unwrap();
        drop(ledger);
        assert_eq!(all(&open(&folder.path().join("deep/down")).unwrap()).await, [7, 8, 9]);
    }

    #[tokio::test]
    async fn a_torn_last_line_is_as_if_never_written() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("numbers.jsonl"), "1\n23").unwrap();
        let ledger = open(folder.path()).unwrap();
        assert_eq!(all(&ledger).await, [1]);
        assert!(add_once(&ledger, 4).await);
        assert_eq!(fs::read_to_string(folder.path().join("numbers.jsonl")).unwrap(), "1\n4\n");
        assert_eq!(all(&open(folder.path()).unwrap()).await, [1, 4]);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("numbers.jsonl"), "1\nx\n3\n").unwrap();
        let error = open(folder.path()).err().unwrap();
        assert!(matches!(error, Error::Damaged { at: 2, .. }), "{error}");
    }

    #[tokio::test]
    async fn instances_share_what_was_done_once() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (open(folder.path()).unwrap(), open(folder.path()).unwrap());
        let both = (0..50).map(|n| {
            let (one, other) = (one.clone(), other.clone());
            async move {
                let (a, b) = tokio::join!(add_once(&one, n), add_once(&other, n));
                assert!(a != b, "{n} was added by both or by none");
            }
        });
        futures_util::future::join_all(both).await;
        let (mut one, other) = (all(&one).await, all(&other).await);
        assert_eq!(one, other);
        one.sort_unstable();
        assert_eq!(one, (0..50).collect::<Vec<_>>());
    }
}
