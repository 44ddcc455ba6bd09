//! Reading by sequence, from any thread, while the writer goes on.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::Error;
use super::segment::Segment;

/// How much a replay reads at once.
const REPLAY_BYTES: usize = 256 << 10;

/// Reads records by sequence; cheap to clone, usable from any thread. It sees what a commit has answered for, and nothing before.
#[derive(Debug, Clone)]
pub struct Reader(pub(super) Arc<Shared>);

/// What the writer and the readers share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Oldest first. Locked only to look a segment up or to add or remove one, never while the disk is read. A segment's own lock is
    /// taken under this one at most to read, and never the other way round.
    segments: RwLock<Vec<Arc<Segment>>>,
    /// The sequence after the last one that a commit has answered for.
    visible_end: AtomicU64,
}

impl Shared {
    pub fn new(segments: Vec<Segment>, visible_end: u64) -> Self {
        let segments = RwLock::new(segments.into_iter().map(Arc::new).collect());
        Self { segments, visible_end: AtomicU64::new(visible_end) }
    }

    pub fn show(&self, before: u64) {
        self.visible_end.store(before, Ordering::Release);
    }

    pub fn segments(&self) -> RwLockReadGuard<'_, Vec<Arc<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn segments_mut(&self) -> RwLockWriteGuard<'_, Vec<Arc<Segment>>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// The record with this sequence.
    ///
    /// # Errors
    /// [`Error::Absent`]; [`Error::Damaged`] when its bytes are not what was written.
    pub fn read(&self, sequence: u64) -> Result<Bytes, Error> {
        self.read_run(sequence, 1, 0)?.pop().map(|(_, record)| record).ok_or_else(|| self.absent(sequence))
    }

    /// The records from `sequence` on, with one read of the disk: at most `records_max`, and as many as `bytes_max` hold but at least
    /// one. They may be fewer than there are; empty: `sequence` is the next one that will be committed, or a later one.
    ///
    /// # Errors
    /// As [`Reader::read`]; [`Error::Absent`] only for what was released.
    pub fn read_run(&self, sequence: u64, records_max: usize, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        let visible = usize::try_from(self.next_sequence().saturating_sub(sequence)).unwrap_or(usize::MAX);
        if visible == 0 {
            return Ok(Vec::new());
        }
        let segment = {
            let segments = self.0.segments();
            let after = segments.partition_point(|segment| segment.first_sequence() <= sequence);
            after.checked_sub(1).map(|index| segments[index].clone())
        };
        let run = segment.map(|segment| segment.read_run(sequence, records_max.min(visible), bytes_max)).transpose()?;
        run.filter(|run| !run.is_empty()).ok_or_else(|| self.absent(sequence))
    }

    /// The first of the records from `sequence` on that were not released.
    fn first_held(&self, sequence: u64) -> u64 {
        let segments = self.0.segments();
        let after = segments.partition_point(|segment| segment.first_sequence() <= sequence);
        let is_held = after.checked_sub(1).is_some_and(|index| sequence < segments[index].next_sequence());
        if is_held { sequence } else { segments.get(after).map_or(sequence, |next| next.first_sequence()) }
    }

    /// Hands out every committed record from `sequence` on, in order, until `each` says false. Those that were released are passed over.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn replay(&self, mut sequence: u64, each: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<(), Error> {
        loop {
            sequence = self.first_held(sequence);
            let run = self.read_run(sequence, usize::MAX, REPLAY_BYTES)?;
            if run.is_empty() {
                return Ok(());
            }
            for (found, record) in &run {
                if !each(*found, record) {
                    return Ok(());
                }
            }
            sequence += run.len() as u64;
        }
    }

    /// The first record's sequence; the next one's where there is none.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.0.segments().first().map_or(1, |first| first.first_sequence())
    }

    /// The sequence after the last committed record's.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.0.visible_end.load(Ordering::Acquire)
    }

    /// The files, oldest first.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.segments().iter().map(|segment| segment.path().to_owned()).collect()
    }

    fn absent(&self, sequence: u64) -> Error {
        Error::Absent { sequence, first: self.first_sequence(), next: self.next_sequence() }
    }
}
