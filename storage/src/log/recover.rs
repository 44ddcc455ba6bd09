//! Recovery: what a start finds on the disk, and whether it is what was acknowledged.
//!
//! All segments but the last were synced before the next one was begun, so whatever is wrong in them is damage, and so is a file that is
//! not there: each says whether another follows it (its seal), and the manifest which were released. In the last one the
//! records are read until one is not whole. What stands there is then one of three things:
//!
//! 1. *Damage*, when a later frame says that this record was synced before that frame was appended (`synced through`).
//! 2. *A torn tail*, when no later frame says so, and the record misses a part that was never written. Room that was taken reads as zeros,
//!    and a disk writes a sector whole or not at all, so such a part is a sector (or what the frame has of one) of zeros, or an
//!    end that is zero or behind the file's. The frames of one unsynced commit may reach the disk in any order: whole ones behind it prove nothing.
//! 3. *Damage*, when nothing is missing and yet the checksum does not fit. A turned bit in the last acknowledged record is this
//!    and not a tail to cut off. (etcd's write-ahead log tells them apart in the same way: `wal/decoder.go`, `isTornEntry`.)
//!
//! A file that is shorter than it was made has lost its end, and an end before what the manifest says was synced is none.
//!
//! What this cannot see: a disk that says "synced" and then loses whole sectors of what was committed since the manifest was written, down to
//! the end of a record: they look like room that was never written. [`Recovery::known_through`] says from where on. A torn tail is wiped, and
//! what no frame proves to be synced is written and synced again, since after a failed sync the page cache may show what the disk never got
//! (fsyncgate, PostgreSQL 2018).

use std::path::{Path, PathBuf};

use super::Error;
use super::frame::{self, ALIGNMENT, FRAME_HEADER_BYTES, Head, SEGMENT_HEADER_BYTES, Seal, SegmentHead};
use super::manifest::{self, Manifest};
use super::segment::{self, Segment};
use crate::disk::{Disk, DiskFile, OpenMode, read_exact_at};

/// What a disk writes whole or not at all, at least.
const SECTOR_BYTES: usize = 512;

/// What a start found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Good records.
    pub records: u64,
    /// Whether the log was made, since there was none and nothing said that there had been.
    pub is_new: bool,
    /// Segments.
    pub segments: usize,
    /// The end was found where zeros begin. Of everything before this record it is known that nothing is missing; that nothing was
    /// written behind the last good one is assumed.
    pub known_through: u64,
    /// Bytes of a torn tail that were cut off: written by a commit that was never answered.
    pub torn_bytes: u64,
}

/// What is on the disk.
pub struct Found {
    pub manifest: Manifest,
    pub segments: Vec<Segment>,
    pub recovery: Recovery,
}

/// Finds the segments, hands out their records and cuts off a torn tail; `None`: there is no log yet. `was_made`: it is known that a log
/// was made here once.
pub fn recover(
    disk: &dyn Disk,
    folder: &Path,
    was_made: bool,
    replay: &mut dyn FnMut(u64, &[u8]),
) -> Result<Option<Found>, Error> {
    let names = disk.list(folder).map_err(Error::disk(folder))?;
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| segment::sequence_of(name)).collect();
    let manifest = match Manifest::read(disk, folder)? {
        Some(manifest) => manifest,
        None if firsts.is_empty() && was_made => return Err(Error::Gone { folder: folder.to_owned() }),
        None if firsts.is_empty() => return Ok(None),
        None => finish_making(disk, folder, &firsts, was_made)?,
    };
    if !firsts.contains(&manifest.first_sequence) {
        let path = folder.join(segment::file_name(manifest.first_sequence));
        let what = "the file is missing".to_owned();
        return Err(Error::Damaged { path, offset: 0, sequence: manifest.first_sequence, what });
    }
    remove_released(disk, folder, &manifest, &mut firsts)?;
    let recovery = Recovery { known_through: manifest.synced_through, ..Recovery::default() };
    let mut found = Found { manifest, segments: Vec::with_capacity(firsts.len()), recovery };
    for (index, first) in firsts.iter().enumerate() {
        found.read_segment(disk, folder.join(segment::file_name(*first)), *first, index + 1 == firsts.len(), replay)?;
    }
    Ok(Some(found))
}

/// A log is made with its first segment before its manifest: a crash between leaves one without a record.
fn finish_making(disk: &dyn Disk, folder: &Path, firsts: &[u64], was_made: bool) -> Result<Manifest, Error> {
    if firsts == [1] && !was_made {
        let mut scan = Scan::open(disk, folder.join(segment::file_name(1)), 1)?;
        scan.read_head()?;
        if scan.bytes[SEGMENT_HEADER_BYTES..].iter().all(|byte| *byte == 0) {
            let manifest = Manifest::new(scan.head.log_id);
            manifest.write(disk, folder)?;
            return Ok(manifest);
        }
    }
    let what = "the file is missing, and there are segments".to_owned();
    Err(Error::Damaged { path: manifest::path(folder), offset: 0, sequence: 0, what })
}

