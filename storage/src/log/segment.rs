//! One file of the log and where its records stand in it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;

use super::frame::{self, FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use super::{Error, SegmentInfo};
use crate::disk::{Disk, DiskFile, OpenMode, read_exact_at};

/// What a segment's file is called, so that names sort as sequences do.
pub fn file_name(first_sequence: u64) -> String {
    format!("{first_sequence:020}.log")
}

/// The first sequence in a segment's name; `None`: it is no segment.
pub fn sequence_of(file_name: &str) -> Option<u64> {
    file_name.strip_suffix(".log")?.parse().ok()
}

/// A segment.
#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    log_id: u64,
    first_sequence: u64,
    // Where each record's frame begins, and behind them where the next one will. A lock, since the writer adds while others read.
    offsets: RwLock<Vec<u32>>,
}

impl Segment {
    /// Makes a segment, with room for `bytes`.
    pub fn create(disk: &dyn Disk, folder: &Path, log_id: u64, first_sequence: u64, bytes: u64) -> Result<Self, Error> {
        let path = folder.join(file_name(first_sequence));
        let on_disk = |source| Error::Disk { path: path.clone(), source };
        let file = match disk.open(&path, OpenMode::Create) {
            // An earlier attempt found no room and left an empty one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.open(&path, OpenMode::Write),
            other => other,
        }
        .map_err(on_disk)?;
        file.allocate(bytes).map_err(on_disk)?;
        file.write_at(&frame::segment_header(log_id, first_sequence), 0).map_err(on_disk)?;
        file.sync_data().map_err(on_disk)?;
        let offsets = RwLock::new(vec![SEGMENT_HEADER_BYTES as u32]);
        Ok(Self { path, file, log_id, first_sequence, offsets })
    }

    /// A segment that was found on the disk, with what `recover` learned of it.
    pub fn found(path: PathBuf, file: Box<dyn DiskFile>, log_id: u64, first_sequence: u64, offsets: Vec<u32>) -> Self {
        Self { path, file, log_id, first_sequence, offsets: RwLock::new(offsets) }
    }

    /// Writes frames; `starts` says where in `frames` each begins.
    pub fn write(&self, frames: &[u8], starts: &[usize]) -> io::Result<()> {
        let end = self.end();
        self.file.write_at(frames, end)?;
        let at = |offset: u64| u32::try_from(offset).map_err(io::Error::other);
        let mut offsets = self.offsets.write().unwrap_or_else(PoisonError::into_inner);
        for start in starts.iter().skip(1) {
            offsets.push(at(end + *start as u64)?);
        }
        offsets.push(at(end + frames.len() as u64)?);
        Ok(())
    }

    /// Makes what was written durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Gives back the room that was not used, durably.
    pub fn close(&self) -> io::Result<()> {
        self.file.set_len(self.end())?;
        self.file.sync_data()
    }

    /// The record with this sequence; `None` when it is not here.
    pub fn read(&self, sequence: u64) -> Result<Option<Bytes>, Error> {
        let Some((start, end)) = self.place(sequence) else { return Ok(None) };
        let mut bytes = vec![0; (end - start) as usize];
        read_exact_at(&*self.file, &mut bytes, u64::from(start))
            .map_err(|source| Error::Disk { path: self.path.clone(), source })?;
        match frame::read(&bytes, self.log_id) {
            Some(frame) if frame.sequence == sequence => Ok(Some(Bytes::from(bytes).slice(FRAME_HEADER_BYTES..))),
            _ => Err(Error::Damaged {
                path: self.path.clone(),
                offset: u64::from(start),
                sequence,
                what: "its bytes have changed since it was written".to_owned(),
            }),
        }
    }

    fn place(&self, sequence: u64) -> Option<(u32, u32)> {
        let index = usize::try_from(sequence.checked_sub(self.first_sequence)?).ok()?;
        let offsets = self.offsets.read().unwrap_or_else(PoisonError::into_inner);
        Some((*offsets.get(index)?, *offsets.get(index + 1)?))
    }

    /// Where the next frame goes.
    pub fn end(&self) -> u64 {
        let offsets = self.offsets.read().unwrap_or_else(PoisonError::into_inner);
        u64::from(offsets.last().copied().unwrap_or(SEGMENT_HEADER_BYTES as u32))
    }

    /// How many records it has.
    pub fn records(&self) -> u64 {
        self.offsets.read().unwrap_or_else(PoisonError::into_inner).len() as u64 - 1
    }

    /// Its first record's sequence.
    pub fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    /// The log it belongs to.
    pub fn log_id(&self) -> u64 {
        self.log_id
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For deciding what may go.
    pub fn info(&self) -> SegmentInfo {
        SegmentInfo { first_sequence: self.first_sequence, records: self.records(), bytes: self.end() }
    }
}
