//! The write-ahead log: records in one sequence, in segments, durable when [`Log::commit`] says so.
//!
//! One writer appends to a buffer and commits it with one write and one sync, however many records gathered: group commit is its
//! caller's loop. Readers read by sequence from other threads meanwhile. A torn tail, which only a crash before a commit's answer can
//! leave, is cut off at the next start and reported; damage anywhere else stops the start and names the place, since cutting there would lose
//! what was acknowledged (the fault of fjall#311 and of NATS JetStream in Jepsen's analysis of 2.12.1).
//!
//! A folder holds `manifest` (which log, what of it was released, how far it was synced), segments named by their first sequence, spares (room
//! for the next segments) and `lock`; beside the folder a marker says that there is a log. What is missing of all that is damage too, and never
//! a shorter log. It knows nothing of what records mean, and compacts nothing: [`Log::release`] removes whole segments.

mod append;
mod error;
mod frame;
mod manifest;
mod marker;
mod reader;
mod recover;
mod segment;
mod spare;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, Lock};
use frame::{SEGMENT_HEADER_BYTES, SegmentHead};
use manifest::Manifest;
use reader::Shared;
use segment::Segment;
use spare::{Ready, Spares};

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
    /// A segment's size in bytes; room for it is taken when it is made. Where the disk has none, smaller ones are made. 64 MiB.
    pub segment_bytes: u64,
    /// Largest record in bytes. 8 MiB.
    pub record_bytes_max: usize,
    /// How much may wait for a commit, in bytes; one record may be larger. 16 MiB.
    pub batch_bytes_max: usize,
    /// So much room is held, in files of its own, for [`Log::append_from_reserve`] on a full disk; [`Log::keep_reserve`] asks for more. 4 MiB.
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
    spares: Spares,
    /// How many bytes of the spares are held for [`Log::append_from_reserve`].
    reserve_bytes: u64,
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
    /// Where in the buffer another segment begins, and the file that it is made of: found when the record is taken, so that a commit never
    /// lacks room.
    turns: Vec<(usize, Ready)>,
    /// How much room is left behind the last frame of the buffer.
    left: u64,
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
    /// Bytes that it takes of the disk.
    pub room: u64,
}

impl Log {
    /// Opens the log in `folder`, and makes one where there is none and never was; `replay` gets every record in order, the first one as 1 unless
    /// it was released. All of it is durable when this returns.
    ///
    /// # Errors
    /// [`Error::Damaged`] when something other than a torn tail is wrong, and [`Error::Gone`] when all of it is: nothing is changed then.
    /// [`Error::Disk`] when the disk says no or another process has the log. [`Error::Full`] when there is no room for a new one.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        options: Options,
        replay: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<(Self, Recovery), Error> {
        options.check()?;
        let was_made = marker::is_there(&*disk, folder)?;
        disk.create_dir_all(folder).map_err(Error::disk(folder))?;
        let lock = disk.lock(folder).map_err(Error::disk(folder))?;
        let mut spares = Spares::found(&*disk, folder)?;
        let (manifest, segments, recovery) = match recover::recover(&*disk, folder, was_made, replay)? {
            Some(found) => (found.manifest, found.segments, found.recovery),
            None => {
                let (manifest, segment) = make(&*disk, folder, options, &mut spares)?;
                (
                    manifest,
                    vec![segment],
                    Recovery { is_new: true, segments: 1, known_through: 1, ..Recovery::default() },
                )
            }
        };
        if !was_made {
            marker::write(&*disk, folder, manifest.log_id)?;
        }
        if let Err(error) = spares.fill_reserve(&*disk, options, options.reserve_bytes) {
            tracing::warn!(folder = %folder.display(), %error, "no room for the whole of the log's reserve");
        }
        let next_sequence = segments.last().map_or(1, Segment::next_sequence);
        let shared = Arc::new(Shared::new(segments, next_sequence));
        let Some(active) = shared.segments().last().cloned() else {
            return Err(Error::Options("a log has a segment"));
        };
        let (room, end) = (active.room().map_err(Error::disk(active.path()))?, active.end());
        let mut log = Self {
            disk,
            folder: folder.to_owned(),
            options,
            manifest,
            shared,
            spares,
            reserve_bytes: options.reserve_bytes,
            active,
            room,
            end,
            zeroed: end,
            buffer: Vec::new(),
            pending: Vec::new(),
            turns: Vec::new(),
            left: room.saturating_sub(end),
            next_sequence,
            synced_through: next_sequence,
            poisoned: None,
            _lock: lock,
        };
        log.say_synced()?;
        Ok((log, recovery))
    }