/// Removes what a crash in the middle of releasing left.
fn remove_released(disk: &dyn Disk, folder: &Path, manifest: &Manifest, firsts: &mut Vec<u64>) -> Result<(), Error> {
    let released = |first: u64| manifest.gone.iter().any(|gone| gone.contains(&first));
    let (left, kept) = firsts.iter().partition(|first| **first < manifest.first_sequence || released(**first));
    let left: Vec<u64> = left;
    *firsts = kept;
    for first in left {
        let path = folder.join(segment::file_name(first));
        disk.remove(&path).map_err(Error::disk(&path))?;
    }
    Ok(())
}

impl Found {
    fn read_segment(
        &mut self,
        disk: &dyn Disk,
        path: PathBuf,
        first: u64,
        last: bool,
        replay: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<(), Error> {
        let mut scan = Scan::open(disk, path, first)?;
        if let Some(before) = self.segments.last() {
            scan.must_follow(before, &self.manifest)?;
        }
        scan.read_head()?;
        if scan.head.log_id != self.manifest.log_id {
            return Err(scan.damaged("it belongs to another log"));
        }
        scan.records(replay);
        let torn_bytes = scan.judge_tail(last)?;
        scan.judge_end(last, &self.manifest)?;
        if last {
            scan.settle(torn_bytes)?;
        }
        self.recovery.torn_bytes += torn_bytes as u64;
        self.recovery.records += scan.offsets.len() as u64 - 1;
        self.recovery.segments += 1;
        self.segments.push(Segment::found(scan.path, scan.file, scan.head, scan.offsets));
        Ok(())
    }
}

/// One segment while it is read.
struct Scan {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    bytes: Vec<u8>,
    head: SegmentHead,
    first_sequence: u64,
    offsets: Vec<u32>,
    /// Where the last good record ends.
    end: usize,
    /// Everything before it was synced, as the good records say.
    synced_through: u64,
}

impl Scan {
    fn open(disk: &dyn Disk, path: PathBuf, first_sequence: u64) -> Result<Self, Error> {
        let read = || -> std::io::Result<_> {
            let file = disk.open(&path, OpenMode::Write)?;
            let mut bytes = vec![0; usize::try_from(file.len()?).map_err(std::io::Error::other)?];
            read_exact_at(&*file, &mut bytes, 0)?;
            Ok((file, bytes))
        };
        let (file, bytes) = read().map_err(Error::disk(&path))?;
        let offsets = vec![SEGMENT_HEADER_BYTES as u32];
        let end = SEGMENT_HEADER_BYTES;
        let head = SegmentHead { log_id: 0, first_sequence, made_bytes: 0, seal: None };
        Ok(Self { path, file, bytes, head, first_sequence, offsets, end, synced_through: first_sequence })
    }

    fn must_follow(&self, before: &Segment, manifest: &Manifest) -> Result<(), Error> {
        let expected = before.next_sequence();
        if self.first_sequence == expected || manifest.is_gone(&(expected..self.first_sequence)) {
            return Ok(());
        }
        Err(Error::Damaged {
            path: before.path().to_owned(),
            offset: before.end(),
            sequence: expected,
            what: format!("it is missing, and the next segment begins with record {}", self.first_sequence),
        })
    }

    fn read_head(&mut self) -> Result<(), Error> {
        let head = self.bytes.first_chunk::<SEGMENT_HEADER_BYTES>();
        let read = head.ok_or("it is shorter than a segment's head").and_then(SegmentHead::read);
        let wrong = match read {
            Ok(head) if head.first_sequence == self.first_sequence => {
                self.head = head;
                return Ok(());
            }
            Ok(head) => format!("its head says it begins with record {}", head.first_sequence),
            Err(what) => what.to_owned(),
        };
        Err(Error::Damaged { path: self.path.clone(), offset: 0, sequence: self.first_sequence, what: wrong })
    }

    /// Whether the segment ends where it should, as far as anything says so.
    fn judge_end(&self, last: bool, manifest: &Manifest) -> Result<(), Error> {
        match self.head.seal {
            Some(seal) if (seal.end, seal.next_sequence) != (self.end as u64, self.next_sequence()) => {
                let Seal { end, next_sequence } = seal;
                let what = format!("its end is missing: its records go on to before {next_sequence}, up to byte {end}");
                return Err(self.damaged(&what));
            }
            Some(seal) if last => {
                let what = format!("the file that follows it, {}, is missing", segment::file_name(seal.next_sequence));
                return Err(self.damaged(&what));
            }
            None if (self.bytes.len() as u64) < self.head.made_bytes => {
                let (made, has) = (self.head.made_bytes, self.bytes.len());
                return Err(self.damaged(&format!("the file was cut: it was made with {made} bytes and has {has}")));
            }
            _ => {}
        }
        if last && self.next_sequence() < manifest.synced_through {
            let through = manifest.synced_through;
            let what = format!("it is missing, as are all records to before {through}, and they had been synced");
            return Err(self.damaged(&what));
        }
        Ok(())
    }

