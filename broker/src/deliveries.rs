//! The delivery of messages to one group of consumers: who may get which message now, and what has become of those that were
//! given out. Queues and subscriptions share it.
//!
//! Each message is in one of five states: waiting (behind another of its key), ready, leased, delayed, or dead; settled ones are
//! gone. Of a key at most one message is out of `waiting`, and the next leaves it when that one is settled or dead. It knows no
//! clock, no log and no payload; writing down what happens, before or after, is left to [`crate::books`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::position::Position;
use policy::schedule::Attempts;

use crate::moment::Moment;

/// A lease that no timer ends: its holder answers for it.
pub const UNTIMED: u64 = u64::MAX;

/// How many bytes of messages are given out or read at a time; one message may be larger.
pub const BYTES_AT_A_TIME_MAX: u64 = 16 << 20;

/// How many dead letters a group has before nothing more is given out to it: those that were given out by then may still join them. They
/// are not dropped for their number, since nobody has looked at them; so a consumer that rejects everything stops, and is told so
/// (docs/decisions/2026-11-27-dead-letters-bound.md).
pub const DEAD_MAX: usize = 100_000;

/// Messages and what is becoming of them.
#[derive(Debug, Default)]
pub struct Deliveries {
    messages: BTreeMap<Position, Message>,
    ready: BTreeSet<Position>,
    /// By tick: when a lease runs out or a delay ends.
    due: BTreeSet<(u64, Position)>,
    dead: BTreeMap<Position, Dead>,
    /// The same by when they died, for finding those that were kept for long enough.
    dead_by_age: BTreeSet<(u64, Position)>,
    /// How long the reasons of all dead letters are together.
    reason_bytes: u64,
    /// Of each key that has a message here: those that wait behind it, in order.
    keys: BTreeMap<u64, VecDeque<Position>>,
    leased: usize,
    delayed: usize,
}

/// What is known of a message without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Index {
    /// Where in the log it stands now.
    pub at: Position,
    /// Its record's size.
    pub bytes: u32,
    /// What orders it.
    pub key: Option<u64>,
    /// When it was published, as wall time in milliseconds.
    pub published_ms: u64,
    /// From then on it is not delivered, as wall time in milliseconds.
    pub expires_ms: Option<u64>,
}

/// A message that is neither settled nor dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub index: Index,
    /// How often it was tried.
    pub attempts: Attempts,
    /// That of the lease by which somebody got it last; 0: nobody has, or an earlier version gave it out.
    pub fence: u64,
    /// Where it stands.
    pub state: State,
    /// What is being written of its last attempt; see [`Deliveries::begin_end`].
    pub ending: Option<Ending>,
}

/// An outcome that is decided and not in the log yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The message is done.
    Settled,
    /// Its attempt has ended otherwise.
    Unsettled,
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Behind another of its key.
    Waiting,
    /// It may be given out.
    Ready,
    /// Somebody has it.
    Leased {
        /// Since this tick.
        since: u64,
        /// Until this tick.
        until: u64,
    },
    /// It becomes ready by itself.
    Delayed {
        /// At this tick.
        until: u64,
    },
}

/// A message that is not delivered any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// What it is.
    pub index: Index,
    /// How often it was tried.
    pub attempts: Attempts,
    /// Why it is here.
    pub reason: String,
    /// Since when, as wall time in milliseconds.
    pub died_ms: u64,
}

/// A hold on a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Which message.
    pub position: Position,
    /// Drawn for each assignment and written with it; never 0. The count of assignments would not do: it begins again with a redrive, a seek, or a
    /// crash that has forgotten the last one.
    pub fence: u64,
}

/// What [`Deliveries::take`] has given out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Given out, in order.
    pub messages: Vec<(Position, Message)>,
    /// Not given out, since their time is over; the caller moves them to the dead letters.
    pub expired: Vec<Position>,
}

/// How many messages are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Counts {
    /// May be given out.
    pub ready: usize,
    /// Somebody has them.
    pub leased: usize,
    /// Wait for their next attempt.
    pub delayed: usize,
    /// Wait behind another of their key.
    pub waiting: usize,
    /// Dead letters.
    pub dead: usize,
}

impl Deliveries {
    /// Takes a message in. One that is there already only gets a new place in the log.
    pub fn insert(&mut self, position: Position, index: Index, attempts: Attempts) {
        // A new message is behind all others, and has no need to be looked for.
        let last = self.messages.last_key_value().map(|(last, _)| *last);
        let last_dead = self.dead.last_key_value().map(|(last, _)| *last);
        if last.max(last_dead) >= Some(position) && self.relocate(position, index.at) {
            return;
        }
        let state = match index.key.map(|key| self.keys.entry(key)) {
            Some(std::collections::btree_map::Entry::Occupied(mut key)) => {
                key.get_mut().push_back(position);
                State::Waiting
            }
            Some(std::collections::btree_map::Entry::Vacant(key)) => {
                key.insert(VecDeque::new());
                State::Ready
            }
            None => State::Ready,
        };
        self.messages.insert(position, Message { index, attempts, fence: 0, state, ending: None });
        if state == State::Ready {
            self.ready.insert(position);
        }
    }