    /// Takes a record, given in parts, into the buffer and answers with its sequence. It is in no way durable or readable before
    /// [`Log::commit`]. The reserve is not for it, but for [`Log::append_from_reserve`]; while it is not whole, nothing is taken here.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Large`], [`Error::Backlog`], [`Error::Poisoned`]; nothing has changed then.
    pub fn append(&mut self, record: &[&[u8]]) -> Result<u64, Error> {
        self.take(record, false)
    }

    /// As [`Log::append`], and may use the reserve: for what lets records go at last, as acknowledgements do.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_from_reserve(&mut self, record: &[&[u8]]) -> Result<u64, Error> {
        self.take(record, true)
    }

    /// Holds so many bytes, or [`Options::reserve_bytes`] if that is more, for [`Log::append_from_reserve`] from now on.
    pub fn keep_reserve(&mut self, bytes: u64) {
        self.reserve_bytes = bytes.max(self.options.reserve_bytes);
        if self.spares.bytes() < self.reserve_bytes {
            self.prepare(0);
        }
    }

    /// Lets the next record begin another segment, which may be one of the reserve: so that all before it can be released.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Poisoned`]; nothing has changed then.
    pub fn begin_segment(&mut self) -> Result<(), Error> {
        self.alive()?;
        let begun = self.turns.last().map_or(0, |(at, _)| *at);
        let is_empty = self.buffer.len() == begun && (!self.turns.is_empty() || self.active.records() == 0);
        if is_empty { Ok(()) } else { self.turn(0, true) }
    }

    /// Makes everything that was appended readable, and durable to `level`, by one write and at most one sync, and one more of each for
    /// each segment that is begun. With nothing appended it syncs what an earlier commit at [`Level::Os`] left.
    ///
    /// # Errors
    /// Any error of a write or a sync is [`Error::Disk`] and poisons the log: of what was appended nobody knows what is on the disk, and it is
    /// not readable. It is never [`Error::Full`]: what was taken has its room.
    pub fn commit(&mut self, level: Level) -> Result<(), Error> {
        self.alive()?;
        if !self.pending.is_empty() {
            self.write()?;
        }
        if level == Level::Sync && !self.is_synced() {
            self.sync()?;
        }
        self.shared.show(self.next_sequence);
        if self.end > self.room / 2 {
            // The next segment's room is to be there before the last one is full.
            self.prepare(0);
        }
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
        let mut segments: Vec<_> = self.shared.segments().iter().map(|segment| segment.info()).collect();
        if let Some(last) = segments.last_mut() {
            last.room = self.room;
        }
        segments
    }

    /// Writes zeros over the segment after the last one, beside the commits: to be called from another thread, a step at a time, while
    /// [`Log::wants_zeros`]. Without it they are written by the commits, which wait for them.
    #[must_use]
    pub fn filler(&self) -> Filler {
        self.spares.filler()
    }

    /// Whether [`Filler::fill`] has something to do.
    #[must_use]
    pub fn wants_zeros(&self) -> bool {
        self.spares.wants_zeros()
    }

    /// Whether the disk refuses room for the next segment or for the reserve: soon [`Log::append`] will be refused, if it is not yet.
    #[must_use]
    pub fn is_short_of_room(&self) -> bool {
        let is_whole = self.spares.bytes() >= self.reserve_bytes;
        !is_whole || (self.end > self.room / 2 && !self.spares.has(0, self.reserve_bytes))
    }

    /// How many bytes are left for [`Log::append_from_reserve`], each record's frame included, should the disk give no more.
    #[must_use]
    pub fn room_left(&self) -> u64 {
        self.left + self.spares.bytes()
    }

    /// Removes the segments that begin with these sequences; never the last one. Answers how many.
    ///
    /// # Errors
    /// [`Error::Full`] when there is no room to say so: nothing has changed then. Else when the disk says no.
    pub fn release(&mut self, first_sequences: &[u64]) -> Result<usize, Error> {
        let (mut kept, gone) = {
            let segments = self.shared.segments();
            let (last, others) = segments.split_last().map_or((None, &[][..]), |(last, others)| (Some(last), others));
            let is_gone = |segment: &&Arc<Segment>| first_sequences.contains(&segment.first_sequence());
            let (gone, mut kept): (Vec<_>, Vec<_>) = others.iter().partition(is_gone);
            kept.extend(last);
            (kept.into_iter().cloned().collect::<Vec<_>>(), gone.into_iter().cloned().collect::<Vec<_>>())
        };
        if gone.is_empty() {
            return Ok(0);
        }
        // Said first: what is missing later was released, and nothing else.
        self.say_kept(&kept).map_err(|error| self.full(error))?;
        std::mem::swap(&mut *self.shared.segments_mut(), &mut kept);
        for segment in &gone {
            self.disk.remove(segment.path()).map_err(Error::disk(segment.path()))?;
        }
        let released = gone.len();
        // What still holds a file open holds its room.
        drop((gone, kept));
        self.disk.sync_dir(&self.folder).map_err(Error::disk(&self.folder))?;
        self.spares.ask_again();
        self.prepare(0);
        Ok(released)
    }

    /// Writes the manifest of a log that has only these segments.
    fn say_kept(&mut self, kept: &[Arc<Segment>]) -> Result<(), Error> {
        let holes = kept.windows(2).map(|pair| pair[0].next_sequence()..pair[1].first_sequence());
        let manifest = Manifest {
            log_id: self.manifest.log_id,
            first_sequence: kept.first().map_or(self.manifest.first_sequence, |first| first.first_sequence()),
            synced_through: self.synced_through,
            gone: holes.filter(|hole| !hole.is_empty()).collect(),
        };
        manifest.write(&*self.disk, &self.folder)?;
        self.manifest = manifest;
        Ok(())
    }

    /// Notes in the manifest how far the log is synced, where there is room to say so: what is missing of that later is known to be.
    fn say_synced(&mut self) -> Result<(), Error> {
        if self.manifest.synced_through == self.synced_through {
            return Ok(());
        }
        let manifest = Manifest { synced_through: self.synced_through, ..self.manifest.clone() };
        match manifest.write(&*self.disk, &self.folder).map_err(|error| self.full(error)) {
            Ok(()) => self.manifest = manifest,
            Err(error @ Error::Full { .. }) => tracing::warn!(%error, "it is not noted how far the log is synced"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn is_synced(&self) -> bool {
        self.synced_through == self.next_sequence
    }

    fn alive(&self) -> Result<(), Error> {
        match &self.poisoned {
            None => Ok(()),
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
        }
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

impl Drop for Log {
    /// Whoever ends in order leaves no doubt about where the log ends.
    fn drop(&mut self) {
        if self.poisoned.is_some() || self.synced_through == self.manifest.synced_through && self.is_synced() {
            return;
        }
        // Also where nothing is left to sync: a machine that has stopped meanwhile must not be told anything.
        let said = self.sync().and_then(|()| self.say_synced());
        if let Err(error) = said {
            tracing::warn!(folder = %self.folder.display(), %error, "the log's end could not be noted");
        }
    }
}

/// Makes a new log: its reserve, its first segment, then its manifest, which makes it one.
fn make(disk: &dyn Disk, folder: &Path, options: Options, spares: &mut Spares) -> Result<(Manifest, Segment), Error> {
    let seed =
        crc32c::crc32c_append(crc32c::crc32c(&options.id_seed.to_le_bytes()), folder.as_os_str().as_encoded_bytes());
    let manifest = Manifest::new(u64::from(seed) << 32 ^ options.id_seed);
    let path = folder.join(segment::file_name(1));
    let refused = |source: io::Error| match source.kind() {
        io::ErrorKind::StorageFull => Error::Full { folder: folder.to_owned() },
        _ => Error::Disk { path: path.clone(), source },
    };
    // The reserve first: a segment can be smaller.
    spares.fill_reserve(disk, options, options.reserve_bytes).map_err(refused)?;
    if !spares.has(0, options.reserve_bytes) {
        spares.make(disk, options, 0).map_err(refused)?;
    }
    let ready = spares.take(0, options.reserve_bytes, true).ok_or_else(|| Error::Full { folder: folder.to_owned() })?;
    let head = SegmentHead { log_id: manifest.log_id, first_sequence: 1, made_bytes: ready.bytes, seal: None };
    let file = ready.begin(disk, &path, &head).map_err(refused)?;
    manifest.write(disk, folder)?;
    Ok((manifest, Segment::new(path, file, head)))
}
