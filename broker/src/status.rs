//! How the broker is: for operators, the dashboard and the demo's report.

use std::collections::BTreeMap;

use model::identity::Subject;
use model::name::Name;
use model::position::Position;
use serde::Serialize;

use crate::deliveries::Counts;
use crate::engine::{Capabilities, Usage};
use crate::ledger::{Ledger, lock};
use crate::queue::{Queue, Served};
use crate::topic::{self, Topic};

/// How the broker is.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The queues, by name.
    pub queues: BTreeMap<Name, QueueStatus>,
    /// The topics, by name.
    pub topics: BTreeMap<Name, TopicStatus>,
    /// The engine.
    pub engine: EngineStatus,
}

/// How a queue is.
#[derive(Debug, Clone, Serialize)]
pub struct QueueStatus {
    /// Whether it is declared now; if not, it keeps what it has.
    pub declared: bool,
    /// Messages by state.
    #[serde(flatten)]
    pub counts: Counts,
    /// Messages are ready that nobody gets, since too many are leased.
    pub blocked_by_in_flight: bool,
    /// Nothing is given out, since there are too many dead letters; that some are redriven or dropped, or the end of their time, ends that.
    pub blocked_by_dead_letters: bool,
    /// Messages accepted, by publisher.
    #[serde(serialize_with = "by_text")]
    pub published: BTreeMap<Subject, u64>,
    /// Publishes that were answered as duplicates.
    pub duplicates: u64,
    /// What was done.
    #[serde(flatten)]
    pub done: Done,
}

/// What a group has done. As far as the log reaches back it survives a restart.
#[derive(Debug, Clone, Serialize)]
pub struct Done {
    /// Attempts, by consumer.
    pub delivered: BTreeMap<Name, u64>,
    /// Of these, those beyond the first of their message.
    pub redelivered: u64,
    /// Messages acknowledged.
    pub settled: u64,
    /// Messages that went to the dead letters.
    pub died: u64,
}

/// How a topic is.
#[derive(Debug, Clone, Serialize)]
pub struct TopicStatus {
    /// Whether it is declared now; if not, it keeps what it has.
    pub declared: bool,
    /// Events that are kept.
    pub events: usize,
    /// The position behind the newest.
    pub end: Position,
    /// Events accepted, by publisher.
    #[serde(serialize_with = "by_text")]
    pub published: BTreeMap<Subject, u64>,
    /// Publishes that were answered as duplicates.
    pub duplicates: u64,
    /// Its subscriptions.
    pub subscriptions: BTreeMap<Name, SubscriptionStatus>,
}

/// How a subscription is.
#[derive(Debug, Clone, Serialize)]
pub struct SubscriptionStatus {
    /// Everything before it is settled.
    pub position: Position,
    /// Events that are not settled.
    pub lag: u64,
    /// Of these, those that somebody has just now.
    pub in_flight: usize,
    /// Messages by state, of those that it has looked at.
    #[serde(flatten)]
    pub counts: Counts,
    /// It looks at no more events, since too many are unsettled.
    pub blocked_by_in_flight: bool,
    /// Nothing is given out, since there are too many dead letters; that some are redriven or dropped, or the end of their time, ends that.
    pub blocked_by_dead_letters: bool,
    /// It stands still.
    pub paused: bool,
    /// Events that the topic has dropped before they were settled here.
    pub missed: u64,
    /// What was done.
    #[serde(flatten)]
    pub done: Done,
}

/// How the engine is.
#[derive(Debug, Clone, Serialize)]
pub struct EngineStatus {
    /// What it can do.
    pub capabilities: Capabilities,
    /// Whether it takes anything.
    pub healthy: bool,
    /// Why not.
    pub failure: Option<String>,
    /// What it holds.
    #[serde(flatten)]
    pub usage: Usage,
    /// How long the last commit took, in microseconds.
    pub last_commit_us: u64,
}

impl Status {
    /// How everything is.
    #[must_use]
    pub fn of(ledger: &Ledger) -> Self {
        let (queues, topics) = {
            let books = lock(&ledger.books);
            (
                books.queues.iter().map(|(name, queue)| (name.clone(), QueueStatus::of(queue))).collect(),
                books.topics.iter().map(|(name, topic)| (name.clone(), TopicStatus::of(topic))).collect(),
            )
        };
        let engine = ledger.engine();
        let engine = EngineStatus {
            capabilities: ledger.capabilities,
            healthy: engine.failure.is_none(),
            failure: engine.failure,
            usage: engine.usage,
            last_commit_us: ledger.metrics.last_commit_us(),
        };
        Self { queues, topics, engine }
    }
}

impl QueueStatus {
    /// How one queue is.
    #[must_use]
    pub fn of(queue: &Queue) -> Self {
        Self {
            declared: queue.config.is_some(),
            counts: queue.served.deliveries.counts(),
            blocked_by_in_flight: queue.is_blocked(),
            blocked_by_dead_letters: queue.served.deliveries.is_full_of_dead(),
            published: queue.published.clone(),
            duplicates: queue.duplicates,
            done: Done::of(&queue.served),
        }
    }
}

impl TopicStatus {
    /// How one topic is.
    #[must_use]
    pub fn of(topic: &Topic) -> Self {
        let subscriptions = topic.subscriptions.iter();
        Self {
            declared: topic.config.is_some(),
            events: topic.events().len(),
            end: topic.end(),
            published: topic.published.clone(),
            duplicates: topic.duplicates,
            subscriptions: subscriptions
                .map(|(name, subscription)| (name.clone(), SubscriptionStatus::of(topic, subscription)))
                .collect(),
        }
    }
}

impl SubscriptionStatus {
    /// How one subscription is.
    #[must_use]
    pub fn of(topic: &Topic, subscription: &topic::Subscription) -> Self {
        let counts = subscription.served.deliveries.counts();
        Self {
            position: topic.position(subscription),
            lag: topic.lag(subscription),
            in_flight: counts.leased,
            counts,
            blocked_by_in_flight: subscription.is_blocked(),
            blocked_by_dead_letters: subscription.served.deliveries.is_full_of_dead(),
            paused: subscription.paused,
            missed: subscription.missed,
            done: Done::of(&subscription.served),
        }
    }
}

impl Done {
    fn of(served: &Served) -> Self {
        let tally = served.tally.clone();
        Self { delivered: tally.delivered, redelivered: tally.redelivered, settled: tally.settled, died: tally.dead }
    }
}

/// A subject is a key by its text: `service/orders`.
fn by_text<S: serde::Serializer>(counts: &BTreeMap<Subject, u64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counts.iter().map(|(subject, count)| (subject.to_string(), count)))
}
