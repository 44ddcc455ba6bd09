//! The books: the state of all queues and topics, which the records in the log say and say again at a start.
//!
//! What must be durable before it is answered (publishing, acknowledging, redriving, seeking) is decided in [`crate::verdict`], written, and
//! only then applied here. What is only bookkeeping (an assignment, a timeout, a subscription that the graph declares) changes the books at once
//! and waits in the journal, which goes into the log in front of the next batch; a crash in between forgets it and does it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::config::{Delivery, Durability, Source};
use model::name::Name;
use model::position::Position;
use model::snapshot::BrokerPart;
use policy::schedule::{self, Attempts, Cause, Next};

use crate::dedup::Place;
use crate::deliveries::{Index, Lease, Message, State};
use crate::moment::{Moment, millis};
use crate::queue::{Queue, Served, add, entry};
use crate::record::{Destination, Group, Published, Record};
use crate::topic::Topic;
use crate::wake::ToNotify;

/// Why a message that nobody got in time is a dead letter.
const EXPIRED: &str = "its expirytime passed before it was delivered";

/// What is said of an attempt that nobody has ended.
const NOT_SETTLED: &str = "its lease has run out";

/// How many records may wait in the journal before nothing more is given out.
const JOURNAL_MAX: usize = 100_000;
/// How much one sweep drops at most of one destination, so that a start with a wrong wall clock leaves time to notice.
const EXPIRED_PER_SWEEP_MAX: usize = 10_000;
/// How long dead letters are kept where nothing else is declared: those of subscriptions, and of queues that are gone.
const DEAD_LETTER_KEEP: Duration = Duration::from_secs(14 * 86_400);

/// How much of a reason is kept while the disk gives no more room, in bytes: what dead letters take then must fit into the reserve.
pub const SHORT_REASON_BYTES_MAX: usize = 48;

/// The state of all queues and topics.
#[derive(Debug)]
pub struct Books {
    /// The queues, those that are no longer declared too.
    pub queues: BTreeMap<Name, Queue>,
    /// The topics, those that are no longer declared too.
    pub topics: BTreeMap<Name, Topic>,
    /// What is declared; `None` before the first snapshot.
    pub config: Option<Arc<BrokerPart>>,
    /// Records of what has changed already and is not in the log yet.
    pub journal: Vec<Record>,
    /// Who is to be told of what has changed, once the books are free.
    pub to_notify: ToNotify,
    /// Whether the disk gives no more room: what is said of dead letters is kept short then.
    pub is_short_of_room: bool,
    rng: fastrand::Rng,
}

/// A message that was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// The hold on it.
    pub lease: Lease,
    /// What it is.
    pub message: Message,
}

impl Books {
    /// Empty books.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            queues: BTreeMap::new(),
            topics: BTreeMap::new(),
            config: None,
            journal: Vec::new(),
            to_notify: ToNotify::default(),
            is_short_of_room: false,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Takes over what is declared. Queues, topics and subscriptions that are not declared any more keep what they have.
    pub fn configure(&mut self, part: Arc<BrokerPart>) {
        self.queues.values_mut().for_each(|queue| queue.config = None);
        self.topics.values_mut().for_each(|topic| topic.config = None);
        for (name, config) in &part.queues {
            self.queues.entry(name.clone()).or_default().config = Some(config.clone());
        }
        for (name, config) in &part.topics {
            self.topics.entry(name.clone()).or_default().config = Some(config.clone());
        }
        for (consumer, consumptions) in &part.consumers {
            for consumption in consumptions {
                if let Source::Topic(topic) = &consumption.source {
                    self.subscribe(topic, consumer);
                }
            }
        }
        self.config = Some(part);
        self.wake_all();
    }

    /// A new subscription begins behind what the topic has.
    fn subscribe(&mut self, topic: &Name, name: &Name) {
        let Some(held) = self.topics.get_mut(topic) else { return };
        if !held.subscriptions.contains_key(name) {
            let from = held.end();
            held.subscribe(name, from);
            self.journal.push(Record::Subscribed { topic: topic.clone(), name: name.clone(), from });
        }
    }

    /// Lets everybody who takes look again.
    pub fn wake_all(&self) {
        let queues = self.queues.values().map(|queue| &queue.served);
        let subscriptions = self.topics.values().flat_map(|topic| topic.subscriptions.values());
        queues
            .chain(subscriptions.map(|subscription| &subscription.served))
            .for_each(|served| served.wake.notify.notify_waiters());
    }

