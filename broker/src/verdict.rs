//! What the committer is asked for, and what it decides before it writes.
//!
//! It decides between two batches, when everything that was answered is in the books; so it never has to guess about what is still
//! being written, except within its own batch.

use bytes::Bytes;
use model::config::Durability;
use model::name::Name;
use model::position::Position;
use policy::schedule::Cause;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::books::Books;
use crate::dedup::{Place, Verdict, Window};
use crate::deliveries::{Deliveries, Ending, Lease, State};
use crate::moment::Moment;
use crate::queue::Queue;
use crate::record::{Destination, Group, Identity, Published, Record};
use crate::refusal::Refusal;
use crate::topic::{EVENTS_MAX, Target};

/// What the committer is asked for.
#[derive(Debug)]
pub enum Command {
    /// Accept messages.
    Publish {
        /// Which.
        messages: Vec<Publication>,
        /// Holds back publishers when too many bytes wait; given back with the answer.
        permit: Option<OwnedSemaphorePermit>,
        /// Where the answer goes: one receipt or refusal for each message, in order.
        reply: oneshot::Sender<Vec<Result<Receipt, Refusal>>>,
    },
    /// Change the state of messages or subscriptions.
    Change {
        /// How.
        change: Change,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Done, Refusal>>,
    },
    /// Write the journal.
    Flush,
}

/// A message that is to be accepted: checked, authorized and encoded.
#[derive(Debug)]
pub struct Publication {
    /// All but its event.
    pub header: Published,
    /// Its record, event included.
    pub record: Bytes,
}

/// A change that must be durable before it is answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Messages are done.
    Settle {
        /// Whose.
        group: Group,
        /// The holds on them.
        leases: Vec<Lease>,
    },
    /// An attempt has ended otherwise.
    End {
        /// Whose.
        group: Group,
        /// The hold on the message.
        lease: Lease,
        /// How.
        cause: Cause,
        /// What is said of it.
        reason: String,
    },
    /// Dead letters go back.
    Redrive {
        /// Whose.
        group: Group,
        /// Which; those that are none any more are passed over.
        positions: Vec<Position>,
    },
    /// Dead letters are dropped.
    Forget {
        /// Whose.
        group: Group,
        /// Which; those that are none any more are passed over.
        positions: Vec<Position>,
    },
    /// A subscription is moved.
    Seek {
        /// To what.
        topic: Name,
        /// Its name.
        name: Name,
        /// Where to.
        target: Target,
    },
    /// A subscription is paused or goes on.
    Pause {
        /// To what.
        topic: Name,
        /// Its name.
        name: Name,
        /// Whether it stands still.
        paused: bool,
    },
}

/// A message was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Where it stands.
    pub position: Position,
    /// How durable it is.
    pub durability: Durability,
    /// Whether it had been accepted before.
    pub duplicate: bool,
}

/// A change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// Where it is written; 0 where there was nothing to write.
    pub position: Position,
    /// How many messages it concerned.
    pub count: u64,
}

/// A decision about one message, by the number of its record in the batch.
#[derive(Debug)]
pub enum Slot {
    /// It is this record.
    New(usize, Durability),
    /// It was accepted before.
    Duplicate(Place, Durability),
    /// It is not accepted.
    Refused(Refusal),
}

impl Books {
    /// Decides about one message that would be the record `number` of the batch. This is paid for each message, so it looks for the
    /// destination and the identity once.
    pub fn judge(&mut self, header: &Published, number: usize) -> Slot {
        match &header.destination {
            Destination::Queue(name) => match self.queues.get_mut(name) {
                Some(Queue { config: Some(config), served, window, pending, duplicates, .. }) => {
                    let depth = served.deliveries.messages().len() as u64 + *pending;
                    let full = (depth >= config.messages_max).then_some(config.messages_max);
                    let slot = slot(window, header.identity, full, number, config.durability);
                    *pending += u64::from(matches!(slot, Slot::New(..)));
                    *duplicates += u64::from(matches!(slot, Slot::Duplicate(..)));
                    slot
                }
                _ => gone(name),
            },
            Destination::Topic(name) => match self.topics.get_mut(name) {
                Some(topic) => {
                    let full = topic.is_full().then_some(EVENTS_MAX as u64);
                    let Some(config) = &topic.config else { return gone(name) };
                    let slot = slot(&mut topic.window, header.identity, full, number, config.durability);
                    topic.duplicates += u64::from(matches!(slot, Slot::Duplicate(..)));
                    slot
                }
                None => gone(name),
            },
        }
    }

    /// A message that was decided to be new was not written.
    pub fn revoke(&mut self, header: &Published) {
        let window = match &header.destination {
            Destination::Queue(name) => self.queues.get_mut(name).map(|queue| {
                queue.pending = queue.pending.saturating_sub(1);
                &mut queue.window
            }),
            Destination::Topic(name) => self.topics.get_mut(name).map(|topic| &mut topic.window),
        };
        if let (Some(window), Some(identity)) = (window, header.identity) {
            window.revoke(identity);
        }
    }

