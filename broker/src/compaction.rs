//! Compaction: the log does not grow for ever. When a segment is mostly of no use any more, wherever it stands, the messages in it that still
//! are go to the log's end, a checkpoint takes the place of all records before it, and the segment goes.
//!
//! It runs on the committer's lane between two batches, does a bounded piece at a time, and a crash at any point leaves either the old segments or
//! the new records, or both, which say the same.
//!
//! On a full disk it is what makes room for acknowledgements: they stand in segments of the reserve, where no message is, so with a checkpoint
//! behind them those go. It is done only where that frees more than the checkpoint takes, so the reserve is never spent for nothing; and the
//! reserve is held large enough for that to come true before it is used up ([`reserve_bytes`]).

use std::time::Duration;

use model::config::Durability;
use model::position::Position;
use tokio::time::Instant;

use crate::books::Books;
use crate::checkpoint;
use crate::deliveries::Index;
use crate::engine::{Engine, Error, Reader, Room, Segment, Usage};
use crate::ledger::{Ledger, lock};
use crate::record::Record;

/// How many bytes of messages one compaction carries at most, since everybody waits meanwhile. What is more is carried by the next ones.
const CARRY_BYTES_MAX: u64 = 16 << 20;
/// The log grows by that many times the last checkpoint's size before the next, so that checkpoints never are most of what is written.
const GROWTH_PER_CHECKPOINT: u64 = 4;
/// How long it waits at least before it tries again while the disk gives no room, and
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// that many times as long as the last try took: everybody waits meanwhile.
const SHORT_PAUSE_PER_TRY: u32 = 20;
/// How many bytes of acknowledgements make it try sooner, since they come out of the room that it needs itself,
const SHORT_BYTES: u64 = 1 << 20;
/// and that part of a checkpoint: less than one frees nothing.
const SHORT_PART: u64 = 16;
/// The size of a checkpoint's parts in bytes: small against the smallest segment of a full disk.
const PART_BYTES: usize = 32 << 10;
/// More than what the frames of a checkpoint's parts, and the journal in front of it, take, besides
const FRAMES_BYTES: u64 = 16 << 10;
/// such a part of the checkpoint, for what is left free at the ends of segments too.
const FRAMES_PART: u64 = 16;
/// What a record's frame takes in the log besides the record.
const FRAME_BYTES: u64 = 40;
/// How many checkpoints there is room for in the reserve, besides what is held at least: one is written while the last one is still there.
const CHECKPOINTS_IN_RESERVE: u64 = 2;

/// How much room must be held for acknowledgements, so that a disk that is full can be worked off to the last message.
///
/// Acknowledgements, leases and attempts may take all but the room for one checkpoint. By then they are more than a checkpoint's size in
/// segments of their own; so writing one and letting those go gives back more than it takes, again and again.
#[must_use]
pub fn reserve_bytes(books: &Books) -> u64 {
    CHECKPOINTS_IN_RESERVE * with_frames(checkpoint::bytes_about(books))
}

fn with_frames(checkpoint_bytes: u64) -> u64 {
    checkpoint_bytes + checkpoint_bytes / FRAMES_PART + FRAMES_BYTES
}

/// Decides when, and does it.
#[derive(Debug, Default)]
pub struct Compaction {
    tried: Option<Tried>,
    /// How large the log was after the last one, and the checkpoint in it.
    bytes_after: u64,
    checkpoint_bytes: u64,
    /// A segment was carried in part: the next batch goes on.
    has_more: bool,
}

/// When it was tried last.
#[derive(Debug)]
struct Tried {
    /// The last segment: with room for more it is tried once for each.
    last: Position,
    /// How large the log was.
    bytes: u64,
    /// How large a checkpoint would have been.
    checkpoint_bytes: u64,
    /// When it was over.
    at: Instant,
    took: Duration,
}

