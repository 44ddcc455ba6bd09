//! Files with room for the next segments, made ahead: so that beginning one neither waits for room nor is refused it, and so that its zeros
//! ([`Filler`]) are written beside the commits and not by them. The reserve is such files too: what is made of them by a rename is
//! there whatever else fills the disk meanwhile.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frame::{SEGMENT_HEADER_BYTES, SegmentHead};
use super::{Error, Options};
use crate::disk::{Disk, DiskFile, OpenMode};

/// What their names begin with. An earlier version kept one, which was named so.
const FILE: &str = "spare";

/// How often a full disk is asked again: once in so many refusals, since asking fills it and empties it.
const REFUSALS_PER_ATTEMPT: u32 = 16;

/// How many zeros one call of [`Filler::fill`] writes; a taker of a spare waits for no more than that.
const FILL_BYTES: u64 = 512 << 10;

/// Where the disk has no room for a whole segment, smaller ones are made, down to this part of one,
const SMALLEST_PART: u64 = 16;
/// and none smaller than this, in bytes.
const SMALLEST_BYTES: u64 = 64 << 10;

/// The reserve is at least so many files: what was written to one of them goes when the next one is begun.
const RESERVE_FILES: u64 = 8;

/// The spares, and how it stands with getting more.
#[derive(Debug)]
pub struct Spares {
    folder: PathBuf,
    held: Arc<Held>,
    /// The sizes of all, ascending: what the writer asks at each commit, without the lock.
    sizes: Vec<u64>,
    /// Their sum.
    bytes: u64,
    /// The next one's number.
    number: u64,
    refusals: u32,
    /// Whether the logs have said last that there is no room.
    is_said_full: bool,
}

/// The spares as the writer and the filler share them.
#[derive(Debug, Default)]
struct Held {
    // The writer takes a file away under the same lock under which zeros are written, so that none comes after a record.
    ready: Mutex<Vec<Ready>>,
    wants_zeros: AtomicBool,
}

/// A file with room for a segment.
#[derive(Debug)]
pub struct Ready {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    /// How much room it has.
    pub bytes: u64,
    /// Up to where zeros are on the disk.
    pub zeroed: u64,
    /// Up to where they are to be written ahead.
    fill: u64,
}

/// Writes zeros over the largest spare, from any thread and step by step.
#[derive(Debug)]
pub struct Filler {
    held: Arc<Held>,
    zeros: Vec<u8>,
}

impl Spares {
    /// Those that an earlier process left. What is in them is zeros, but for the head, which is written whole when one is taken.
    pub fn found(disk: &dyn Disk, folder: &Path) -> Result<Self, Error> {
        let mut spares = Self {
            folder: folder.to_owned(),
            held: Arc::default(),
            sizes: Vec::new(),
            bytes: 0,
            number: 0,
            refusals: 0,
            is_said_full: false,
        };
        for name in disk.list(folder).map_err(Error::disk(folder))? {
            let Some(number) = name.strip_prefix(FILE) else { continue };
            let number: u64 = number.strip_prefix('-').and_then(|number| number.parse().ok()).unwrap_or(0);
            spares.number = spares.number.max(number + 1);
            let path = folder.join(name);
            spares.keep(disk, &path).map_err(Error::disk(&path))?;
        }
        Ok(spares)
    }

    fn keep(&mut self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        let file = disk.open(path, OpenMode::Write)?;
        let bytes = file.len()?;
        if bytes <= SEGMENT_HEADER_BYTES as u64 {
            return disk.remove(path);
        }
        // What is in the page cache of it may not be on the disk, so it is not taken for filled.
        self.add(Ready { path: path.to_owned(), file, bytes, zeroed: 0, fill: 0 });
        Ok(())
    }

    /// How many bytes they have together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether one of at least `bytes` can be taken such that the others still have `reserve_bytes` together.
    pub fn has(&self, bytes: u64, reserve_bytes: u64) -> bool {
        self.pick(bytes, reserve_bytes).is_some()
    }

    /// The size of the largest one that leaves the reserve.
    fn pick(&self, bytes: u64, reserve_bytes: u64) -> Option<u64> {
        let fits = |size: &&u64| **size >= bytes && self.bytes - **size >= reserve_bytes;
        self.sizes.iter().rev().find(fits).copied()
    }

    /// What fills them, now and those after them.
    pub fn filler(&self) -> Filler {
        Filler { held: self.held.clone(), zeros: Vec::new() }
    }

    /// Whether there is one that is not filled yet.
    pub fn wants_zeros(&self) -> bool {
        self.held.wants_zeros.load(Ordering::Relaxed)
    }

    /// Tries to have one of at least `bytes` beside a reserve of `reserve_bytes`; after a refusal not at every call. True: there is one.
    pub fn prepare(&mut self, disk: &dyn Disk, options: Options, bytes: u64, reserve_bytes: u64) -> bool {
        if self.has(bytes, reserve_bytes) {
            return true;
        }
        let attempt = self.refusals.is_multiple_of(REFUSALS_PER_ATTEMPT);
        self.refusals = self.refusals.wrapping_add(1);
        if !attempt {
            return false;
        }
        let made = self.fill_reserve(disk, options, reserve_bytes).and_then(|()| self.make(disk, options, bytes));
        let folder = self.folder.display();
        match (&made, self.is_said_full) {
            (Err(error), false) => tracing::warn!(%folder, %error, "no room on the disk for the log's next segment"),
            (Ok(()), true) => tracing::info!(%folder, "there is room on the disk for the log again"),
            _ => {}
        }
        self.is_said_full = made.is_err();
        if made.is_ok() {
            self.refusals = 0;
        }
        self.has(bytes, reserve_bytes)
    }

