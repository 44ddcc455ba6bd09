//! The write-ahead log: records in one sequence, in segments, durable when [`Log::commit`] says so.
//!
//! One writer appends to a buffer and commits it with one write and one sync, however many records gathered: group commit is its
//! caller's loop. Readers read by sequence from other threads meanwhile. A torn tail, which only a crash before a commit's answer can
//! leave, is cut off at the next start and reported; damage anywhere else stops the start and names the place, since cutting there would lose
//! what was acknowledged (the fault of fjall#311 and of NATS JetStream in Jepsen's analysis of 2.12.1).

mod frame;
mod recover;
mod segment;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use crate::disk::{Disk, Lock};
use segment::Segment;

pub use recover::Recovery;

/// How a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A segment's size in bytes; room for it is taken when it is made. 64 MiB.
    pub segment_bytes: u64,
    /// Largest record in bytes. 8 MiB.
    pub record_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, record_bytes_max: 8 << 20 }
    }
}

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// With the operating system: it survives the process.
    Os,
    /// On the disk: it survives the machine.
    Sync,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk said no; the log is as it was before.
    #[error("{path}: {source}", path = path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// What is on the disk is not what was written, and not a torn tail.
    #[error(
        "{path} is damaged at byte {offset}, where record {sequence} should stand: {what}. Nothing was changed; restore the file from a copy, or move the log aside to start anew without what is in it",
        path = path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// Which record should stand there.
        sequence: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A write or a sync failed before: nothing is known of what reached the disk, so the log takes nothing more until it is opened anew.
    #[error("the log failed before ({cause}) and takes nothing until it is opened anew")]
    Poisoned {
        /// What failed.
        cause: String,
    },
    /// The record is larger than [`Options::record_bytes_max`].
    #[error("a record of {bytes} bytes is larger than {bytes_max}")]
    Large {
        /// Its size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// There is no record with this sequence: trimmed away, or not written yet.
    #[error("the log has no record {sequence}; it holds {first} up to before {next}")]
    Absent {
        /// Which was asked for.
        sequence: u64,
        /// The first one it has.
        first: u64,
        /// The one after its last.
        next: u64,
    },
}

/// The log's writer.
#[derive(Debug)]
pub struct Log {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    options: Options,
    shared: Reader,
    /// Frames that were appended and not yet committed.
    buffer: Vec<u8>,
    /// Where in the buffer each record's frame begins.
    pending: Vec<usize>,
    next_sequence: u64,
    /// Everything before it is synced.
    synced_through: u64,
    /// Written and not synced: the next sync has work.
    unsynced: bool,
    poisoned: Option<String>,
    id: u64,
    // Held, not read: the folder is this log's for as long as it lives.
    _lock: Box<dyn Lock>,
}

/// Reads records by sequence; cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub struct Reader(Arc<RwLock<Vec<Arc<Segment>>>>);

/// A segment, for deciding what may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its first record.
    pub first_sequence: u64,
    /// How many records it has.
    pub records: u64,
    /// Bytes in use.
    pub bytes: u64,
}

impl Log {
    /// Opens the log in `folder`, and makes one where there is none; `replay` gets every record in order.
    ///
    /// # Errors
    /// [`Error::Damaged`] when something other than a torn tail is wrong; [`Error::Disk`] when the disk says no or another process has the log.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        options: Options,
        replay: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<(Self, Recovery), Error> {
        let on_disk = |source| Error::Disk { path: folder.to_owned(), source };
        disk.create_dir_all(folder).map_err(on_disk)?;
        let lock = disk.lock(folder).map_err(on_disk)?;
        let (segments, recovery) = recover::segments(&*disk, folder, options, replay)?;
        if let Some(last) = segments.last() {
            // What a process left with the operating system is synced before anything is built on it.
            last.sync().map_err(|source| Error::Disk { path: last.path().to_owned(), source })?;
        }
        let next_sequence = segments.last().map_or(1, |last| last.first_sequence() + last.records());
        let id = segments.first().map_or_else(|| new_id(folder), |first| first.log_id());
        let shared = Reader(Arc::new(RwLock::new(segments.into_iter().map(Arc::new).collect())));
        let log = Self {
            disk,
            folder: folder.to_owned(),
            options,
            shared,
            buffer: Vec::new(),
            pending: Vec::new(),
            next_sequence,
            synced_through: next_sequence,
            unsynced: false,
            poisoned: None,
            id,
            _lock: lock,
        };
        Ok((log, recovery))
    }

    /// Takes a record into the buffer and answers with its sequence. It is in no way durable before [`Log::commit`].
    ///
    /// # Errors
    /// [`Error::Large`], [`Error::Poisoned`].
    pub fn append(&mut self, record: &[&[u8]]) -> Result<u64, Error> {
        self.alive()?;
        let bytes: usize = record.iter().map(|part| part.len()).sum();
        if bytes > self.options.record_bytes_max {
            return Err(Error::Large { bytes, bytes_max: self.options.record_bytes_max });
        }
        let sequence = self.next_sequence + self.pending.len() as u64;
        self.pending.push(self.buffer.len());
        frame::write(&mut self.buffer, self.id, sequence, self.synced_through, record);
        Ok(sequence)
    }