/// What is written in front of a cut: all that the books said at a moment.
#[derive(Debug)]
struct Checkpoint {
    bytes: Vec<u8>,
    /// What they said already and the log did not. Should the checkpoint not be finished, this must be in the log in front of it.
    journal: Vec<Record>,
}

/// A message that is still of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Live {
    /// Where it stands in the log.
    at: Position,
    /// Which message it is.
    position: Position,
    /// What it takes there.
    bytes: u64,
}

/// What one compaction does.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// The segments that go, by their first record; none: what is carried is a part of one.
    released: Vec<Position>,
    /// What is carried to the log's end before.
    carried: Vec<Live>,
    /// How many bytes of the disk are free afterwards that were not, but for the checkpoint.
    freed_bytes: u64,
    /// Whether the last segment goes as well, and so another one is begun first.
    begins_segment: bool,
}

impl Compaction {
    /// Compacts when it is worth it, and answers whether it did; `usage` is what the engine holds.
    ///
    /// # Errors
    /// As the engine says; [`Error::Full`] only means "not now".
    pub fn run(&mut self, engine: &mut dyn Engine, ledger: &Ledger, usage: &Usage) -> Result<bool, Error> {
        let Some(last) = usage.segments.last().map(|segment| segment.first) else { return Ok(false) };
        if !self.is_due(last, usage) {
            return Ok(false);
        }
        self.has_more = false;
        let (start, checkpoint_bytes) = (Instant::now(), checkpoint::bytes_about(&lock(&ledger.books)));
        let done = self.compact(engine, ledger, usage);
        self.tried =
            Some(Tried { last, bytes: usage.bytes, checkpoint_bytes, at: Instant::now(), took: start.elapsed() });
        done
    }

    fn compact(&mut self, engine: &mut dyn Engine, ledger: &Ledger, usage: &Usage) -> Result<bool, Error> {
        let live = live(ledger);
        let (plan, checkpoint) = match usage.bytes_left {
            None => (choose(usage, &live, CARRY_BYTES_MAX), None),
            Some(bytes_left) => choose_short(usage, &live, bytes_left, ledger),
        };
        let Some(plan) = plan else { return Ok(false) };
        let made = match checkpoint {
            Some(checkpoint) => checkpoint,
            None => {
                carry(engine, ledger, &plan.carried)?;
                if plan.released.is_empty() {
                    self.has_more = true;
                    return Ok(true);
                }
                Checkpoint::of(ledger)
            }
        };
        self.checkpoint_bytes = made.append(engine, ledger, plan.begins_segment)?;
        engine.release(&plan.released)?;
        self.bytes_after = engine.usage().bytes;
        let (carried, released) = (plan.carried.len(), plan.released.len());
        tracing::info!(carried, released, bytes = self.bytes_after, "the log was compacted");
        Ok(true)
    }

    /// Whether it is time to try. A log that gets no more room begins no new segment, and what made it full is acknowledged at any time.
    fn is_due(&self, last: Position, usage: &Usage) -> bool {
        match (&self.tried, usage.bytes_left) {
            (None, Some(_)) => true,
            (Some(tried), Some(_)) => {
                tried.at.elapsed() >= SHORT_PAUSE.max(tried.took * SHORT_PAUSE_PER_TRY)
                    || usage.bytes.abs_diff(tried.bytes) >= SHORT_BYTES.max(tried.checkpoint_bytes / SHORT_PART)
            }
            (_, None) if self.has_more => true,
            (tried, None) => {
                let grown = usage.bytes.saturating_sub(self.bytes_after);
                usage.segments.len() > 1
                    && tried.as_ref().is_none_or(|tried| tried.last != last)
                    && grown >= self.checkpoint_bytes * GROWTH_PER_CHECKPOINT
            }
        }
    }
}

