//! The embedded engine: the broker's own log on its own disk. It serves one machine.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use model::config::Durability;
use model::position::Position;
use runtime::lanes::{self, Place};
use storage::disk::Disk;
use storage::log::{self, Level, Log, Options};
use tokio::sync::mpsc;

use super::{Capabilities, Engine, Error, Reader, Room, Segment, Usage};

/// Largest record: the largest message that a mesh file may allow (16 MiB) and its header.
pub const RECORD_BYTES_MAX: usize = (16 << 20) + (64 << 10);

/// How much may wait for one commit. A record may be larger and is then committed alone.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// How the log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// A segment's size. 64 MiB.
    pub segment_bytes: u64,
    /// So much room is held at least for what lets messages go when the disk is full. What is live asks for more
    /// ([`Engine::keep_reserve`]). 16 MiB.
    pub reserve_bytes: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, reserve_bytes: 16 << 20 }
    }
}

/// The broker's own log.
#[derive(Debug)]
pub struct Embedded {
    log: Log,
    /// Wakes whoever fills the log's next segment, where somebody does.
    filling: Option<mpsc::Sender<()>>,
}

/// What a start has found.
#[derive(Debug)]
pub struct Opened {
    /// The engine.
    pub engine: Embedded,
    /// What the log says of its recovery.
    pub recovery: log::Recovery,
}

#[derive(Debug)]
struct LogReader(log::Reader);

impl Embedded {
    /// Opens the log in `folder`, and hands every record in it to `visit`.
    ///
    /// # Errors
    /// When the log is damaged, in use, or its disk says no.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        kept: Kept,
        visit: &mut dyn FnMut(Position, &[u8]),
    ) -> Result<Opened, Error> {
        let options = Options {
            segment_bytes: kept.segment_bytes,
            reserve_bytes: kept.reserve_bytes,
            id_seed: runtime::random::seed(),
            record_bytes_max: RECORD_BYTES_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
        };
        let mut replay = |sequence, record: &[u8]| visit(Position(sequence), record);
        let (log, recovery) = Log::open(disk, folder, options, &mut replay)?;
        Ok(Opened { engine: Self { log, filling: None }, recovery })
    }

    /// From now on the zeros of the log's next segment are written at `place`, beside the commits; else commits write them and wait.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn fill_ahead(&mut self, place: Place) -> io::Result<()> {
        let mut filler = self.log.filler();
        self.filling = Some(lanes::disk_lane("broker-fill", place, 1, 1, move |_| filler.fill())?);
        Ok(())
    }
}

impl Engine for Embedded {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "embedded",
            sync: true,
            os: true,
            atomic_batches: false,
            replicated: false,
            record_bytes_max: RECORD_BYTES_MAX,
        }
    }

    fn append(&mut self, record: &[u8], room: Room) -> Result<Position, Error> {
        let sequence = match room {
            Room::Plain => self.log.append(&[record])?,
            Room::Reserve => self.log.append_from_reserve(&[record])?,
        };
        Ok(Position(sequence))
    }

    fn commit(&mut self, durability: Durability) -> Result<(), Error> {
        if let Some(filling) = &self.filling
            && self.log.wants_zeros()
        {
            // One step for each commit and beside it. While a step is under way and another waits, there is no need for a third.
            let _ = filling.try_send(());
        }
        self.log.commit(match durability {
            Durability::Sync => Level::Sync,
            Durability::Os => Level::Os,
        })?;
        Ok(())
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(LogReader(self.log.reader()))
    }

    fn replay(&self, from: Position, visit: &mut dyn FnMut(Position, &[u8])) -> Result<(), Error> {
        let first = from.0.max(self.log.first_sequence());
        self.log.reader().replay(first, &mut |sequence, record| {
            visit(Position(sequence), record);
            true
        })?;
        Ok(())
    }

    fn release(&mut self, first: &[Position]) -> Result<(), Error> {
        let first: Vec<u64> = first.iter().map(|position| position.0).collect();
        self.log.release(&first)?;
        Ok(())
    }

    fn begin_segment(&mut self) -> Result<(), Error> {
        Ok(self.log.begin_segment()?)
    }

    fn keep_reserve(&mut self, bytes: u64) {
        self.log.keep_reserve(bytes);
    }

    fn usage(&self) -> Usage {
        let segments = self.log.segments();
        let segments: Vec<Segment> = segments
            .iter()
            .map(|segment| Segment {
                first: Position(segment.first_sequence),
                bytes: segment.bytes,
                room: segment.room,
            })
            .collect();
        let bytes = segments.iter().map(|segment| segment.bytes).sum();
        let bytes_left = self.log.is_short_of_room().then(|| self.log.room_left());
        Usage { bytes, segments, next: Position(self.log.next_sequence()), bytes_left }
    }
}

impl Reader for LogReader {
    fn read(&self, at: Position) -> Result<Bytes, Error> {
        Ok(self.0.read(at.0)?)
    }
}

impl From<log::Error> for Error {
    fn from(error: log::Error) -> Self {
        let text = error.to_string();
        match error {
            log::Error::Damaged { .. } | log::Error::Gone { .. } => Self::Damaged(text),
            log::Error::Full { .. } => Self::Full(text),
            log::Error::Backlog { .. } => Self::Backlog,
            log::Error::Absent { .. } => Self::Absent(text),
            _ => Self::Failed(text),
        }
    }
}

#[cfg(test)]
mod tests;
