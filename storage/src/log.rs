//! The write-ahead log: records in one sequence, in segments, durable when [`Log::commit`] says so.
//!
//! One writer appends to a buffer and commits it with one write and one sync, however many records gathered: group commit is its
//! caller's loop. Readers read by sequence from other threads meanwhile. A torn tail, which only a crash before a commit's answer can
//! leave, is cut off at the next start and reported; damage anywhere else stops the start and names the place, since cutting there would lose
//! what was acknowledged (the fault of fjall#311 and of NATS JetStream in Jepsen's analysis of 2.12.1).
//!
//! A folder holds `manifest` (which log, where it begins), segments named by their first sequence, `spare` (room for the next
//! segment) and `lock`. It knows nothing of what records mean, and compacts nothing: [`Log::trim`] removes whole segments.

mod error;
mod frame;
mod manifest;
mod reader;
mod recover;
mod segment;
mod spare;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, Lock};
use frame::SEGMENT_HEADER_BYTES;
use manifest::Manifest;
use reader::Shared;
use segment::Segment;
use spare::Spare;

pub use error::Error;
pub use reader::Reader;
pub use recover::Recovery;
pub use spare::Filler;

/// How far ahead of the records zeros are written. A block that was only reserved is turned into a written one by its first sync, which
/// costs the file system a journal entry; so it is done for many blocks at once. docs/decisions/2026-11-24-storage.md has the figures.
const ZERO_AHEAD_BYTES: u64 = 256 << 10;

/// The largest of [`Options::segment_bytes`], [`Options::record_bytes_max`] and [`Options::batch_bytes_max`]: offsets have 32 bits.
const BYTES_MAX: u64 = 1 << 30;

/// How a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A segment's size in bytes; room for it is taken when it is made. 64 MiB.
    pub segment_bytes: u64,
    /// Largest record in bytes. 8 MiB.
    pub record_bytes_max: usize,
    /// How much may wait for a commit, in bytes; one record may be larger. 16 MiB.
    pub batch_bytes_max: usize,
    /// When the disk gives no room for another segment, so many bytes of the last one are kept for [`Log::append_from_reserve`]; at
    /// most a quarter of a segment. 4 MiB.
    pub reserve_bytes: u64,
    /// Goes into a new log's id, which tells its files from those of others. Best random; need not be.
    pub id_seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            record_bytes_max: 8 << 20,
            batch_bytes_max: 16 << 20,
            reserve_bytes: 4 << 20,
            id_seed: 0,
        }
    }
}

