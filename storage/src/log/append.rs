//! Taking records into the buffer, and writing the buffer: where each record stands is found when it is taken, so that a commit never lacks room.

use std::io;
use std::sync::Arc;

use super::frame::{self, SEGMENT_HEADER_BYTES, SegmentHead};
use super::segment::{self, Segment};
use super::spare::Ready;
use super::{Error, Log, ZERO_AHEAD_BYTES};

impl Log {
    pub(super) fn take(&mut self, record: &[&[u8]], may_use_reserve: bool) -> Result<u64, Error> {
        self.alive()?;
        let bytes: usize = record.iter().map(|part| part.len()).sum();
        if bytes > self.options.record_bytes_max {
            return Err(Error::Large { bytes, bytes_max: self.options.record_bytes_max });
        }
        let frame_bytes = frame::bytes(bytes);
        if self.buffer.len() + frame_bytes > self.options.batch_bytes_max && !self.pending.is_empty() {
            return Err(Error::Backlog { bytes_max: self.options.batch_bytes_max });
        }
        if !may_use_reserve && self.spares.bytes() < self.reserve_bytes {
            self.prepare(0);
            if self.spares.bytes() < self.reserve_bytes {
                return Err(self.no_room());
            }
        }
        if frame_bytes as u64 > self.left {
            self.turn(frame_bytes as u64, may_use_reserve)?;
        }
        self.left -= frame_bytes as u64;
        let sequence = self.next_sequence();
        self.pending.push(self.buffer.len());
        frame::write(&mut self.buffer, self.manifest.log_id, sequence, self.synced_through, record);
        Ok(sequence)
    }

    /// Finds the file in which what is taken next stands, with room for at least `bytes` of records.
    pub(super) fn turn(&mut self, bytes: u64, may_use_reserve: bool) -> Result<(), Error> {
        if self.active.records() == 0 && self.pending.is_empty() {
            return self.widen(self.end + bytes);
        }
        let file_bytes = bytes + SEGMENT_HEADER_BYTES as u64;
        self.prepare(file_bytes);
        let ready = self.spares.take(file_bytes, self.reserve_bytes, may_use_reserve);
        let Some(ready) = ready else { return Err(self.no_room()) };
        if let Some((_, small)) = self.turns.pop_if(|(at, _)| *at == self.buffer.len()) {
            // A segment that was to be begun here and is too small.
            self.spares.add(small);
        }
        self.left = ready.bytes - SEGMENT_HEADER_BYTES as u64;
        self.turns.push((self.buffer.len(), ready));
        Ok(())
    }

    /// Has room ready for a segment with at least so many bytes, beside the reserve, where the disk gives it.
    pub(super) fn prepare(&mut self, bytes: u64) -> bool {
        self.spares.prepare(&*self.disk, self.options, bytes, self.reserve_bytes)
    }

    /// Gives a segment without records the room that its first record needs.
    fn widen(&mut self, bytes: u64) -> Result<(), Error> {
        self.active.allocate(bytes).map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull => self.no_room(),
            _ => Error::Disk { path: self.active.path().to_owned(), source },
        })?;
        (self.room, self.left) = (bytes, bytes - self.end);
        Ok(())
    }

    fn no_room(&self) -> Error {
        Error::Full { folder: self.folder.clone() }
    }

    /// Writes the buffer, and begins other segments where it says so.
    pub(super) fn write(&mut self) -> Result<(), Error> {
        let (mut buffer, mut pending) = (std::mem::take(&mut self.buffer), std::mem::take(&mut self.pending));
        let (mut from, mut first) = (0, 0);
        for (at, ready) in std::mem::take(&mut self.turns) {
            let after = pending.partition_point(|start| *start < at);
            let starts: Vec<usize> = pending[first..after].iter().map(|start| start - from).collect();
            self.write_frames(&buffer[from..at], &starts, at - from)?;
            self.begin(ready)?;
            (from, first) = (at, after);
        }
        if from > 0 {
            // What stands in front was written.
            drop((buffer.drain(..from), pending.drain(..first)));
            pending.iter_mut().for_each(|start| *start -= from);
        }
        let used = buffer.len();
        let end = self.end + used as u64;
        if end > self.zeroed {
            self.zeroed = (end + ZERO_AHEAD_BYTES).min(self.room);
            buffer.resize(usize::try_from(self.zeroed - self.end).unwrap_or(used).max(used), 0);
        }
        self.write_frames(&buffer, &pending, used)?;
        buffer.clear();
        pending.clear();
        (self.buffer, self.pending) = (buffer, pending);
        Ok(())
    }

    /// Writes frames that begin at `starts` and end at `end`, and zeros behind them, to the last segment.
    fn write_frames(&mut self, bytes: &[u8], starts: &[usize], end: usize) -> Result<(), Error> {
        if starts.is_empty() {
            return Ok(());
        }
        if let Err(source) = self.active.write(bytes, starts, end) {
            let path = self.active.path().to_owned();
            return Err(self.failed(&path, source));
        }
        self.end += end as u64;
        self.next_sequence += starts.len() as u64;
        Ok(())
    }

    /// Begins another segment.
    fn begin(&mut self, ready: Ready) -> Result<(), Error> {
        // The old segment is synced before a new one is there: so only the last one may have a torn tail.
        if !self.is_synced() {
            self.sync()?;
        }
        let path = self.folder.join(segment::file_name(self.next_sequence));
        let (room, zeroed) = (ready.bytes, ready.zeroed);
        let (log_id, first_sequence) = (self.manifest.log_id, self.next_sequence);
        let head = SegmentHead { log_id, first_sequence, made_bytes: room, seal: None };
        let file = ready.begin(&*self.disk, &path, &head).map_err(|source| self.failed(&path, source))?;
        let before = std::mem::replace(&mut self.active, Arc::new(Segment::new(path, file, head)));
        before.seal().map_err(|source| self.failed(before.path(), source))?;
        self.shared.segments_mut().push(self.active.clone());
        (self.room, self.end) = (room, self.active.end());
        self.zeroed = self.end.max(zeroed);
        Ok(())
    }
}
