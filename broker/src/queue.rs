//! A queue: messages that each go to one consumer.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::config;
use model::identity::Subject;
use model::name::Name;

use crate::dedup::Window;
use crate::deliveries::Deliveries;
use crate::wake::Wake;

/// How many messages of a queue may be leased at a time; what is ready beyond that is blocked, and the status says so.
pub const LEASED_MAX: usize = 10_000;

/// A queue.
#[derive(Debug, Default)]
pub struct Queue {
    /// Its settings; `None` for one that is no longer declared, whose messages stay.
    pub config: Option<config::Queue>,
    /// Its delivery.
    pub served: Served,
    /// What it has accepted lately.
    pub window: Window,
    /// Accepted into the batch that is being written.
    pub pending: u64,
    /// How many messages it has accepted, by publisher.
    pub published: BTreeMap<Subject, u64>,
    /// How many were answered as duplicates.
    pub duplicates: u64,
}

/// Messages in delivery, who waits for them, and what was done.
#[derive(Debug, Default)]
pub struct Served {
    /// The messages.
    pub deliveries: Deliveries,
    /// Told when there is something to take, or when something else has changed for those who take.
    pub wake: Arc<Wake>,
    /// What was done.
    pub tally: Tally,
    /// Whether the logs have said last that its dead letters block it.
    pub is_said_blocked: bool,
}

/// What was done since the oldest record in the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Attempts, by consumer.
    pub delivered: BTreeMap<Name, u64>,
    /// Of these, all but the first of each message.
    pub redelivered: u64,
    /// Messages that were acknowledged.
    pub settled: u64,
    /// Messages that went to the dead letters.
    pub dead: u64,
}

impl Tally {
    /// Notes attempts.
    pub fn assigned(&mut self, consumer: &Name, attempts: impl Iterator<Item = u32>) {
        let mut count = 0;
        for assigned in attempts {
            count += 1;
            self.redelivered += u64::from(assigned > 1);
        }
        if count > 0 {
            add(&mut self.delivered, consumer, count);
        }
    }
}

impl Queue {
    /// Messages that are neither settled nor dead, with those that are being written.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.served.deliveries.messages().len() as u64 + self.pending
    }

    /// Whether messages are ready that nobody gets, since too many are leased.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        let counts = self.served.deliveries.counts();
        counts.ready > 0 && counts.leased >= LEASED_MAX
    }
}

/// Adds to a counter of a map; the key is cloned only when it is new.
pub fn add<K: Ord + Clone>(counters: &mut BTreeMap<K, u64>, key: &K, count: u64) {
    match counters.get_mut(key) {
        Some(counter) => *counter += count,
        None => {
            counters.insert(key.clone(), count);
        }
    }
}

/// As `entry().or_default()`, without a clone of the name where it is there.
pub fn entry<'a, T: Default>(map: &'a mut BTreeMap<Name, T>, name: &Name) -> &'a mut T {
    if !map.contains_key(name) {
        map.insert(name.clone(), T::default());
    }
    match map.get_mut(name) {
        Some(found) => found,
        None => unreachable!("it was put there a line above"),
    }
}
