//! The segment after the last one, made ahead: so that beginning it neither waits for room nor is refused it.

use std::io;
use std::path::{Path, PathBuf};

use super::{Error, frame};
use crate::disk::{Disk, DiskFile, OpenMode};

const FILE: &str = "spare";

/// How often a full disk is asked again: once in so many refusals, since asking fills it and empties it.
const REFUSALS_PER_ATTEMPT: u32 = 16;

/// A file with room for a segment, and how it stands with getting one.
#[derive(Debug)]
pub struct Spare {
    path: PathBuf,
    ready: Option<Box<dyn DiskFile>>,
    refusals: u32,
}

impl Spare {
    /// None yet; what an earlier process left is removed, since nobody knows what is in it.
    pub fn none(disk: &dyn Disk, folder: &Path) -> Result<Self, Error> {
        let spare = Self { path: folder.join(FILE), ready: None, refusals: 0 };
        spare.remove(disk).map_err(Error::disk(&spare.path))?;
        Ok(spare)
    }

    /// Whether there is one.
    pub fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// Tries to have one; after a refusal not at every call. True: there is one.
    pub fn prepare(&mut self, disk: &dyn Disk, bytes: u64) -> bool {
        if self.ready.is_some() {
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
        self.ready = Some(file);
        self.refusals = 0;
        Ok(())
    }

    fn remove(&self, disk: &dyn Disk) -> io::Result<()> {
        match disk.remove(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes the spare the segment `path` with room for at least `bytes`, durably.
    ///
    /// # Errors
    /// `StorageFull`: there is none and no room for one, and nothing has changed.
    pub fn take(
        &mut self,
        disk: &dyn Disk,
        path: &Path,
        header: &[u8; frame::SEGMENT_HEADER_BYTES],
        bytes: u64,
    ) -> io::Result<Box<dyn DiskFile>> {
        if self.ready.is_none() {
            self.make(disk, bytes)?;
        }
        let Some(file) = &self.ready else { return Err(io::ErrorKind::StorageFull.into()) };
        file.allocate(bytes)?;
        file.write_at(header, 0)?;
        // The head is durable before the name is: a segment that is there has a head.
        file.sync_data()?;
        disk.rename(&self.path, path)?;
        let file = self.ready.take();
        if let Some(folder) = path.parent() {
            disk.sync_dir(folder)?;
        }
        file.ok_or_else(|| io::ErrorKind::StorageFull.into())
    }
}
