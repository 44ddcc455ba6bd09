//! The segment after the last one, made ahead: so that beginning it neither waits for room nor is refused it, and so that its zeros
//! ([`Filler`]) are written beside the commits and not by them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Error, frame};
use crate::disk::{Disk, DiskFile, OpenMode};

const FILE: &str = "spare";

/// How often a full disk is asked again: once in so many refusals, since asking fills it and empties it.
const REFUSALS_PER_ATTEMPT: u32 = 16;

/// How many zeros one call of [`Filler::fill`] writes; a taker of the spare waits for no more than that.
const FILL_BYTES: u64 = 512 << 10;

/// A file with room for a segment, and how it stands with getting one.
#[derive(Debug)]
pub struct Spare {
    path: PathBuf,
    /// Whether there is one: what the writer asks at each commit, without the lock.
    is_ready: bool,
    held: Arc<Held>,
    refusals: u32,
}

/// The spare as the writer and the filler share it.
#[derive(Debug, Default)]
struct Held {
    // The writer takes the file away under the same lock under which zeros are written, so that none comes after a record.
    ready: Mutex<Option<Ready>>,
    wants_zeros: AtomicBool,
}

#[derive(Debug)]
struct Ready {
    file: Box<dyn DiskFile>,
    bytes: u64,
    /// Up to where zeros are on the disk.
    zeroed: u64,
}

/// Writes zeros over the spare, from any thread and step by step.
#[derive(Debug)]
pub struct Filler {
    held: Arc<Held>,
    zeros: Vec<u8>,
}

impl Spare {
    /// None yet; what an earlier process left is removed, since nobody knows what is in it.
    pub fn none(disk: &dyn Disk, folder: &Path) -> Result<Self, Error> {
        let spare = Self { path: folder.join(FILE), is_ready: false, held: Arc::default(), refusals: 0 };
        spare.remove(disk).map_err(Error::disk(&spare.path))?;
        Ok(spare)
    }

    /// Whether there is one.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// What fills it, now and those after it.
    pub fn filler(&self) -> Filler {
        Filler { held: self.held.clone(), zeros: Vec::new() }
    }

    /// Whether there is one that is not filled yet.
    pub fn wants_zeros(&self) -> bool {
        self.held.wants_zeros.load(Ordering::Relaxed)
    }

    /// Tries to have one; after a refusal not at every call. True: there is one.
    pub fn prepare(&mut self, disk: &dyn Disk, bytes: u64) -> bool {
        if self.is_ready {
            return true;
        }
        let attempt = self.refusals.is_multiple_of(REFUSALS_PER_ATTEMPT);
        self.refusals = self.refusals.wrapping_add(1);
        if !attempt {
            return false;
        }
        match self.make(disk, bytes) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "no room for the log's next segment");
                false
            }
        }
    }

    /// Room has been given back: the next call of [`Spare::prepare`] asks the disk.
    pub fn ask_again(&mut self) {
        self.refusals = 0;
    }

    fn make(&mut self, disk: &dyn Disk, bytes: u64) -> io::Result<()> {
        self.remove(disk)?;
        let file = disk.open(&self.path, OpenMode::Create)?;
        if let Err(error) = file.allocate(bytes) {
            drop(file);
            // What it took of the disk is given back: acknowledgements may need it.
            self.remove(disk)?;
            return Err(error);
        }
        *self.held.lock() = Some(Ready { file, bytes, zeroed: 0 });
        self.held.wants_zeros.store(true, Ordering::Relaxed);
        self.is_ready = true;
        self.refusals = 0;
        Ok(())
    }

    fn remove(&self, disk: &dyn Disk) -> io::Result<()> {
        match disk.remove(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes the spare the segment `path` with room for at least `bytes`, durably. Answers with its file, and up to where zeros are
    /// written in it.
    ///
    /// # Errors
    /// `StorageFull`: there is none and no room for one, and nothing has changed.
    pub fn take(
        &mut self,
        disk: &dyn Disk,
        path: &Path,
        header: &[u8; frame::SEGMENT_HEADER_BYTES],
        bytes: u64,
    ) -> io::Result<(Box<dyn DiskFile>, u64)> {
        if !self.is_ready {
            self.make(disk, bytes)?;
        }
        let mut held = self.held.lock();
        let Some(ready) = &*held else { return Err(io::ErrorKind::StorageFull.into()) };
        ready.file.allocate(bytes)?;
        ready.file.write_at(header, 0)?;
        // The head is durable before the name is: a segment that is there has a head.
        ready.file.sync_data()?;
        disk.rename(&self.path, path)?;
        let taken = held.take();
        drop(held);
        self.held.wants_zeros.store(false, Ordering::Relaxed);
        self.is_ready = false;
        if let Some(folder) = path.parent() {
            disk.sync_dir(folder)?;
        }
        taken.map(|taken| (taken.file, taken.zeroed)).ok_or_else(|| io::ErrorKind::StorageFull.into())
    }
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, Option<Ready>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Filler {
    /// Writes and syncs some zeros, where there is a spare that wants them.
    pub fn fill(&mut self) {
        let mut held = self.held.lock();
        let Some(ready) = &mut *held else { return };
        let step = FILL_BYTES.min(ready.bytes - ready.zeroed);
        self.zeros.resize(usize::try_from(step).unwrap_or(0), 0);
        match ready.file.write_at(&self.zeros, ready.zeroed).and_then(|()| ready.file.sync_data()) {
            Ok(()) => ready.zeroed += step,
            Err(error) => {
                // The room is there all the same. What the disk holds of the zeros nobody knows, so the writer writes them again.
                tracing::warn!(%error, "the log's next segment could not be filled ahead");
                (ready.bytes, ready.zeroed) = (0, 0);
            }
        }
        if ready.zeroed == ready.bytes {
            self.held.wants_zeros.store(false, Ordering::Relaxed);
        }
    }
}
