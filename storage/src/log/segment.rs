//! One file of the log and where its records stand in it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;

use super::frame::{FRAME_HEADER_BYTES, Head, SEGMENT_HEADER_BYTES, Seal, SegmentHead};
use super::{Error, SegmentInfo};
use crate::disk::{DiskFile, read_exact_at};

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
    /// As it was made; not sealed.
    head: SegmentHead,
    // Where each record's frame begins, and behind them where the next one will: four bytes of memory for each record. A lock, since
    // the writer adds while others read.
    offsets: RwLock<Vec<u32>>,
}

impl Segment {
    /// An empty segment.
    pub fn new(path: PathBuf, file: Box<dyn DiskFile>, head: SegmentHead) -> Self {
        Self::found(path, file, head, vec![SEGMENT_HEADER_BYTES as u32])
    }

    /// A segment that was found on the disk, with what `recover` learned of it.
    pub fn found(path: PathBuf, file: Box<dyn DiskFile>, head: SegmentHead, offsets: Vec<u32>) -> Self {
        Self { path, file, head, offsets: RwLock::new(offsets) }
    }

    /// Writes `bytes` behind the last record: frames that begin at `starts`, and zeros behind them from `end` on.
    pub fn write(&self, bytes: &[u8], starts: &[usize], end: usize) -> io::Result<()> {
        let base = self.end();
        self.file.write_at(bytes, base)?;
        let at = |offset: usize| u32::try_from(base + offset as u64).map_err(io::Error::other);
        let mut offsets = self.offsets.write().unwrap_or_else(PoisonError::into_inner);
        for start in starts.iter().skip(1) {
            offsets.push(at(*start)?);
        }
        offsets.push(at(end)?);
        Ok(())
    }

    /// Makes what was written durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Takes room for it.
    pub fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }

    /// Says durably in its head where it ends, since another segment follows it, and gives back the room that was not used.
    pub fn seal(&self) -> io::Result<()> {
        let seal = Seal { end: self.end(), next_sequence: self.next_sequence() };
        self.file.write_at(&SegmentHead { seal: Some(seal), ..self.head }.write(), 0)?;
        // Said before it is cut: a file that is shorter than it was made is damaged otherwise.
        self.file.sync_data()?;
        self.file.set_len(seal.end)
    }

    /// The records from `sequence` on, by one read: at most `records_max`, and as many as `bytes_max` hold but at least one; none
    /// when the first is not here.
    pub fn read_run(&self, sequence: u64, records_max: usize, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        let starts = self.places(sequence, records_max, bytes_max);
        let (Some(first), Some(end)) = (starts.first().copied(), starts.last().copied()) else { return Ok(Vec::new()) };
        let mut bytes = vec![0; (end - first) as usize];
        read_exact_at(&*self.file, &mut bytes, u64::from(first)).map_err(Error::disk(&self.path))?;
        let bytes = Bytes::from(bytes);
        let mut run = Vec::with_capacity(starts.len() - 1);
        for (sequence, window) in (sequence..).zip(starts.windows(2)) {
            let frame = bytes.slice((window[0] - first) as usize..(window[1] - first) as usize);
            let head = Head::read(&frame, self.head.log_id).filter(|head| head.sequence == sequence);
            match head.and_then(|head| head.payload(&frame, self.head.log_id)).map(<[u8]>::len) {
                Some(length) => run.push((sequence, frame.slice(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + length))),
                None => return Err(self.rotten(sequence, window[0])),
            }
        }
        Ok(run)
    }

    fn rotten(&self, sequence: u64, offset: u32) -> Error {
        let what = "its bytes have changed since it was written".to_owned();
        Error::Damaged { path: self.path.clone(), offset: u64::from(offset), sequence, what }
    }

    /// Where the frames of a run begin, and where the last one ends; empty when the first is not here.
    fn places(&self, sequence: u64, records_max: usize, bytes_max: usize) -> Vec<u32> {
        let Some(index) = sequence.checked_sub(self.head.first_sequence).and_then(|index| usize::try_from(index).ok())
        else {
            return Vec::new();
        };
        let offsets = self.offsets.read().unwrap_or_else(PoisonError::into_inner);
        if index + 1 >= offsets.len() || records_max == 0 {
            return Vec::new();
        }
        let end_max = u64::from(offsets[index]) + bytes_max as u64;
        let within = offsets[index + 1..].partition_point(|end| u64::from(*end) <= end_max);
        offsets[index..].iter().take(within.clamp(1, records_max) + 1).copied().collect()
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
        self.head.first_sequence
    }

    /// The sequence after its last record's.
    pub fn next_sequence(&self) -> u64 {
        self.head.first_sequence + self.records()
    }

    /// How much room was taken for it.
    pub fn room(&self) -> io::Result<u64> {
        self.file.len()
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For deciding what may go; as if it were sealed.
    pub fn info(&self) -> SegmentInfo {
        let (records, bytes) = (self.records(), self.end());
        SegmentInfo { first_sequence: self.head.first_sequence, records, bytes, room: bytes }
    }
}