    /// Makes as much of the reserve as the disk has room for.
    pub fn fill_reserve(&mut self, disk: &dyn Disk, options: Options, reserve_bytes: u64) -> io::Result<()> {
        let piece = (reserve_bytes / RESERVE_FILES).clamp(smallest(options), options.segment_bytes);
        while self.bytes < reserve_bytes {
            self.make_one(disk, piece)?;
        }
        Ok(())
    }

    /// Room has been given back: the next call of [`Spares::prepare`] asks the disk.
    pub fn ask_again(&mut self) {
        self.refusals = 0;
    }

    /// Makes one for a segment, or, where the disk has no room for a whole one, for a smaller one of at least `bytes`.
    pub fn make(&mut self, disk: &dyn Disk, options: Options, bytes: u64) -> io::Result<()> {
        let least = bytes.max(smallest(options));
        let mut size = options.segment_bytes.max(bytes);
        loop {
            match self.make_one(disk, size) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull && size > least => {
                    size = (size / 2).max(least)
                }
                other => return other,
            }
        }
    }

    fn make_one(&mut self, disk: &dyn Disk, bytes: u64) -> io::Result<()> {
        let path = self.folder.join(format!("{FILE}-{:06}", self.number));
        self.number += 1;
        let file = disk.open(&path, OpenMode::Create)?;
        // Synced, so that it is there after a crash: the disk may be full by then.
        match file.allocate(bytes).and_then(|()| file.sync_data()) {
            Ok(()) => self.add(Ready { path, file, bytes, zeroed: 0, fill: bytes }),
            Err(error) => {
                drop(file);
                // What it took of the disk is given back: acknowledgements may need it.
                disk.remove(&path)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Adds one; also one that was taken and not begun.
    pub fn add(&mut self, ready: Ready) {
        let at = self.sizes.partition_point(|size| *size < ready.bytes);
        self.sizes.insert(at, ready.bytes);
        self.bytes += ready.bytes;
        let mut held = self.held.lock();
        held.push(ready);
        self.held.note(&held);
    }

    /// Takes one of at least `bytes` away: the largest one that leaves `reserve_bytes` to the others; where there is none and
    /// `may_use_reserve`, the smallest one.
    pub fn take(&mut self, bytes: u64, reserve_bytes: u64, may_use_reserve: bool) -> Option<Ready> {
        let of_reserve = || self.sizes.iter().find(|size| **size >= bytes).copied().filter(|_| may_use_reserve);
        let size = self.pick(bytes, reserve_bytes).or_else(of_reserve)?;
        let mut held = self.held.lock();
        // Of those of one size the one that was filled furthest.
        let candidates = held.iter().enumerate().filter(|(_, ready)| ready.bytes == size);
        let (index, _) = candidates.max_by_key(|(_, ready)| ready.zeroed)?;
        let ready = held.swap_remove(index);
        self.held.note(&held);
        drop(held);
        self.sizes.remove(self.sizes.partition_point(|other| *other < size));
        self.bytes -= size;
        Some(ready)
    }
}

/// The smallest file that is made for a segment.
fn smallest(options: Options) -> u64 {
    (options.segment_bytes / SMALLEST_PART).max(SMALLEST_BYTES).min(options.segment_bytes)
}

impl Ready {
    /// Makes it the segment `path`, durably, and answers with its file.
    pub fn begin(self, disk: &dyn Disk, path: &Path, head: &SegmentHead) -> io::Result<Box<dyn DiskFile>> {
        self.file.write_at(&head.write(), 0)?;
        // The head is durable before the name is: a segment that is there has a head.
        self.file.sync_data()?;
        disk.rename(&self.path, path)?;
        if let Some(folder) = path.parent() {
            disk.sync_dir(folder)?;
        }
        Ok(self.file)
    }
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, Vec<Ready>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes whether the filler has something to do.
    fn note(&self, ready: &[Ready]) {
        let wants_zeros = largest(ready).is_some_and(|index| ready[index].zeroed < ready[index].fill);
        self.wants_zeros.store(wants_zeros, Ordering::Relaxed);
    }
}

/// The spare that is filled: that which messages are written to next, as far as can be told.
fn largest(ready: &[Ready]) -> Option<usize> {
    ready.iter().enumerate().max_by_key(|(_, ready)| (ready.bytes, ready.zeroed)).map(|(index, _)| index)
}

impl Filler {
    /// Writes and syncs some zeros, where there is a spare that wants them.
    pub fn fill(&mut self) {
        let mut held = self.held.lock();
        let Some(index) = largest(&held) else { return };
        let ready = &mut held[index];
        let step = FILL_BYTES.min(ready.fill.saturating_sub(ready.zeroed));
        if step == 0 {
            return;
        }
        self.zeros.resize(usize::try_from(step).unwrap_or(0), 0);
        match ready.file.write_at(&self.zeros, ready.zeroed).and_then(|()| ready.file.sync_data()) {
            Ok(()) => ready.zeroed += step,
            Err(error) => {
                // The room is there all the same. What the disk holds of the zeros nobody knows, so the writer writes them again.
                tracing::warn!(%error, "the log's next segment could not be filled ahead");
                (ready.zeroed, ready.fill) = (0, 0);
            }
        }
        self.held.note(&held);
    }
}