    /// Every group there is.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let queues = self.queues.keys().map(|name| Group::Queue(name.clone()));
        let subscriptions = self.topics.iter().flat_map(|(topic, held)| {
            held.subscriptions.keys().map(|name| Group::Subscription { topic: topic.clone(), name: name.clone() })
        });
        queues.chain(subscriptions).collect()
    }

    /// The delivery of a group.
    #[must_use]
    pub fn served(&self, group: &Group) -> Option<&Served> {
        match group {
            Group::Queue(name) => self.queues.get(name).map(|queue| &queue.served),
            Group::Subscription { topic, name } => {
                self.topics.get(topic)?.subscriptions.get(name).map(|subscription| &subscription.served)
            }
        }
    }

    /// The delivery of a group.
    pub fn served_mut(&mut self, group: &Group) -> Option<&mut Served> {
        match group {
            Group::Queue(name) => self.queues.get_mut(name).map(|queue| &mut queue.served),
            Group::Subscription { topic, name } => {
                self.topics.get_mut(topic)?.subscriptions.get_mut(name).map(|subscription| &mut subscription.served)
            }
        }
    }

    /// Where in the log a message of a group stands now, settled or not.
    #[must_use]
    pub fn place_of(&self, group: &Group, position: Position) -> Option<Position> {
        let deliveries = &self.served(group)?.deliveries;
        let held = deliveries.messages().get(&position).map(|message| message.index.at);
        let event = || match group {
            Group::Subscription { topic, .. } => self.topics.get(topic)?.get(position).map(|index| index.at),
            Group::Queue(_) => None,
        };
        held.or_else(|| deliveries.dead().get(&position).map(|dead| dead.index.at)).or_else(event)
    }

    /// How a group delivers.
    #[must_use]
    pub fn delivery(&self, group: &Group) -> Delivery {
        let declared = match group {
            Group::Queue(name) => self.queues.get(name).and_then(|queue| queue.config.as_ref()).map(|c| &c.delivery),
            Group::Subscription { topic, .. } => {
                self.topics.get(topic).and_then(|topic| topic.config.as_ref()).map(|c| &c.delivery)
            }
        };
        declared.cloned().unwrap_or_default()
    }

    /// How durable a change must be before it is answered.
    #[must_use]
    pub fn durability(&self, record: &Record) -> Durability {
        let name = match record.group() {
            Some(Group::Queue(name)) => self.queues.get(name).and_then(|q| q.config.as_ref()).map(|c| c.durability),
            Some(Group::Subscription { topic, .. }) => {
                self.topics.get(topic).and_then(|topic| topic.config.as_ref()).map(|c| c.durability)
            }
            None => None,
        };
        name.unwrap_or_default()
    }

    /// Gives out up to `max` messages of a group to a consumer, each for `hold` or, without it, until its holder says.
    pub fn take(
        &mut self,
        group: &Group,
        consumer: &Name,
        max: usize,
        hold: Option<Duration>,
        now: Moment,
    ) -> Vec<Given> {
        if self.journal.len() >= JOURNAL_MAX {
            // The log takes nothing just now, so what would be given out could not be written down.
            return Vec::new();
        }
        if let Group::Subscription { topic, name } = group
            && let Some(topic) = self.topics.get_mut(topic)
        {
            if topic.subscriptions.get(name).is_none_or(|subscription| subscription.paused) {
                return Vec::new();
            }
            topic.admit(name);
        }
        let fence = self.rng.u64(1..);
        let Some(served) = self.served_mut(group) else { return Vec::new() };
        let until = hold.map_or(crate::deliveries::UNTIMED, |hold| now.tick_ms.saturating_add(millis(hold)));
        let taken = served.deliveries.take(max, fence, until, now);
        let attempts = taken.messages.iter().map(|(_, message)| message.attempts.assigned);
        served.tally.assigned(consumer, attempts);
        let attempts_of =
            |position| served.deliveries.messages().get(position).map_or(Attempts::default(), |m| m.attempts);
        let expired: Vec<_> = taken.expired.iter().map(|position| (*position, attempts_of(position))).collect();
        for (position, attempts) in expired {
            self.note(dead(group, position, attempts, EXPIRED.to_owned(), now), now);
        }
        let given: Vec<Given> = taken
            .messages
            .into_iter()
            .map(|(position, message)| Given { lease: Lease { position, fence }, message })
            .collect();
        if !given.is_empty() {
            let messages = given.iter().map(|given| (given.lease.position, given.message.attempts)).collect();
            self.journal.push(Record::Assigned { group: group.clone(), consumer: consumer.clone(), fence, messages });
        }
        given
    }

    /// Takes back what was given out and reached nobody. The log need not say so: after a start what is leased there is ready as well.
    pub fn give_back(&mut self, group: &Group, leases: &[Lease], now: Moment) {
        let Some(served) = self.served_mut(group) else { return };
        for lease in leases {
            let held = served.deliveries.held(*lease);
            if let Some(Message { attempts, state: State::Leased { .. }, ending: None, .. }) = held {
                let attempts = *attempts;
                served.deliveries.again(lease.position, attempts, now.tick_ms, now);
            }
        }
        let wake = served.wake.clone();
        self.to_notify.note(&wake);
    }

    /// Ends delays and leases that are over, drops what is kept for too long, and says when there is work again, as a tick.
    pub fn fire(&mut self, now: Moment) -> Option<u64> {
        let mut next_due = None;
        for group in self.groups() {
            let Some(served) = self.served_mut(&group) else { continue };
            if served.deliveries.next_due().is_some_and(|due| due <= now.tick_ms) {
                let timed_out = served.deliveries.fire(now);
                let wake = served.wake.clone();
                self.to_notify.note(&wake);
                for position in timed_out {
                    if let Some(record) = self.ended(&group, position, Cause::AckTimeout, NOT_SETTLED, now) {
                        self.note(record, now);
                    }
                }
            }
            let due = self.served(&group).and_then(|served| served.deliveries.next_due());
            next_due = next_due.into_iter().chain(due).min();
        }
        next_due
    }

    /// Drops what was kept for as long as its destination asks.
    pub fn sweep(&mut self, now: Moment) {
        for topic in self.topics.values_mut() {
            if let Some(config) = &topic.config {
                topic.expire(now.wall_ms.saturating_sub(millis(config.keep)), EXPIRED_PER_SWEEP_MAX);
            }
        }
        for group in self.groups() {
            self.say_blocked(&group);
            let keep = match &group {
                Group::Queue(name) => self.queues.get(name).and_then(|q| q.config.as_ref()).map(|c| c.dead_letter_keep),
                Group::Subscription { .. } => None,
            };
            let before_ms = now.wall_ms.saturating_sub(millis(keep.unwrap_or(DEAD_LETTER_KEEP)));
            let Some(served) = self.served(&group) else { continue };
            let positions = served.deliveries.dead_before(before_ms, EXPIRED_PER_SWEEP_MAX);
            if !positions.is_empty() {
                self.note(Record::Forgotten { group, positions }, now);
            }
        }
    }

    /// Says once that a group's dead letters block it, and once that they do no longer.
    fn say_blocked(&mut self, group: &Group) {
        let Some(served) = self.served_mut(group) else { return };
        let (is_blocked, dead) = (served.deliveries.is_full_of_dead(), served.deliveries.dead().len());
        match (served.is_said_blocked, is_blocked) {
            (false, true) => {
                tracing::warn!(%group, dead, "nothing is given out until dead letters are redriven or dropped")
            }
            (true, false) => tracing::info!(%group, dead, "messages are given out again"),
            _ => {}
        }
        served.is_said_blocked = is_blocked;
    }

    /// What becomes of a message whose attempt has ended so.
    pub fn ended(
        &mut self,
        group: &Group,
        position: Position,
        cause: Cause,
        reason: &str,
        now: Moment,
    ) -> Option<Record> {
        let message = self.served(group)?.deliveries.messages().get(&position)?;
        // An attempt that has ended already counts once.
        let goes_on = matches!(message.state, State::Leased { .. });
        let attempts = if goes_on { message.attempts.end(cause) } else { message.attempts };
        let random = self.rng.u64(..);
        Some(match schedule::next(&self.delivery(group), attempts, cause, random) {
            Next::Again { after } => Record::Again {
                group: group.clone(),
                position,
                attempts,
                due_ms: now.wall_ms.saturating_add(millis(after)),
            },
            Next::DeadLetter(why) => {
                let mut reason = if reason.is_empty() { why.to_string() } else { format!("{why}: {reason}") };
                if self.is_short_of_room {
                    reason.truncate(reason.floor_char_boundary(SHORT_REASON_BYTES_MAX));
                }
                dead(group, position, attempts, reason, now)
            }
        })
    }

    /// Applies a record now and writes it with the next batch.
    pub fn note(&mut self, record: Record, now: Moment) {
        self.apply(Position(0), 0, &record, now);
        self.journal.push(record);
    }

    /// Records of the journal that did not get into the log wait there again, in front of what was noted meanwhile: of two records
    /// about one message the later one counts.
    pub fn put_back(&mut self, records: Vec<Record>) {
        drop(self.journal.splice(0..0, records));
    }

    /// Applies a record that stands at `at` in the log and takes `bytes` there.
    pub fn apply(&mut self, at: Position, bytes: u32, record: &Record, now: Moment) {
        match record {
            Record::Published(published) => self.published(at, at, bytes, published),
            Record::Carried { position, published } => self.carried(at, *position, bytes, published),
            Record::Subscribed { topic, name, from } => {
                self.topics.entry(topic.clone()).or_default().subscribe(name, *from);
            }
            Record::Sought { topic, name, to } => {
                if let Some(topic) = self.topics.get_mut(topic) {
                    topic.seek(name, *to);
                    topic.subscriptions.values().for_each(|held| self.to_notify.note(&held.served.wake));
                }
            }
            Record::Paused { topic, name, paused } => {
                if let Some(held) = self.topics.get_mut(topic).and_then(|topic| topic.subscriptions.get_mut(name)) {
                    held.paused = *paused;
                    self.to_notify.note(&held.served.wake);
                }
            }
            Record::Checkpoint { .. } => {}
            Record::Assigned { group, .. }
            | Record::Settled { group, .. }
            | Record::Again { group, .. }
            | Record::Dead { group, .. }
            | Record::Redriven { group, .. }
            | Record::Forgotten { group, .. } => self.delivered(group, record, now),
        }
    }

    /// Takes in a message that was accepted.
    pub fn published(&mut self, position: Position, at: Position, bytes: u32, published: &Published) {
        let index = index(at, bytes, published);
        let counted = match &published.destination {
            Destination::Queue(name) => {
                let queue = entry(&mut self.queues, name);
                // It was accepted into the batch; in a replay there is none.
                queue.pending = queue.pending.saturating_sub(1);
                queue.served.deliveries.insert(position, index, Attempts::default());
                self.to_notify.note(&queue.served.wake);
                (&mut queue.window, &mut queue.published)
            }
            Destination::Topic(name) => {
                let topic = entry(&mut self.topics, name);
                topic.push(position, index);
                topic.admit_all(&mut self.to_notify);
                (&mut topic.window, &mut topic.published)
            }
        };
        if let Some(identity) = published.identity {
            counted.0.remember(identity, Place::Stored(position));
        }
        add(counted.1, &published.publisher, 1);
    }

    fn carried(&mut self, at: Position, position: Position, _bytes: u32, published: &Published) {
        match &published.destination {
            Destination::Queue(name) => {
                if let Some(queue) = self.queues.get_mut(name) {
                    queue.served.deliveries.relocate(position, at);
                }
            }
            Destination::Topic(name) => {
                if let Some(topic) = self.topics.get_mut(name) {
                    topic.relocate(position, at);
                }
            }
        }
    }

    /// Applies what has happened to messages of a group.
    fn delivered(&mut self, group: &Group, record: &Record, now: Moment) {
        if let Group::Subscription { topic, name } = group
            && let (Some(topic), Some(last)) = (self.topics.get_mut(topic), last_of(record))
        {
            topic.admit_through(name, last);
        }
        let Some(served) = self.served_mut(group) else { return };
        let (deliveries, tally) = (&mut served.deliveries, &mut served.tally);
        match record {
            Record::Assigned { consumer, fence, messages, .. } => {
                tally.assigned(consumer, messages.iter().map(|(_, attempts)| attempts.assigned));
                messages.iter().for_each(|(position, attempts)| deliveries.assigned(*position, *attempts, *fence));
            }
            Record::Settled { positions, .. } => {
                tally.settled += positions.iter().map(|position| u64::from(deliveries.settle(*position))).sum::<u64>();
            }
            Record::Again { position, attempts, due_ms, .. } => {
                deliveries.again(*position, *attempts, now.tick_of(*due_ms), now);
            }
            Record::Dead { position, attempts, reason, died_ms, .. } => {
                tally.dead += u64::from(deliveries.messages().contains_key(position));
                deliveries.dead_letter(*position, *attempts, reason, *died_ms);
            }
            Record::Redriven { positions, .. } => positions.iter().for_each(|position| {
                deliveries.redrive(*position);
            }),
            Record::Forgotten { positions, .. } => positions.iter().for_each(|position| {
                deliveries.forget(*position);
            }),
            _ => {}
        }
        let wake = served.wake.clone();
        self.to_notify.note(&wake);
    }
}

/// The highest position of a subscription's message that a record speaks of: the subscription has looked at events up to it.
fn last_of(record: &Record) -> Option<Position> {
    match record {
        Record::Assigned { messages, .. } => messages.iter().map(|(position, _)| *position).max(),
        Record::Settled { positions, .. } => positions.iter().copied().max(),
        Record::Again { position, .. } | Record::Dead { position, .. } => Some(*position),
        _ => None,
    }
}

fn dead(group: &Group, position: Position, attempts: Attempts, reason: String, now: Moment) -> Record {
    Record::Dead { group: group.clone(), position, attempts, reason, died_ms: now.wall_ms }
}

fn index(at: Position, bytes: u32, published: &Published) -> Index {
    let Published { key, published_ms, expires_ms, .. } = published;
    Index { at, bytes, key: *key, published_ms: *published_ms, expires_ms: *expires_ms }
}

#[cfg(test)]
mod tests;