    /// Notes that a message, or dead letter, stands elsewhere in the log now. Answers whether there is one.
    pub fn relocate(&mut self, position: Position, at: Position) -> bool {
        let message = self.messages.get_mut(&position).map(|message| &mut message.index);
        let index = message.or_else(|| self.dead.get_mut(&position).map(|dead| &mut dead.index));
        index.is_some_and(|index| {
            index.at = at;
            true
        })
    }

    /// Gives out up to `max` ready messages, first come first served, each behind `fence` until the tick `until`.
    pub fn take(&mut self, max: usize, fence: u64, until: u64, now: Moment) -> Taken {
        let mut taken = Taken::default();
        let mut bytes = 0;
        let dead_room = DEAD_MAX.saturating_sub(self.dead.len());
        while taken.messages.len() < max && bytes < BYTES_AT_A_TIME_MAX && taken.expired.len() < dead_room {
            let Some(position) = self.ready.first().copied() else { break };
            let Some(message) = self.messages.get_mut(&position) else { break };
            if message.index.expires_ms.is_some_and(|expires| expires <= now.wall_ms) {
                self.ready.remove(&position);
                taken.expired.push(position);
                continue;
            }
            message.attempts = message.attempts.assign();
            message.fence = fence;
            let given = Message { state: State::Leased { since: now.tick_ms, until }, ..*message };
            self.change(position, given.state);
            bytes += u64::from(given.index.bytes);
            taken.messages.push((position, given));
        }
        taken
    }

    /// The message of a lease, when the lease still counts: nobody has got the message since.
    ///
    /// One that has run out counts as long as that: its holder has done the work, and delivering it again would only do it twice.
    #[must_use]
    pub fn held(&self, lease: Lease) -> Option<&Message> {
        let message = self.messages.get(&lease.position)?;
        (lease.fence != 0 && message.fence == lease.fence).then_some(message)
    }

    /// Holds a message as it stands while the outcome of its attempt is written: nobody gets it, and no timer moves it. Without that, an
    /// acknowledgement that comes when its lease has run out could be answered after somebody else has got the message.
    /// It ends when the outcome is applied, or with [`Deliveries::abandon_end`].
    pub fn begin_end(&mut self, position: Position, ending: Ending) {
        let Some(message) = self.messages.get_mut(&position) else { return };
        message.ending = Some(ending);
        match message.state {
            State::Waiting => {}
            State::Ready => drop(self.ready.remove(&position)),
            State::Leased { until, .. } | State::Delayed { until } => drop(self.due.remove(&(until, position))),
        }
    }

    /// The outcome could not be written: the message stands where it stood.
    pub fn abandon_end(&mut self, position: Position) {
        let Some(message) = self.messages.get_mut(&position) else { return };
        if message.ending.take().is_none() {
            return;
        }
        match message.state {
            State::Waiting | State::Leased { until: UNTIMED, .. } => {}
            State::Ready => drop(self.ready.insert(position)),
            State::Leased { until, .. } | State::Delayed { until } => drop(self.due.insert((until, position))),
        }
    }

    /// Notes what replay says about the last assignment of a message.
    pub fn assigned(&mut self, position: Position, attempts: Attempts, fence: u64) {
        if let Some(message) = self.messages.get_mut(&position) {
            (message.attempts, message.fence) = (attempts, fence);
        }
    }

    /// The message is done, also one that had become a dead letter meanwhile. Answers whether there was one.
    pub fn settle(&mut self, position: Position) -> bool {
        self.forget(position) || self.remove(position).is_some()
    }

    /// An attempt has ended and the message waits until the tick `until`.
    pub fn again(&mut self, position: Position, attempts: Attempts, until: u64, now: Moment) {
        let Some(message) = self.messages.get_mut(&position) else { return };
        (message.attempts, message.ending) = (attempts, None);
        // What waits behind its key keeps waiting there; only a replay after a seek can say otherwise.
        if message.state != State::Waiting {
            let due = until <= now.tick_ms;
            self.change(position, if due { State::Ready } else { State::Delayed { until } });
        }
    }

    /// Moves a message to the dead letters.
    pub fn dead_letter(&mut self, position: Position, attempts: Attempts, reason: &str, died_ms: u64) {
        if let Some(message) = self.remove(position) {
            let dead = Dead { index: message.index, attempts, reason: reason.to_owned(), died_ms };
            self.restore_dead(position, dead);
        }
    }

    /// Puts a dead letter back, its attempts at zero. Its time does not run out a second time.
    pub fn redrive(&mut self, position: Position) -> bool {
        let Some(dead) = self.take_dead(position) else { return false };
        let index = Index { expires_ms: None, ..dead.index };
        self.insert(position, index, Attempts::default());
        true
    }

    /// Drops a dead letter.
    pub fn forget(&mut self, position: Position) -> bool {
        self.take_dead(position).is_some()
    }

