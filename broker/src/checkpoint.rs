//! Checkpoints: all that the books say, as bytes, so that the records before can go. Payloads are not in it; they stay where they are
//! in the log, or are carried behind the cut by [`crate::compaction`].
//!
//! Layout, in the numbers and texts of [`crate::record`]: the version, queues, then topics, each with its counts, its window, its messages and
//! its dead letters. Leases are not kept: at a start, what was leased is ready. But their fences are, so that who has done the work may say so.

use model::identity::Subject;
use model::name::Name;

use crate::books::{Books, SHORT_REASON_BYTES_MAX};
use crate::dedup::{Place, Window};
use crate::deliveries::{DEAD_MAX, Dead, Deliveries, Index, State};
use crate::moment::Moment;
use crate::queue::{Queue, Served, Tally};
use crate::record::{Cursor, Error, put_attempts, put_identity, put_number, put_option, put_subject, put_text};
use crate::topic::{Subscription, Topic};

const VERSION: u64 = 2;
/// The first version in which messages have fences.
const FENCES_SINCE: u64 = 2;

/// What a message takes in a checkpoint, or a dead letter without its reason,
const MESSAGE_BYTES: u64 = 44;
/// an event of a topic,
const EVENT_BYTES: u64 = 32;
/// an identity in a window,
const IDENTITY_BYTES: u64 = 26;
/// and a counter with its name, or what a destination has besides: rather more than it is.
const COUNT_BYTES: u64 = 160;

/// Writes all that the books say.
#[must_use]
pub fn write(books: &Books, now: Moment) -> Vec<u8> {
    let mut to = Vec::new();
    put_number(&mut to, VERSION);
    put_number(&mut to, books.queues.len() as u64);
    for (name, queue) in &books.queues {
        put_text(&mut to, name.as_str());
        put_accepted(&mut to, &queue.published, queue.duplicates, &queue.window);
        put_served(&mut to, &queue.served, now);
    }
    put_number(&mut to, books.topics.len() as u64);
    for (name, topic) in &books.topics {
        put_text(&mut to, name.as_str());
        put_accepted(&mut to, &topic.published, topic.duplicates, &topic.window);
        put_number(&mut to, topic.events().len() as u64);
        for (position, index) in topic.events() {
            put_number(&mut to, position.0);
            put_index(&mut to, index);
        }
        put_number(&mut to, topic.subscriptions.len() as u64);
        for (name, subscription) in &topic.subscriptions {
            put_text(&mut to, name.as_str());
            put_number(&mut to, topic.position_of(subscription.cursor).0);
            put_number(&mut to, u64::from(subscription.paused));
            put_number(&mut to, subscription.missed);
            put_served(&mut to, &subscription.served, now);
        }
    }
    to
}

/// About how many bytes [`write`] would write, rather more than fewer, without looking at each message.
#[must_use]
pub fn bytes_about(books: &Books) -> u64 {
    let accepted =
        |publishers: usize, window: &Window| publishers as u64 * COUNT_BYTES + window.len() as u64 * IDENTITY_BYTES;
    let queues = books
        .queues
        .values()
        .map(|queue| COUNT_BYTES + accepted(queue.published.len(), &queue.window) + served_bytes_about(&queue.served));
    let topics = books.topics.values().map(|topic| {
        let subscriptions = topic.subscriptions.values();
        COUNT_BYTES
            + accepted(topic.published.len(), &topic.window)
            + topic.events().len() as u64 * EVENT_BYTES
            + subscriptions.map(|subscription| COUNT_BYTES + served_bytes_about(&subscription.served)).sum::<u64>()
    });
    queues.chain(topics).sum()
}

fn served_bytes_about(served: &Served) -> u64 {
    let (messages, dead) = (served.deliveries.messages().len(), served.deliveries.dead().len());
    // Each may become a dead letter, while there may be more of them.
    let may_die = messages.min(DEAD_MAX.saturating_sub(dead));
    served.tally.delivered.len() as u64 * COUNT_BYTES
        + messages as u64 * MESSAGE_BYTES
        + may_die as u64 * SHORT_REASON_BYTES_MAX as u64
        + dead as u64 * MESSAGE_BYTES
        + served.deliveries.reason_bytes()
}

fn put_accepted(
    to: &mut Vec<u8>,
    published: &std::collections::BTreeMap<Subject, u64>,
    duplicates: u64,
    window: &Window,
) {
    put_number(to, published.len() as u64);
    for (subject, count) in published {
        put_subject(to, subject);
        put_number(to, *count);
    }
    put_number(to, duplicates);
    put_number(to, window.stored().count() as u64);
    for (identity, position) in window.stored() {
        put_identity(to, identity);
        put_number(to, position.0);
    }
}

fn put_served(to: &mut Vec<u8>, served: &Served, now: Moment) {
    let Tally { delivered, redelivered, settled, dead } = &served.tally;
    put_number(to, delivered.len() as u64);
    for (consumer, count) in delivered {
        put_text(to, consumer.as_str());
        put_number(to, *count);
    }
    [redelivered, settled, dead].into_iter().for_each(|count| put_number(to, *count));
    put_number(to, served.deliveries.messages().len() as u64);
    for (position, message) in served.deliveries.messages() {
        put_number(to, position.0);
        put_index(to, &message.index);
        put_attempts(to, message.attempts);
        put_number(to, message.fence);
        put_option(
            to,
            match message.state {
                State::Delayed { until } => Some(now.wall_of(until)),
                State::Waiting | State::Ready | State::Leased { .. } => None,
            },
        );
    }
    put_number(to, served.deliveries.dead().len() as u64);
    for (position, dead) in served.deliveries.dead() {
        put_number(to, position.0);
        put_index(to, &dead.index);
        put_attempts(to, dead.attempts);
        put_text(to, &dead.reason);
        put_number(to, dead.died_ms);
    }
}