    /// Makes everything that was appended readable, and durable to `level`. With nothing appended it syncs what an earlier
    /// commit at [`Level::Os`] left.
    ///
    /// # Errors
    /// [`Error::Disk`] with `StorageFull` when there is no room: what was appended is dropped, the log is as before and works on when room comes.
    /// Any other error of a write or a sync poisons the log.
    pub fn commit(&mut self, level: Level) -> Result<(), Error> {
        self.alive()?;
        if !self.pending.is_empty() {
            if let Err(error) = self.make_room() {
                self.buffer.clear();
                self.pending.clear();
                return Err(error);
            }
            self.write()?;
        }
        if level == Level::Sync && self.unsynced {
            self.sync()?;
        }
        Ok(())
    }

    /// A reader of this log.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.shared.clone()
    }

    /// The sequence of the next record.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence + self.pending.len() as u64
    }

    /// The segments, oldest first; the last one is being written.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.segments().iter().map(|segment| segment.info()).collect()
    }

    /// Removes the segments of which every record stands before `sequence`; never the last one. Answers how many.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn trim(&mut self, sequence: u64) -> Result<usize, Error> {
        let mut trimmed = 0;
        loop {
            let first = {
                let segments = self.shared.segments();
                match &segments[..] {
                    [first, second, ..] if second.first_sequence() <= sequence => first.clone(),
                    _ => break,
                }
            };
            let path = first.path().to_owned();
            self.disk.remove(&path).map_err(|source| Error::Disk { path, source })?;
            self.shared.segments_mut().remove(0);
            trimmed += 1;
        }
        if trimmed > 0 {
            self.sync_folder()?;
        }
        Ok(trimmed)
    }

    fn alive(&self) -> Result<(), Error> {
        match &self.poisoned {
            None => Ok(()),
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
        }
    }

    /// Begins a new segment when what is pending does not fit into the last one.
    fn make_room(&mut self) -> Result<(), Error> {
        let pending = self.buffer.len() as u64;
        let last = self.shared.segments().last().cloned();
        if let Some(last) = last {
            if last.end() + pending <= self.options.segment_bytes || last.records() == 0 {
                return Ok(());
            }
            // The old segment is cut to its records and synced before a new one is there: so only the last one may have a torn tail.
            if self.unsynced {
                self.sync()?;
            }
            last.close().map_err(|source| self.failed(last.path(), source))?;
        }
        let bytes = self.options.segment_bytes.max(pending + frame::SEGMENT_HEADER_BYTES as u64);
        let segment = Segment::create(&*self.disk, &self.folder, self.id, self.next_sequence, bytes)?;
        self.sync_folder()?;
        self.shared.segments_mut().push(Arc::new(segment));
        Ok(())
    }

    fn write(&mut self) -> Result<(), Error> {
        let last = self.shared.segments().last().cloned();
        let Some(last) = last else { return Ok(()) };
        if let Err(source) = last.write(&self.buffer, &self.pending) {
            return Err(self.failed(last.path(), source));
        }
        self.next_sequence += self.pending.len() as u64;
        self.buffer.clear();
        self.pending.clear();
        self.unsynced = true;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        let last = self.shared.segments().last().cloned();
        let Some(last) = last else { return Ok(()) };
        if let Err(source) = last.sync() {
            return Err(self.failed(last.path(), source));
        }
        self.synced_through = self.next_sequence;
        self.unsynced = false;
        Ok(())
    }

    fn sync_folder(&mut self) -> Result<(), Error> {
        let synced = self.disk.sync_dir(&self.folder);
        let folder = self.folder.clone();
        synced.map_err(|source| self.failed(&folder, source))
    }

    /// After a failed write or sync nobody knows what is on the disk.
    fn failed(&mut self, path: &Path, source: io::Error) -> Error {
        self.poisoned = Some(format!("{}: {source}", path.display()));
        Error::Disk { path: path.to_owned(), source }
    }
}

impl Reader {
    /// The record with this sequence.
    ///
    /// # Errors
    /// [`Error::Absent`]; [`Error::Damaged`] when its bytes are not what was written.
    pub fn read(&self, sequence: u64) -> Result<Bytes, Error> {
        let segment = {
            let segments = self.segments();
            let after = segments.partition_point(|segment| segment.first_sequence() <= sequence);
            after.checked_sub(1).map(|index| segments[index].clone())
        };
        match segment.map(|segment| segment.read(sequence)) {
            Some(Ok(Some(record))) => Ok(record),
            Some(Err(error)) => Err(error),
            Some(Ok(None)) | None => Err(self.absent(sequence)),
        }
    }

    /// The first record's sequence; the next one's where there is none.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.segments().first().map_or(1, |first| first.first_sequence())
    }

    fn absent(&self, sequence: u64) -> Error {
        let segments = self.segments();
        let first = segments.first().map_or(1, |first| first.first_sequence());
        let next = segments.last().map_or(1, |last| last.first_sequence() + last.records());
        Error::Absent { sequence, first, next }
    }

    fn segments(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Segment>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn segments_mut(&self) -> std::sync::RwLockWriteGuard<'_, Vec<Arc<Segment>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells this log's frames from those of another one whose file was put here by mistake. It need not be random, only different
/// for different folders.
fn new_id(folder: &Path) -> u64 {
    let crc = crc32c::crc32c(folder.as_os_str().as_encoded_bytes());
    u64::from(crc) << 32 | u64::from(!crc)
}