/// As [`choose`], for a log that has only `bytes_left` for what is carried and the checkpoint, and gives more room back than it takes. Where nothing is
/// carried, and so nothing moves, the checkpoint that was made for its size is the one to write.
fn choose_short(usage: &Usage, live: &[Live], bytes_left: u64, ledger: &Ledger) -> (Option<Plan>, Option<Checkpoint>) {
    // It is not made before there is a use for it.
    let about = with_frames(checkpoint::bytes_about(&lock(&ledger.books)));
    let carry_bytes_max = bytes_left.saturating_sub(CHECKPOINTS_IN_RESERVE * about).min(CARRY_BYTES_MAX);
    let Some(plan) = choose(usage, live, carry_bytes_max).filter(|plan| plan.freed_bytes > about) else {
        return (None, None);
    };
    let checkpoint = Checkpoint::of(ledger);
    let carried: u64 = plan.carried.iter().map(|live| live.bytes).sum();
    let unused = usage.segments.last().filter(|_| plan.begins_segment).map_or(0, |last| last.room - last.bytes);
    let takes = with_frames(checkpoint.bytes.len() as u64) + carried + unused;
    if takes <= bytes_left && plan.carried.is_empty() {
        return (Some(plan), Some(checkpoint));
    }
    checkpoint.put_back(ledger);
    ((takes <= bytes_left).then_some(plan), None)
}

/// Every message that is still of use, by its place in the log.
fn live(ledger: &Ledger) -> Vec<Live> {
    let books = lock(&ledger.books);
    let mut live = Vec::new();
    let mut note = |position: Position, index: &Index| {
        live.push(Live { at: index.at, position, bytes: u64::from(index.bytes) + FRAME_BYTES });
    };
    let served = books.queues.values().map(|queue| &queue.served);
    let subscriptions = books.topics.values().flat_map(|topic| topic.subscriptions.values());
    for served in served.chain(subscriptions.map(|subscription| &subscription.served)) {
        served.deliveries.messages().iter().for_each(|(position, message)| note(*position, &message.index));
        served.deliveries.dead().iter().for_each(|(position, dead)| note(*position, &dead.index));
    }
    for (position, index) in books.topics.values().flat_map(|topic| topic.events()) {
        note(*position, index);
    }
    drop(books);
    // An event that subscriptions have looked at is one message.
    live.sort_unstable();
    live.dedup_by_key(|live| live.at);
    live
}

/// The segments of which at most half is of use, those first of which the least is, as long as no more than `carry_bytes_max` is carried. Where
/// each of them has more, a part of the one that has the least. The last segment only where nothing in it is of use and room is short.
fn choose(usage: &Usage, live: &[Live], carry_bytes_max: u64) -> Option<Plan> {
    let (last, sealed) = usage.segments.split_last()?;
    let ends = usage.segments[1..].iter().map(|next| next.first);
    let mut candidates: Vec<(u64, &Segment, &[Live])> = sealed
        .iter()
        .zip(ends)
        .map(|(segment, end)| (segment, within(live, segment.first, end)))
        .map(|(segment, held)| (held.iter().map(|live| live.bytes).sum(), segment, held))
        .filter(|(used, segment, _): &(u64, _, _)| *used <= segment.bytes / 2)
        .collect();
    candidates.sort_by_key(|(used, segment, _)| (*used, segment.first));
    let (mut plan, mut carried_bytes) = (Plan::default(), 0);
    for (used, segment, held) in &candidates {
        if carried_bytes + used > carry_bytes_max {
            break;
        }
        carried_bytes += used;
        plan.released.push(segment.first);
        plan.carried.extend_from_slice(held);
        plan.freed_bytes += segment.room - used;
    }
    let is_short = usage.bytes_left.is_some();
    if is_short && last.first < usage.next && within(live, last.first, usage.next).is_empty() {
        plan.begins_segment = true;
        plan.released.push(last.first);
        plan.freed_bytes += last.room;
    }
    if let (true, false, Some((_, _, held))) = (plan.released.is_empty(), is_short, candidates.first()) {
        let mut bytes = 0;
        let part = held.iter().take_while(|live| {
            bytes += live.bytes;
            bytes - live.bytes < carry_bytes_max
        });
        plan.carried.extend(part);
    }
    (plan != Plan::default()).then_some(plan)
}

