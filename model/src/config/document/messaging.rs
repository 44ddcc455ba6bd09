//! Queues, topics, what consumes them, and the broker, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Located;
use super::scalar::{AnyText, NameText, PathText, Scalar, Size, Time, Whole, Word};
use crate::config::{Durability, Engine};

/// A day, in milliseconds.
const DAY: u64 = 86_400_000;
/// Ten years, in milliseconds: the longest that anything is kept.
const KEEP_MAX: u64 = 3_650 * DAY;
/// Largest message that a broker can be told to take: 64 MiB.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// A queue or a topic that a service is served from: one of the two.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Consumption {
    /// A queue: its messages are shared among the consumers.
    pub queue: Option<Scalar<NameText>>,
    /// A topic: every message comes to this service, in the order of its key.
    pub topic: Option<Scalar<NameText>>,
    /// The path of the application to which messages are pushed as CloudEvents. Absent: it leases them itself (queues only).
    pub path: Option<Scalar<PathText>>,
    /// Deliveries at a time to the whole service, from 1 to 1,024; of a topic that many keys at a time. Default: 8.
    pub concurrency: Option<Scalar<Whole<1, 1_024>>>,
}

/// A queue: each message goes to one consumer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// How it delivers.
    pub delivery: Option<Located<Delivery>>,
    /// What becomes of messages that could not be delivered.
    pub dead_letter: Option<Located<DeadLetter>>,
    /// Most messages that wait, from 1 to 1,000,000,000. Default: 1,000,000. One more: 429.
    pub messages_max: Option<Scalar<Whole<1, 1_000_000_000>>>,
    /// What a publish waits for: `sync` (on the disk) or `os` (with the operating system). Default: `sync`.
    pub durability: Option<Scalar<Word<Durability>>>,
}

/// A topic: each subscription gets every message.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// The attribute of the event's data that is its key when the event has no `partitionkey`. Absent: no key, no order.
    pub key: Option<Scalar<AnyText>>,
    /// How long events are kept, from 1s to 3650d. Default: 7d.
    pub keep: Option<Scalar<Time<1_000, KEEP_MAX>>>,
    /// How its subscriptions deliver.
    pub delivery: Option<Located<Delivery>>,
    /// What a publish waits for: `sync` (on the disk) or `os` (with the operating system). Default: `sync`.
    pub durability: Option<Scalar<Word<Durability>>>,
}

/// How messages are delivered until they are settled.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Attempts in all before the dead letters, from 1 to 1,000. Default: 20.
    pub attempts: Option<Scalar<Whole<1, 1_000>>>,
    /// The waits between attempts.
    pub backoff: Option<Located<DeliveryBackoff>>,
    /// How long a lease holds before the message is delivered again, from 10ms to 1d. Default: 30s.
    pub ack_timeout: Option<Scalar<Time<10, DAY>>>,
}

/// The waits between attempts; each is twice the one before.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeliveryBackoff {
    /// Before the second attempt, from 1ms to 1d. Default: 200ms.
    pub initial: Option<Scalar<Time<1, DAY>>>,
    /// The longest, from 1ms to 1d; not less than `initial`. Default: 1m.
    pub max: Option<Scalar<Time<1, DAY>>>,
}

/// What becomes of messages that could not be delivered.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadLetter {
    /// How long they are kept, from 1s to 3650d. Default: 14d.
    pub keep: Option<Scalar<Time<1_000, KEEP_MAX>>>,
}

/// The broker's own settings.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// Where messages are kept: `embedded`, the broker's own log on its own disk. Default: `embedded`.
    pub engine: Option<Scalar<Word<Engine>>>,
    /// Largest message, from 1KiB to 64MiB. Default: 1MiB. A longer one: 413.
    pub message_max: Option<Scalar<Size<1_024, MESSAGE_BYTES_MAX>>>,
}