fn put_index(to: &mut Vec<u8>, index: &Index) {
    put_number(to, index.at.0);
    put_number(to, u64::from(index.bytes));
    put_option(to, index.key);
    put_number(to, index.published_ms);
    put_option(to, index.expires_ms);
}

/// Reads into empty books what [`write`] has written.
///
/// # Errors
/// When the bytes are not a checkpoint of this version or one before.
pub fn read(bytes: &[u8], books: &mut Books, now: Moment) -> Result<(), Error> {
    let mut from = Cursor(bytes);
    let version = from.number()?;
    if !(1..=VERSION).contains(&version) {
        return Err(Error::Field("version"));
    }
    for _ in 0..from.count()? {
        let name = from.name()?;
        let mut queue = Queue::default();
        read_accepted(&mut from, &mut queue.published, &mut queue.duplicates, &mut queue.window)?;
        read_served(&mut from, &mut queue.served, version, now)?;
        books.queues.insert(name, queue);
    }
    for _ in 0..from.count()? {
        let name = from.name()?;
        let topic = read_topic(&mut from, version, now)?;
        books.topics.insert(name, topic);
    }
    Ok(())
}

fn read_topic(from: &mut Cursor<'_>, version: u64, now: Moment) -> Result<Topic, Error> {
    let mut topic = Topic::default();
    read_accepted(from, &mut topic.published, &mut topic.duplicates, &mut topic.window)?;
    for _ in 0..from.count()? {
        let position = from.position()?;
        topic.push(position, read_index(from)?);
    }
    for _ in 0..from.count()? {
        let name: Name = from.name()?;
        let position = from.position()?;
        topic.end_at_least(position);
        topic.subscribe(&name, position);
        let mut held = Subscription { paused: from.number()? != 0, missed: from.number()?, ..Subscription::default() };
        read_served(from, &mut held.served, version, now)?;
        if let Some(subscription) = topic.subscriptions.get_mut(&name) {
            held.cursor = subscription.cursor;
            *subscription = held;
        }
    }
    Ok(topic)
}

fn read_accepted(
    from: &mut Cursor<'_>,
    published: &mut std::collections::BTreeMap<Subject, u64>,
    duplicates: &mut u64,
    window: &mut Window,
) -> Result<(), Error> {
    for _ in 0..from.count()? {
        let subject = from.subject()?;
        published.insert(subject, from.number()?);
    }
    *duplicates = from.number()?;
    for _ in 0..from.count()? {
        let identity = from.identity()?;
        window.remember(identity, Place::Stored(from.position()?));
    }
    Ok(())
}

fn read_served(from: &mut Cursor<'_>, served: &mut Served, version: u64, now: Moment) -> Result<(), Error> {
    for _ in 0..from.count()? {
        let consumer = from.name()?;
        served.tally.delivered.insert(consumer, from.number()?);
    }
    let tally = &mut served.tally;
    for count in [&mut tally.redelivered, &mut tally.settled, &mut tally.dead] {
        *count = from.number()?;
    }
    let deliveries: &mut Deliveries = &mut served.deliveries;
    for _ in 0..from.count()? {
        let (position, index, attempts) = (from.position()?, read_index(from)?, from.attempts()?);
        deliveries.insert(position, index, attempts);
        if version >= FENCES_SINCE {
            deliveries.assigned(position, attempts, from.number()?);
        }
        if let Some(due_ms) = from.option()? {
            deliveries.again(position, attempts, now.tick_of(due_ms), now);
        }
    }
    for _ in 0..from.count()? {
        let (position, index, attempts) = (from.position()?, read_index(from)?, from.attempts()?);
        let dead = Dead { index, attempts, reason: from.text()?.to_owned(), died_ms: from.number()? };
        deliveries.restore_dead(position, dead);
    }
    Ok(())
}

fn read_index(from: &mut Cursor<'_>) -> Result<Index, Error> {
    Ok(Index {
        at: from.position()?,
        bytes: u32::try_from(from.number()?).map_err(|_| Error::Field("bytes"))?,
        key: from.option()?,
        published_ms: from.number()?,
        expires_ms: from.option()?,
    })
}

/// The parts of a checkpoint, as they come from the log.
#[derive(Debug, Default)]
pub struct Parts {
    bytes: Vec<u8>,
    next: u32,
}

impl Parts {
    /// Takes a part; with the last one, the whole. Parts of a checkpoint that was never finished are dropped.
    pub fn take(&mut self, part: u32, last: bool, bytes: &[u8]) -> Option<Vec<u8>> {
        if part == 0 {
            *self = Self::default();
        }
        if part != self.next {
            return None;
        }
        self.bytes.extend_from_slice(bytes);
        self.next += 1;
        last.then(|| std::mem::take(self).bytes)
    }
}

#[cfg(test)]
mod tests;