/// What stands from `first` to before `end`.
fn within(live: &[Live], first: Position, end: Position) -> &[Live] {
    let place = |position: Position| live.partition_point(|live| live.at < position);
    &live[place(first)..place(end)]
}

/// Writes messages once more and notes where they stand now.
fn carry(engine: &mut dyn Engine, ledger: &Ledger, carried: &[Live]) -> Result<(), Error> {
    if carried.is_empty() {
        return Ok(());
    }
    let reader = engine.reader();
    let mut moved = Vec::with_capacity(carried.len());
    for Live { at, position, .. } in carried {
        let (record, bytes) = again(&*reader, *at, *position)?;
        let new = append(engine, &bytes)?;
        moved.push((new, u32::try_from(bytes.len()).unwrap_or(u32::MAX), record));
    }
    // They must be readable before anybody is sent there.
    engine.commit(Durability::Os)?;
    let now = ledger.clock.now();
    let mut books = lock(&ledger.books);
    for (at, bytes, record) in moved {
        books.apply(at, bytes, &record, now);
    }
    Ok(())
}

/// The record that carries a message, and its bytes with the event.
fn again(reader: &dyn Reader, at: Position, position: Position) -> Result<(Record, Vec<u8>), Error> {
    let bytes = reader.read(at)?;
    match Record::read(&bytes) {
        Ok((Record::Published(published) | Record::Carried { published, .. }, event)) => {
            let record = Record::Carried { position, published };
            let mut written = record.write();
            written.extend_from_slice(event);
            Ok((record, written))
        }
        Ok((other, _)) => Err(Error::Failed(format!("record {at} is no message but {other:?}"))),
        Err(error) => Err(Error::Failed(format!("record {at}: {error}"))),
    }
}

impl Checkpoint {
    /// Of the books as they are now.
    fn of(ledger: &Ledger) -> Self {
        let mut books = lock(&ledger.books);
        let bytes = checkpoint::write(&books, ledger.clock.now());
        Self { bytes, journal: std::mem::take(&mut books.journal) }
    }

    /// It is not written: what was taken out of the journal goes back.
    fn put_back(self, ledger: &Ledger) {
        lock(&ledger.books).put_back(self.journal);
    }

    /// Writes it to the log, to a segment of its own where it should, and answers with its size.
    fn append(self, engine: &mut dyn Engine, ledger: &Ledger, begins_segment: bool) -> Result<u64, Error> {
        let bytes = self.bytes.len() as u64;
        let begun = if begins_segment { engine.begin_segment() } else { Ok(()) };
        let written = begun.and_then(|()| self.write(engine));
        if written.is_err() {
            // Its journal is not in the log, or not surely; saying it twice does no harm.
            self.put_back(ledger);
        }
        written.map(|()| bytes)
    }

    fn write(&self, engine: &mut dyn Engine) -> Result<(), Error> {
        for record in &self.journal {
            append(engine, &record.write())?;
        }
        let parts = self.bytes.chunks(PART_BYTES);
        let count = parts.len();
        for (number, part) in parts.enumerate() {
            let part_number = u32::try_from(number).unwrap_or(u32::MAX);
            let record = Record::Checkpoint { part: part_number, last: number + 1 == count, bytes: part.to_vec() };
            append(engine, &record.write())?;
        }
        engine.commit(Durability::Sync)
    }
}

fn append(engine: &mut dyn Engine, bytes: &[u8]) -> Result<Position, Error> {
    match engine.append(bytes, Room::Reserve) {
        Err(Error::Backlog) => {
            engine.commit(Durability::Os)?;
            engine.append(bytes, Room::Reserve)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
