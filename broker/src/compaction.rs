//! Compaction: the log does not grow for ever. When its oldest segments are mostly of no use any more, the messages in them that still
//! are go to its end, a checkpoint takes the place of all records before it, and the segments go.
//!
//! It runs on the committer's lane between two batches, does a bounded piece at a time, and a crash at any point leaves either the old segments or
//! the new records, or both, which say the same.

use std::collections::BTreeMap;
use std::time::Duration;

use model::config::Durability;
use model::position::Position;
use tokio::time::Instant;

use crate::checkpoint;
use crate::engine::{Engine, Error, Reader, Room, Usage};
use crate::ledger::{Ledger, lock};
use crate::record::Record;

/// How many bytes of messages one compaction carries at most, since everybody waits meanwhile.
const CARRY_BYTES_MAX: u64 = 16 << 20;
/// The log grows by that many times the last checkpoint's size before the next, so that checkpoints never are most of what is written.
const GROWTH_PER_CHECKPOINT: u64 = 4;
/// How long it waits before it tries again while the disk gives no room, and
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// how many bytes of acknowledgements make it try sooner: they come out of the room that it needs itself.
const SHORT_BYTES: u64 = 1 << 20;
/// The size of a checkpoint's parts in bytes.
const PART_BYTES: usize = 1 << 20;
/// More than what the frames of a checkpoint's parts, and the journal in front of it, take.
const FRAMES_BYTES: u64 = 16 << 10;

/// Decides when, and does it.
#[derive(Debug, Default)]
pub struct Compaction {
    tried: Option<Tried>,
    /// How large the log was after the last one, and the checkpoint in it.
    bytes_after: u64,
    checkpoint_bytes: u64,
}

/// When it was tried last.
#[derive(Debug)]
struct Tried {
    /// The last segment: with room for more it is tried once for each.
    last: Position,
    /// How large the log was.
    bytes: u64,
    at: Instant,
}

/// What is written in front of a cut: all that the books said at a moment.
#[derive(Debug)]
struct Checkpoint {
    bytes: Vec<u8>,
    /// What they said already and the log did not. Should the checkpoint not be finished, this must be in the log in front of it.
    journal: Vec<Record>,
}

/// A cut: what is before it goes.
#[derive(Debug)]
struct Cut {
    before: Position,
    /// Where messages stand that are still of use → which they are.
    carried: BTreeMap<Position, Position>,
}

impl Compaction {
    /// Compacts when it is worth it, and answers whether it did; `usage` is what the engine holds.
    ///
    /// # Errors
    /// As the engine says; [`Error::Full`] only means "not now".
    pub fn run(&mut self, engine: &mut dyn Engine, ledger: &Ledger, usage: &Usage) -> Result<bool, Error> {
        let Some(last) = usage.segments.last().map(|segment| segment.first) else { return Ok(false) };
        if usage.segments.len() < 2 || !self.is_due(last, usage) {
            return Ok(false);
        }
        self.tried = Some(Tried { last, bytes: usage.bytes, at: Instant::now() });
        let live = live(ledger);
        let cut = match usage.bytes_left {
            None => choose(usage, &live, CARRY_BYTES_MAX).map(|cut| (cut, None)),
            Some(bytes_left) => choose_short(usage, &live, bytes_left, ledger),
        };
        let Some((cut, checkpoint)) = cut else { return Ok(false) };
        let checkpoint = match checkpoint {
            Some(checkpoint) => checkpoint,
            None => {
                carry(engine, ledger, &cut.carried)?;
                Checkpoint::of(ledger)
            }
        };
        self.checkpoint_bytes = checkpoint.append(engine, ledger)?;
        engine.trim(cut.before)?;
        self.bytes_after = engine.usage().bytes;
        tracing::info!(carried = cut.carried.len(), before = %cut.before, bytes = self.bytes_after, "the log was compacted");
        Ok(true)
    }

