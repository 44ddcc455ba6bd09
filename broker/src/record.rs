//! What the broker writes into its engine: each record says one thing that has happened to messages. Replayed in order they
//! give the state again.
//!
//! Every record says how things are, not by how much they have changed, so that applying one twice, or one about a message that
//! is gone already, does no harm. What a record does to the state is left to [`crate::books`].

mod read;
mod write;

use model::identity::Subject;
use model::name::Name;
use model::position::Position;
use policy::schedule::Attempts;

pub(crate) use read::Cursor;
pub use read::Error;
pub use write::published;
pub(crate) use write::{put_attempts, put_identity, put_number, put_option, put_subject, put_text};

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A message was accepted; its event stands behind it in the same record.
    Published(Published),
    /// A message that was accepted earlier stands here again, since its first place is being trimmed; its event stands behind it.
    Carried {
        /// Its position, which stays.
        position: Position,
        /// As it was accepted.
        published: Published,
    },
    /// Somebody got messages; the counts are those with this assignment.
    Assigned {
        /// Whose.
        group: Group,
        /// The service that got them.
        consumer: Name,
        /// What tells this assignment from every other; 0 where an earlier version wrote it, which had none.
        fence: u64,
        /// Which, and how often they were tried.
        messages: Vec<(Position, Attempts)>,
    },
    /// Messages are done.
    Settled {
        /// Whose.
        group: Group,
        /// Which.
        positions: Vec<Position>,
    },
    /// An attempt has ended and the message waits for the next.
    Again {
        /// Whose.
        group: Group,
        /// Which.
        position: Position,
        /// With this attempt.
        attempts: Attempts,
        /// When it may be delivered, as wall time in milliseconds.
        due_ms: u64,
    },
    /// A message was moved to the dead letters, which ends its delivery: one record for both, so that no crash comes between.
    Dead {
        /// Whose.
        group: Group,
        /// Which.
        position: Position,
        /// How often it was tried.
        attempts: Attempts,
        /// Why.
        reason: String,
        /// When, as wall time in milliseconds.
        died_ms: u64,
    },
    /// Dead letters were put back, their attempts at zero.
    Redriven {
        /// Whose.
        group: Group,
        /// Which.
        positions: Vec<Position>,
    },
    /// Dead letters were dropped: they were kept for as long as their destination asks, or an operator wants them no more.
    Forgotten {
        /// Whose.
        group: Group,
        /// Which.
        positions: Vec<Position>,
    },
    /// A subscription was made; it begins here.
    Subscribed {
        /// To what.
        topic: Name,
        /// Its name: the consuming service's.
        name: Name,
        /// It gets every event from this position on.
        from: Position,
    },
    /// A subscription was moved.
    Sought {
        /// To what.
        topic: Name,
        /// Its name.
        name: Name,
        /// It gets every event from this position on.
        to: Position,
    },
    /// A subscription was paused, or goes on.
    Paused {
        /// To what.
        topic: Name,
        /// Its name.
        name: Name,
        /// Whether it stands still.
        paused: bool,
    },
    /// A part of everything that the records before it say; with the last part, they are needed no more.
    Checkpoint {
        /// From 0.
        part: u32,
        /// Whether it is the last.
        last: bool,
        /// The part.
        bytes: Vec<u8>,
    },
}

/// An accepted message, but for its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Where it was published.
    pub destination: Destination,
    /// Who published it.
    pub publisher: Subject,
    /// When, as wall time in milliseconds.
    pub published_ms: u64,
    /// It is not delivered from then on (`expirytime`), as wall time in milliseconds.
    pub expires_ms: Option<u64>,
    /// What orders it among its like: its key, hashed.
    pub key: Option<u64>,
    /// What tells it from others; `None` where the broker chose its id.
    pub identity: Option<Identity>,
}

/// What tells a message from others, and whether two of the same identity are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// A hash of `source` and `id`.
    pub id: u128,
    /// A checksum of type, subject and data.
    pub check: u32,
}

/// Where messages are published.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// To a queue.
    Queue(Name),
    /// To a topic.
    Topic(Name),
}

/// Whose delivery it is: a queue's, or that of one subscription to a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// A queue's.
    Queue(Name),
    /// A subscription's.
    Subscription {
        /// To what.
        topic: Name,
        /// Its name: the consuming service's.
        name: Name,
    },
}

impl Record {
    /// Whose messages it speaks of; `None` where it speaks of no group.
    #[must_use]
    pub const fn group(&self) -> Option<&Group> {
        match self {
            Self::Assigned { group, .. }
            | Self::Settled { group, .. }
            | Self::Again { group, .. }
            | Self::Dead { group, .. }
            | Self::Redriven { group, .. }
            | Self::Forgotten { group, .. } => Some(group),
            _ => None,
        }
    }
}

impl Destination {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        match self {
            Self::Queue(name) | Self::Topic(name) => name,
        }
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Queue(name) => write!(f, "queue {name}"),
            Self::Subscription { topic, name } => write!(f, "subscription {name} to topic {topic}"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