    /// Decides about a change: the record that makes it, and how many messages it concerns. No record: there is nothing to do.
    ///
    /// # Errors
    /// When what it speaks of is not there, or its lease does not count any more.
    pub fn decide(&mut self, change: Change, now: Moment) -> Result<(Option<Record>, u64), Refusal> {
        match change {
            Change::Settle { group, leases } => {
                let deliveries = &mut self.served_mut(&group).ok_or_else(|| absent(&group))?.deliveries;
                let positions = settle(deliveries, &leases)?;
                let count = positions.len() as u64;
                Ok((Some(Record::Settled { group, positions }), count))
            }
            Change::End { group, lease, cause, reason } => {
                let deliveries = &self.served(&group).ok_or_else(|| absent(&group))?.deliveries;
                check_end(deliveries, lease, cause)?;
                let record = self.ended(&group, lease.position, cause, &reason, now);
                if let Some(served) = self.served_mut(&group) {
                    served.deliveries.begin_end(lease.position, Ending::Unsettled);
                }
                Ok((record, 1))
            }
            Change::Redrive { group, positions } => {
                let positions = self.still_dead(&group, positions)?;
                let count = positions.len() as u64;
                Ok(((count > 0).then_some(Record::Redriven { group, positions }), count))
            }
            Change::Forget { group, positions } => {
                let positions = self.still_dead(&group, positions)?;
                let count = positions.len() as u64;
                Ok(((count > 0).then_some(Record::Forgotten { group, positions }), count))
            }
            Change::Seek { topic, name, target } => {
                let held = self.subscribed(&topic, &name)?;
                let to = held.resolve(target);
                Ok((Some(Record::Sought { topic, name, to }), 0))
            }
            Change::Pause { topic, name, paused } => {
                self.subscribed(&topic, &name)?;
                Ok((Some(Record::Paused { topic, name, paused }), 0))
            }
        }
    }

    /// A change that was decided was not written: what it speaks of stands as it stood.
    pub fn abandon(&mut self, record: &Record) {
        let Some(served) = record.group().cloned().and_then(|group| self.served_mut(&group)) else { return };
        match record {
            Record::Settled { positions, .. } => {
                positions.iter().for_each(|position| served.deliveries.abandon_end(*position));
            }
            Record::Again { position, .. } | Record::Dead { position, .. } => {
                served.deliveries.abandon_end(*position);
            }
            _ => return,
        }
        let wake = served.wake.clone();
        self.to_notify.note(&wake);
    }

    fn still_dead(&self, group: &Group, mut positions: Vec<Position>) -> Result<Vec<Position>, Refusal> {
        let dead = self.served(group).ok_or_else(|| absent(group))?.deliveries.dead();
        positions.retain(|position| dead.contains_key(position));
        Ok(positions)
    }

    fn subscribed(&self, topic: &Name, name: &Name) -> Result<&crate::topic::Topic, Refusal> {
        let held = self.topics.get(topic).filter(|topic| topic.subscriptions.contains_key(name));
        held.ok_or_else(|| absent(&Group::Subscription { topic: topic.clone(), name: name.clone() }))
    }
}

/// The messages of these leases, if all of them still count. A lease that is acknowledged twice within one batch is acknowledged.
fn settle(deliveries: &mut Deliveries, leases: &[Lease]) -> Result<Vec<Position>, Refusal> {
    let counts = |lease: &Lease| deliveries.held(*lease).is_some_and(|held| held.ending != Some(Ending::Unsettled));
    if !leases.iter().all(counts) {
        return Err(Refusal::LeaseOver);
    }
    let positions: Vec<Position> = leases.iter().map(|lease| lease.position).collect();
    positions.iter().for_each(|position| deliveries.begin_end(*position, Ending::Settled));
    Ok(positions)
}

/// Whether the attempt of a lease has not ended yet: one that is given back twice, or after it has run out, would count as two. That nobody
/// will ever take the message may still be said as long as nobody else has got it.
fn check_end(deliveries: &Deliveries, lease: Lease, cause: Cause) -> Result<(), Refusal> {
    let held = deliveries.held(lease).filter(|held| held.ending.is_none()).ok_or(Refusal::LeaseOver)?;
    let goes_on = matches!(held.state, State::Leased { .. });
    if goes_on || cause == Cause::Reject { Ok(()) } else { Err(Refusal::LeaseOver) }
}

/// The decision about one message; `full`: its destination takes no new one beyond so many.
fn slot(
    window: &mut Window,
    identity: Option<Identity>,
    full: Option<u64>,
    number: usize,
    durability: Durability,
) -> Slot {
    let verdict = match (identity, full) {
        (None, _) => Verdict::New,
        (Some(identity), None) => window.claim(identity, Place::Pending(number)),
        (Some(identity), Some(_)) => window.judge(identity),
    };
    match (verdict, full) {
        (Verdict::Same(place), _) => Slot::Duplicate(place, durability),
        (Verdict::Other, _) => Slot::Refused(Refusal::Conflict),
        (Verdict::New, Some(messages_max)) => Slot::Refused(Refusal::Depth { messages_max }),
        (Verdict::New, None) => Slot::New(number, durability),
    }
}

fn gone(name: &Name) -> Slot {
    Slot::Refused(Refusal::Absent(format!("no queue or topic is named {name:?} any more")))
}

fn absent(group: &Group) -> Refusal {
    Refusal::Absent(format!("there is no {group}"))
}
