//! Recovery: what a start finds on the disk, and whether it is what was acknowledged.

use std::path::{Path, PathBuf};

use super::frame::{self, FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use super::segment::{self, Segment};
use super::{Error, Options};
use crate::disk::{Disk, DiskFile, OpenMode, read_exact_at};

/// What a start found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Good records.
    pub records: u64,
    /// Segments.
    pub segments: usize,
    /// Bytes of a torn tail that were cut off: written by a commit that was never answered.
    pub torn_bytes: u64,
}

/// Finds the segments, hands out their records and cuts off a torn tail.
pub fn segments(
    disk: &dyn Disk,
    folder: &Path,
    options: Options,
    replay: &mut dyn FnMut(u64, &[u8]),
) -> Result<(Vec<Segment>, Recovery), Error> {
    let names = disk.list(folder).map_err(|source| Error::Disk { path: folder.to_owned(), source })?;
    let firsts: Vec<u64> = names.iter().filter_map(|name| segment::sequence_of(name)).collect();
    let mut recovery = Recovery::default();
    let mut segments: Vec<Segment> = Vec::with_capacity(firsts.len());
    for (index, first) in firsts.iter().enumerate() {
        let last = index + 1 == firsts.len();
        let mut scan = Scan::open(disk, folder.join(segment::file_name(*first)), *first)?;
        if let Some(before) = segments.last() {
            scan.must_follow(before)?;
        }
        if last && scan.was_never_begun() {
            disk.remove(&scan.path).map_err(|source| Error::Disk { path: scan.path.clone(), source })?;
            break;
        }
        scan.read_header()?;
        scan.records(options, replay)?;
        let tail = scan.tail(last)?;
        recovery.torn_bytes += tail;
        recovery.records += scan.offsets.len() as u64 - 1;
        recovery.segments += 1;
        segments.push(scan.finish(tail)?);
    }
    Ok((segments, recovery))
}

/// One segment while it is read.
struct Scan {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    bytes: Vec<u8>,
    log_id: u64,
    first_sequence: u64,
    offsets: Vec<u32>,
    end: usize,
}

impl Scan {
    fn open(disk: &dyn Disk, path: PathBuf, first_sequence: u64) -> Result<Self, Error> {
        let read = || -> std::io::Result<_> {
            let file = disk.open(&path, OpenMode::Write)?;
            let mut bytes = vec![0; usize::try_from(file.len()?).map_err(std::io::Error::other)?];
            read_exact_at(&*file, &mut bytes, 0)?;
            Ok((file, bytes))
        };
        let (file, bytes) = read().map_err(|source| Error::Disk { path: path.clone(), source })?;
        Ok(Self { path, file, bytes, log_id: 0, first_sequence, offsets: Vec::new(), end: SEGMENT_HEADER_BYTES })
    }

    fn must_follow(&self, before: &Segment) -> Result<(), Error> {
        let expected = before.first_sequence() + before.records();
        if self.first_sequence == expected {
            return Ok(());
        }
        Err(Error::Damaged {
            path: self.path.clone(),
            offset: 0,
            sequence: expected,
            what: format!("the segment begins with record {}: what stood between is missing", self.first_sequence),
        })
    }

    /// A crash between making a segment and writing its head leaves nothing but zeros; no record was ever in it.
    fn was_never_begun(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 0)
    }

    fn read_header(&mut self) -> Result<(), Error> {
        let head = self.bytes.first_chunk::<SEGMENT_HEADER_BYTES>();
        let read = head.ok_or("it is shorter than a segment's head").and_then(frame::read_segment_header);
        match read {
            Ok((log_id, first)) if first == self.first_sequence => {
                self.log_id = log_id;
                Ok(())
            }
            Ok((_, first)) => Err(self.damaged(0, format!("its head says it begins with record {first}"))),
            Err(what) => Err(self.damaged(0, what.to_owned())),
        }
    }

    fn records(&mut self, options: Options, replay: &mut dyn FnMut(u64, &[u8])) -> Result<(), Error> {
        self.offsets.push(SEGMENT_HEADER_BYTES as u32);
        while let Some(frame) = frame::read(&self.bytes[self.end..], self.log_id) {
            if frame.sequence != self.next_sequence() {
                break;
            }
            if frame.payload.len() > options.record_bytes_max {
                return Err(self.damaged(self.end, "the record is larger than this log allows".to_owned()));
            }
            replay(frame.sequence, frame.payload);
            self.end += FRAME_HEADER_BYTES + frame.payload.len();
            let end =
                u32::try_from(self.end).map_err(|_| self.damaged(self.end, "the segment is too large".to_owned()))?;
            self.offsets.push(end);
        }
        Ok(())
    }

    /// What stands behind the last good record: nothing, a torn tail (its length), or damage.
    fn tail(&self, last: bool) -> Result<u64, Error> {
        let rest = &self.bytes[self.end..];
        let Some(used) = rest.iter().rposition(|byte| *byte != 0) else { return Ok(0) };
        if !last {
            return Err(
                self.damaged(self.end, "the record is not what was written, and more segments follow".to_owned())
            );
        }
        if let Some(later) = self.synced_witness(&rest[..=used]) {
            let what =
                format!("the record is not what was written, and record {later} was written after it was synced");
            return Err(self.damaged(self.end, what));
        }
        Ok(used as u64 + 1)
    }

    /// A later record that was appended when the missing one had been synced already.
    fn synced_witness(&self, rest: &[u8]) -> Option<u64> {
        let missing = self.next_sequence();
        let most = missing + rest.len() as u64 / FRAME_HEADER_BYTES as u64;
        (1..rest.len()).find_map(|at| {
            // The checksum is worked out only where the head is plausible.
            let (length, sequence) = frame::claim(&rest[at..])?;
            if sequence <= missing || sequence > most || length > rest.len() - at {
                return None;
            }
            let frame = frame::read(&rest[at..], self.log_id)?;
            (frame.synced_through > missing).then_some(frame.sequence)
        })
    }

    /// Wipes the torn tail, so that nothing of it is ever read as a record, and hands over the segment.
    fn finish(self, torn: u64) -> Result<Segment, Error> {
        if torn > 0 {
            let wipe = || {
                self.file.write_at(&vec![0; usize::try_from(torn).unwrap_or(0)], self.end as u64)?;
                self.file.sync_data()
            };
            wipe().map_err(|source| Error::Disk { path: self.path.clone(), source })?;
        }
        Ok(Segment::found(self.path, self.file, self.log_id, self.first_sequence, self.offsets))
    }

    fn next_sequence(&self) -> u64 {
        self.first_sequence + self.offsets.len() as u64 - 1
    }

    fn damaged(&self, offset: usize, what: String) -> Error {
        let sequence = self.first_sequence + (self.offsets.len() as u64).saturating_sub(1);
        Error::Damaged { path: self.path.clone(), offset: offset as u64, sequence, what }
    }
}