    fn records(&mut self, replay: &mut dyn FnMut(u64, &[u8])) {
        while let Some(head) = self.head() {
            let Some(record) = head.payload(&self.bytes[self.end..], self.head.log_id) else { return };
            // A file that is larger than its offsets can say was not written here.
            let Ok(end) = u32::try_from(self.end + frame::bytes(head.length)) else { return };
            replay(head.sequence, record);
            self.end = end as usize;
            self.offsets.push(end);
            self.synced_through = self.synced_through.max(head.synced_through);
        }
    }

    /// The head of the next record's frame, if it is whole.
    fn head(&self) -> Option<Head> {
        Head::read(&self.bytes[self.end..], self.head.log_id).filter(|head| head.sequence == self.next_sequence())
    }

    /// What stands behind the last good record: nothing, a torn tail (its length), or damage.
    fn judge_tail(&self, last: bool) -> Result<usize, Error> {
        let rest = &self.bytes[self.end..];
        let Some(used) = rest.iter().rposition(|byte| *byte != 0) else { return Ok(0) };
        if !last {
            return Err(self.damaged("the record is not what was written, and more segments follow"));
        }
        if let Some(later) = self.synced_witness(&rest[..=used]) {
            let what =
                format!("the record is not what was written, and record {later} was appended after it was synced");
            return Err(self.damaged(&what));
        }
        if !self.is_torn() {
            return Err(self.damaged("the record is not what was written, and no part of it was left unwritten"));
        }
        Ok(used + 1)
    }

    /// A later record that was appended when the missing one had been synced already.
    fn synced_witness(&self, rest: &[u8]) -> Option<u64> {
        let missing = self.next_sequence();
        let most = missing + (rest.len() / FRAME_HEADER_BYTES) as u64;
        (ALIGNMENT..rest.len()).step_by(ALIGNMENT).find_map(|at| {
            // The checksum is worked out only where the sequence is plausible.
            let claimed = frame::claimed_sequence(&rest[at..])?;
            if claimed <= missing || claimed > most {
                return None;
            }
            let head = Head::read(&rest[at..], self.head.log_id)?;
            (head.synced_through > missing).then_some(head.sequence)
        })
    }

    /// Whether a part of the record that should stand here was never written. Only a whole head tells how long the record is.
    fn is_torn(&self) -> bool {
        let rest = &self.bytes[self.end..];
        let head = self.head();
        let length = head.map_or(FRAME_HEADER_BYTES, |head| frame::bytes(head.length));
        // A file that was lengthened for this very commit may be as short as before.
        if length > rest.len() {
            return true;
        }
        let record = &rest[..length];
        let first_sector = (SECTOR_BYTES - self.end % SECTOR_BYTES).min(length);
        let (first, others) = record.split_at(first_sector);
        let no_end = head.is_some() && record.last() == Some(&0);
        no_end
            || std::iter::once(first).chain(others.chunks(SECTOR_BYTES)).any(|part| part.iter().all(|byte| *byte == 0))
    }

    /// Wipes a torn tail, so that nothing of it is ever read as a record, and makes durable what is not proven to be.
    fn settle(&self, torn_bytes: usize) -> Result<(), Error> {
        let proven = usize::try_from(self.synced_through - self.first_sequence).unwrap_or(usize::MAX);
        let start = self.offsets.get(proven).map_or(self.end, |offset| *offset as usize);
        if start == self.end && torn_bytes == 0 {
            return Ok(());
        }
        if torn_bytes > 0 {
            let (path, offset, sequence) = (self.path.display(), self.end, self.next_sequence());
            tracing::warn!(%path, offset, sequence, bytes = torn_bytes, "a torn tail is cut off the log: a crash cut its write short, and nobody was answered for it");
        }
        let mut bytes = self.bytes[start..self.end].to_vec();
        bytes.resize(bytes.len() + torn_bytes, 0);
        let settle = || {
            self.file.write_at(&bytes, start as u64)?;
            self.file.sync_data()
        };
        settle().map_err(Error::disk(&self.path))
    }

    fn next_sequence(&self) -> u64 {
        self.first_sequence + self.offsets.len() as u64 - 1
    }

    fn damaged(&self, what: &str) -> Error {
        Error::Damaged {
            path: self.path.clone(),
            offset: self.end as u64,
            sequence: self.next_sequence(),
            what: what.to_owned(),
        }
    }
}