    /// Whether it is time to try. A log that gets no more room begins no new segment, and what made it full is acknowledged at any time.
    fn is_due(&self, last: Position, usage: &Usage) -> bool {
        match (&self.tried, usage.bytes_left) {
            (None, Some(_)) => true,
            (Some(tried), Some(_)) => {
                tried.at.elapsed() >= SHORT_PAUSE || usage.bytes.abs_diff(tried.bytes) >= SHORT_BYTES
            }
            (tried, None) => {
                let grown = usage.bytes.saturating_sub(self.bytes_after);
                tried.as_ref().is_none_or(|tried| tried.last != last)
                    && grown >= self.checkpoint_bytes * GROWTH_PER_CHECKPOINT
            }
        }
    }
}

/// As [`choose`], for a log that has only `bytes_left` for what is carried and the checkpoint: where they do not fit, it would only use
/// up what acknowledgements need. The checkpoint is made for its size then; where nothing is carried, and so nothing moves, it is the one to write.
fn choose_short(
    usage: &Usage,
    live: &BTreeMap<Position, (Position, u32)>,
    bytes_left: u64,
    ledger: &Ledger,
) -> Option<(Cut, Option<Checkpoint>)> {
    // It is not made before there is a use for it.
    choose(usage, live, bytes_left)?;
    let checkpoint = Checkpoint::of(ledger);
    let room = bytes_left.checked_sub(checkpoint.bytes.len() as u64 + FRAMES_BYTES);
    // The half: each record has a frame around it.
    let cut = room.and_then(|room| choose(usage, live, (room / 2).min(CARRY_BYTES_MAX)));
    if cut.as_ref().is_some_and(|cut| cut.carried.is_empty()) {
        return cut.map(|cut| (cut, Some(checkpoint)));
    }
    checkpoint.put_back(ledger);
    cut.map(|cut| (cut, None))
}

/// Where every message that is still of use stands: its position and its record's size.
fn live(ledger: &Ledger) -> BTreeMap<Position, (Position, u32)> {
    let books = lock(&ledger.books);
    let mut live = BTreeMap::new();
    let served = books.queues.values().map(|queue| &queue.served);
    let subscriptions = books.topics.values().flat_map(|topic| topic.subscriptions.values());
    for served in served.chain(subscriptions.map(|subscription| &subscription.served)) {
        let messages = served.deliveries.messages().iter().map(|(position, message)| (position, &message.index));
        let dead = served.deliveries.dead().iter().map(|(position, dead)| (position, &dead.index));
        live.extend(messages.chain(dead).map(|(position, index)| (index.at, (*position, index.bytes))));
    }
    let events = books.topics.values().flat_map(|topic| topic.events());
    live.extend(events.map(|(position, index)| (index.at, (*position, index.bytes))));
    live
}

/// The oldest segments of which at most half is of use, and no more than `carry_bytes_max`; never the one that is being written.
fn choose(usage: &Usage, live: &BTreeMap<Position, (Position, u32)>, carry_bytes_max: u64) -> Option<Cut> {
    let mut chosen = None;
    let (mut bytes, mut used) = (0u64, 0u64);
    for pair in usage.segments.windows(2) {
        let [segment, next] = pair else { break };
        bytes += segment.bytes;
        used += live.range(segment.first..next.first).map(|(_, (_, bytes))| u64::from(*bytes)).sum::<u64>();
        if used > carry_bytes_max {
            break;
        }
        if used <= bytes / 2 {
            chosen = Some(next.first);
        }
    }
    let before = chosen?;
    let carried = live.range(..before).map(|(at, (position, _))| (*at, *position)).collect();
    Some(Cut { before, carried })
}

/// Writes messages once more and notes where they stand now.
fn carry(engine: &mut dyn Engine, ledger: &Ledger, carried: &BTreeMap<Position, Position>) -> Result<(), Error> {
    let reader = engine.reader();
    let mut moved = Vec::with_capacity(carried.len());
    for (at, position) in carried {
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

    /// Writes it to the log, and answers with its size.
    fn append(self, engine: &mut dyn Engine, ledger: &Ledger) -> Result<u64, Error> {
        let bytes = self.bytes.len() as u64;
        let written = self.write(engine);
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