    fn take_dead(&mut self, position: Position) -> Option<Dead> {
        let dead = self.dead.remove(&position)?;
        self.dead_by_age.remove(&(dead.died_ms, position));
        self.reason_bytes -= dead.reason.len() as u64;
        Some(dead)
    }

    /// Holds a lease until another tick.
    pub fn extend(&mut self, position: Position, until: u64) {
        if let Some(Message { state: State::Leased { since, .. }, .. }) = self.messages.get(&position) {
            let since = *since;
            self.change(position, State::Leased { since, until });
        }
    }

    /// Lets the delays that are over end, and answers with the leases that have run out; each is answered once.
    pub fn fire(&mut self, now: Moment) -> Vec<Position> {
        let mut out = Vec::new();
        while let Some((tick, position)) = self.due.first().copied().filter(|(tick, _)| *tick <= now.tick_ms) {
            self.due.remove(&(tick, position));
            match self.messages.get(&position).map(|message| message.state) {
                Some(State::Delayed { .. }) => self.change(position, State::Ready),
                Some(State::Leased { since, .. }) => {
                    self.change(position, State::Leased { since, until: UNTIMED });
                    out.push(position);
                }
                _ => {}
            }
        }
        out
    }

    /// When [`Deliveries::fire`] has work, as a tick.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(tick, _)| *tick)
    }

    /// Drops all messages, but no dead letter.
    pub fn clear(&mut self) {
        let (dead, dead_by_age) = (std::mem::take(&mut self.dead), std::mem::take(&mut self.dead_by_age));
        *self = Self { dead, dead_by_age, reason_bytes: self.reason_bytes, ..Self::default() };
    }

    /// The messages that are neither settled nor dead.
    #[must_use]
    pub const fn messages(&self) -> &BTreeMap<Position, Message> {
        &self.messages
    }

    /// The dead letters.
    #[must_use]
    pub const fn dead(&self) -> &BTreeMap<Position, Dead> {
        &self.dead
    }

    /// How long the reasons of all dead letters are together, in bytes.
    #[must_use]
    pub const fn reason_bytes(&self) -> u64 {
        self.reason_bytes
    }

    /// Up to `max` dead letters that died before a wall time in milliseconds, oldest first.
    #[must_use]
    pub fn dead_before(&self, before_ms: u64, max: usize) -> Vec<Position> {
        let over = self.dead_by_age.iter().take_while(|(died_ms, _)| *died_ms < before_ms);
        over.take(max).map(|(_, position)| *position).collect()
    }

    /// Whether nothing more is given out, since there are [`DEAD_MAX`] dead letters.
    #[must_use]
    pub fn is_full_of_dead(&self) -> bool {
        self.dead.len() >= DEAD_MAX
    }

    /// Takes in a dead letter as a checkpoint has it.
    pub fn restore_dead(&mut self, position: Position, dead: Dead) {
        self.forget(position);
        self.dead_by_age.insert((dead.died_ms, position));
        self.reason_bytes += dead.reason.len() as u64;
        self.dead.insert(position, dead);
    }

    /// How many messages are where.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (ready, leased, delayed) = (self.ready.len(), self.leased, self.delayed);
        let waiting = self.messages.len() - ready - leased - delayed;
        Counts { ready, leased, delayed, waiting, dead: self.dead.len() }
    }

    fn remove(&mut self, position: Position) -> Option<Message> {
        let message = *self.messages.get(&position)?;
        self.change(position, State::Waiting);
        self.messages.remove(&position);
        if let Some(key) = message.index.key {
            self.release(key, position, message.state == State::Waiting);
        }
        Some(message)
    }

    /// A message of this key has left.
    fn release(&mut self, key: u64, position: Position, was_waiting: bool) {
        let Some(behind) = self.keys.get_mut(&key) else { return };
        if was_waiting {
            behind.retain(|other| *other != position);
            return;
        }
        match behind.pop_front() {
            Some(next) => self.change(next, State::Ready),
            None => {
                self.keys.remove(&key);
            }
        }
    }

    /// Moves a message from one state to another, in every set and count that knows of it.
    fn change(&mut self, position: Position, state: State) {
        let Some(message) = self.messages.get_mut(&position) else { return };
        message.ending = None;
        let left = std::mem::replace(&mut message.state, state);
        match left {
            State::Waiting => {}
            State::Ready => {
                self.ready.remove(&position);
            }
            State::Leased { until, .. } => {
                self.due.remove(&(until, position));
                self.leased -= 1;
            }
            State::Delayed { until } => {
                self.due.remove(&(until, position));
                self.delayed -= 1;
            }
        }
        match state {
            State::Waiting => {}
            State::Ready => {
                self.ready.insert(position);
            }
            State::Leased { until, .. } => {
                self.leased += 1;
                if until != UNTIMED {
                    self.due.insert((until, position));
                }
            }
            State::Delayed { until } => {
                self.delayed += 1;
                self.due.insert((until, position));
            }
        }
    }
}

#[cfg(test)]
mod tests;