impl Options {
    fn check(&self) -> Result<(), Error> {
        let largest = self.segment_bytes.max(self.record_bytes_max as u64).max(self.batch_bytes_max as u64);
        if largest > BYTES_MAX {
            return Err(Error::Options("a segment, a record or a batch may be larger than 1 GiB"));
        }
        if self.segment_bytes < 2 * SEGMENT_HEADER_BYTES as u64 {
            return Err(Error::Options("segment_bytes leaves no room for records"));
        }
        Ok(())
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

/// The log's writer.
#[derive(Debug)]
pub struct Log {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    options: Options,
    manifest: Manifest,
    shared: Arc<Shared>,
    spare: Spare,
    /// The segment that is written: the last of the shared ones.
    active: Arc<Segment>,
    /// How much room it has.
    room: u64,
    /// Where its last record ends.
    end: u64,
    /// Up to where it was written, with records or zeros.
    zeroed: u64,
    /// Frames that were appended and not yet committed.
    buffer: Vec<u8>,
    /// Where in the buffer each record's frame begins.
    pending: Vec<usize>,
    next_sequence: u64,
    /// Everything before it is synced.
    synced_through: u64,
    poisoned: Option<String>,
    // Held, not read: the folder is this log's for as long as it lives.
    _lock: Box<dyn Lock>,
}

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
    /// Opens the log in `folder`, and makes one where there is none; `replay` gets every record in order, the first one as 1 unless
    /// the log was trimmed. All of it is durable when this returns.
    ///
    /// # Errors
    /// [`Error::Damaged`] when something other than a torn tail is wrong: nothing is changed then. [`Error::Disk`] when the disk says no or
    /// another process has the log. [`Error::Full`] when there is no room for a new one.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        options: Options,
        replay: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<(Self, Recovery), Error> {
        options.check()?;
        disk.create_dir_all(folder).map_err(Error::disk(folder))?;
        let lock = disk.lock(folder).map_err(Error::disk(folder))?;
        let mut spare = Spare::none(&*disk, folder)?;
        let (manifest, segments, recovery) = match recover::recover(&*disk, folder, replay)? {
            Some(found) => (found.manifest, found.segments, found.recovery),
            None => {
                let (manifest, segment) = make(&*disk, folder, options, &mut spare)?;
                (manifest, vec![segment], Recovery { segments: 1, ..Recovery::default() })
            }
        };
        let next_sequence = segments.last().map_or(1, Segment::next_sequence);
        let shared = Arc::new(Shared::new(segments, next_sequence));
        let Some(active) = shared.segments().last().cloned() else {
            return Err(Error::Options("a log has a segment"));
        };
        let (room, end) = (active.room().map_err(Error::disk(active.path()))?, active.end());
        let log = Self {
            disk,
            folder: folder.to_owned(),
            options,
            manifest,
            shared,
            spare,
            active,
            room,
            end,
            zeroed: end,
            buffer: Vec::new(),
            pending: Vec::new(),
            next_sequence,
            synced_through: next_sequence,
            poisoned: None,
            _lock: lock,
        };
        Ok((log, recovery))
    }

    /// Takes a record, given in parts, into the buffer and answers with its sequence. It is in no way durable or readable before
    /// [`Log::commit`]. The last of the room on a full disk is not for it, but for [`Log::append_from_reserve`].
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Large`], [`Error::Backlog`], [`Error::Poisoned`]; nothing has changed then.
    pub fn append(&mut self, record: &[&[u8]]) -> Result<u64, Error> {
        self.take(record, self.options.reserve_bytes.min(self.options.segment_bytes / 4))
    }

    /// As [`Log::append`], and may use the reserve: for what lets records go at last, as acknowledgements do.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_from_reserve(&mut self, record: &[&[u8]]) -> Result<u64, Error> {
        self.take(record, 0)
    }

    /// Makes everything that was appended readable, and durable to `level`, by one write and at most one sync. With nothing appended it
    /// syncs what an earlier commit at [`Level::Os`] left.
    ///
    /// # Errors
    /// [`Error::Full`] when there is no room (only a batch or record larger than a segment can get so far): what was appended is dropped, the log
    /// is as before and works on when room comes. Any error of a write or a sync is [`Error::Disk`] and poisons the log: of what was
    /// appended nobody knows what is on the disk, and it is not readable.
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
        if level == Level::Sync && self.synced_through < self.next_sequence {
            self.sync()?;
        }
        self.shared.show(self.next_sequence);
        self.prepare_spare();
        Ok(())
    }

    /// A reader of this log.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader(self.shared.clone())
    }

    /// The first record's sequence; the next one's where there is none.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.manifest.first_sequence
    }

    /// The sequence of the next record that is appended.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence + self.pending.len() as u64
    }

    /// Everything before this sequence is synced.
    #[must_use]
    pub fn synced_through(&self) -> u64 {
        self.synced_through
    }

    /// The segments, oldest first; the last one is being written.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.segments().iter().map(|segment| segment.info()).collect()
    }

    /// Writes zeros over the segment after the last one, beside the commits: to be called from another thread, a step at a time, while
    /// [`Log::wants_zeros`]. Without it they are written by the commits, which wait for them.
    #[must_use]
    pub fn filler(&self) -> Filler {
        self.spare.filler()
    }

    /// Whether [`Filler::fill`] has something to do.
    #[must_use]
    pub fn wants_zeros(&self) -> bool {
        self.spare.wants_zeros()
    }

    /// Whether the disk refuses room for the next segment: soon [`Log::append`] will be refused, if it is not yet.
    #[must_use]
    pub fn is_short_of_room(&self) -> bool {
        self.end > self.room / 2 && !self.spare.is_ready()
    }

    /// How many bytes the last segment still takes, the reserve and each record's frame included.
    #[must_use]
    pub fn room_left(&self) -> u64 {
        self.room.saturating_sub(self.end + self.buffer.len() as u64)
    }

    /// Removes the segments of which every record stands before `sequence`; never the last one. Answers how many.
    ///
    /// # Errors
    /// [`Error::Full`] when there is no room to say so: nothing has changed then. Else when the disk says no.
    pub fn trim(&mut self, sequence: u64) -> Result<usize, Error> {
        let (first_sequence, paths) = {
            let segments = self.shared.segments();
            let kept = segments.partition_point(|segment| segment.first_sequence() <= sequence).max(1) - 1;
            let paths: Vec<PathBuf> = segments[..kept].iter().map(|segment| segment.path().to_owned()).collect();
            (segments[kept].first_sequence(), paths)
        };
        if paths.is_empty() {
            return Ok(0);
        }
        // Said first: what is missing later was trimmed, and nothing else.
        let manifest = Manifest { first_sequence, ..self.manifest };
        manifest.write(&*self.disk, &self.folder).map_err(|error| self.full(error))?;
        self.manifest = manifest;
        self.shared.segments_mut().drain(..paths.len());
        for path in &paths {
            self.disk.remove(path).map_err(Error::disk(path))?;
        }
        self.disk.sync_dir(&self.folder).map_err(Error::disk(&self.folder))?;
        self.spare.ask_again();
        self.prepare_spare();
        Ok(paths.len())
    }

    fn alive(&self) -> Result<(), Error> {
        match &self.poisoned {
            None => Ok(()),
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
        }
    }

    fn take(&mut self, record: &[&[u8]], reserve_bytes: u64) -> Result<u64, Error> {
        self.alive()?;
        let bytes: usize = record.iter().map(|part| part.len()).sum();
        if bytes > self.options.record_bytes_max {
            return Err(Error::Large { bytes, bytes_max: self.options.record_bytes_max });
        }
        let batch_bytes = self.buffer.len() + frame::bytes(bytes);
        if batch_bytes > self.options.batch_bytes_max && !self.pending.is_empty() {
            return Err(Error::Backlog { bytes_max: self.options.batch_bytes_max });
        }
        let fits = self.end + batch_bytes as u64 + reserve_bytes <= self.room;
        if !fits && !self.spare.prepare(&*self.disk, self.options.segment_bytes) {
            return Err(Error::Full { folder: self.folder.clone() });
        }
        let sequence = self.next_sequence();
        self.pending.push(self.buffer.len());
        frame::write(&mut self.buffer, self.manifest.log_id, sequence, self.synced_through, record);
        Ok(sequence)
    }

    /// Begins a new segment when what is pending does not fit into the last one.
    fn make_room(&mut self) -> Result<(), Error> {
        let pending = self.buffer.len() as u64;
        if self.end + pending <= self.room {
            return Ok(());
        }
        if self.active.records() == 0 {
            return self.widen(self.end + pending);
        }
        // The old segment is synced before a new one is there: so only the last one may have a torn tail.
        if self.synced_through < self.next_sequence {
            self.sync()?;
        }
        let bytes = self.options.segment_bytes.max(pending + SEGMENT_HEADER_BYTES as u64);
        let path = self.folder.join(segment::file_name(self.next_sequence));
        let header = frame::segment_header(self.manifest.log_id, self.next_sequence);
        let (file, zeroed) = match self.spare.take(&*self.disk, &path, &header, bytes) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                return Err(Error::Full { folder: self.folder.clone() });
            }
            Err(error) => return Err(self.failed(&path, error)),
            Ok(taken) => taken,
        };
        let before = std::mem::replace(
            &mut self.active,
            Arc::new(Segment::new(path, file, self.manifest.log_id, self.next_sequence)),
        );
        before.close().map_err(|source| self.failed(before.path(), source))?;
        self.shared.segments_mut().push(self.active.clone());
        (self.room, self.end) = (bytes, self.active.end());
        self.zeroed = self.end.max(zeroed);
        Ok(())
    }

    /// Has the next segment's room ready before the last one is full.
    fn prepare_spare(&mut self) {
        if self.end > self.room / 2 {
            self.spare.prepare(&*self.disk, self.options.segment_bytes);
        }
    }

    /// Gives a segment without records the room that its first batch needs.
    fn widen(&mut self, bytes: u64) -> Result<(), Error> {
        self.active.allocate(bytes).map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull => Error::Full { folder: self.folder.clone() },
            _ => Error::Disk { path: self.active.path().to_owned(), source },
        })?;
        self.room = bytes;
        Ok(())
    }

    fn write(&mut self) -> Result<(), Error> {
        let used = self.buffer.len();
        let end = self.end + used as u64;
        if end > self.zeroed {
            self.zeroed = (end + ZERO_AHEAD_BYTES).min(self.room);
            self.buffer.resize(usize::try_from(self.zeroed - self.end).unwrap_or(used), 0);
        }
        let written = self.active.write(&self.buffer, &self.pending, used);
        if let Err(source) = written {
            let path = self.active.path().to_owned();
            return Err(self.failed(&path, source));
        }
        self.end = end;
        self.next_sequence += self.pending.len() as u64;
        self.buffer.clear();
        self.pending.clear();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        if let Err(source) = self.active.sync() {
            let path = self.active.path().to_owned();
            return Err(self.failed(&path, source));
        }
        self.synced_through = self.next_sequence;
        Ok(())
    }

    /// An error of a full disk as [`Error::Full`].
    fn full(&self, error: Error) -> Error {
        match error {
            Error::Disk { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Error::Full { folder: self.folder.clone() }
            }
            other => other,
        }
    }

    /// After a failed write or sync nobody knows what is on the disk.
    fn failed(&mut self, path: &Path, source: io::Error) -> Error {
        self.poisoned = Some(format!("{}: {source}", path.display()));
        Error::Disk { path: path.to_owned(), source }
    }
}

/// Makes a new log: its first segment, then its manifest, which makes it one.
fn make(disk: &dyn Disk, folder: &Path, options: Options, spare: &mut Spare) -> Result<(Manifest, Segment), Error> {
    let seed =
        crc32c::crc32c_append(crc32c::crc32c(&options.id_seed.to_le_bytes()), folder.as_os_str().as_encoded_bytes());
    let manifest = Manifest { log_id: u64::from(seed) << 32 ^ options.id_seed, first_sequence: 1 };
    let path = folder.join(segment::file_name(1));
    let header = frame::segment_header(manifest.log_id, 1);
    let (file, _) = spare.take(disk, &path, &header, options.segment_bytes).map_err(|source| match source.kind() {
        io::ErrorKind::StorageFull => Error::Full { folder: folder.to_owned() },
        _ => Error::Disk { path: path.clone(), source },
    })?;
    manifest.write(disk, folder)?;
    Ok((manifest, Segment::new(path, file, manifest.log_id, 1)))
}
