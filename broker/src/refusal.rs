//! Why the broker does not do what it was asked. How a refusal stands in HTTP or gRPC is left to [`crate::serve`].

use std::time::Duration;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request is wrong in itself; asking again does not help.
    #[error("{0}")]
    Invalid(String),
    /// The resource is there and does not take the method.
    #[error("{0}")]
    Method(String),
    /// Who asks has proven no identity.
    #[error("the caller has proven no identity; reach the broker through a sidecar")]
    Anonymous,
    /// The declared graph does not know the name, or has no edge.
    #[error("{0}")]
    Unauthorized(#[from] policy::authorize::Refusal),
    /// The subscription or its dead letters are another service's.
    #[error("{by} has no part in the subscription {name}: a subscription is its service's own")]
    NotYours {
        /// Who asks.
        by: model::identity::Subject,
        /// The subscription.
        name: String,
    },
    /// There is no such thing, beyond what the declared graph says.
    #[error("{0}")]
    Absent(String),
    /// The message is too large.
    #[error("a message of {bytes} bytes is larger than the {bytes_max} bytes that `broker.message_max` allows")]
    Large {
        /// Its size.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// A body is too large to be read to its end.
    #[error("the body is longer than {bytes_max} bytes, which is all that {what}")]
    Body {
        /// What may take no more, and by which setting.
        what: &'static str,
        /// The bound.
        bytes_max: u64,
    },
    /// Another message was accepted under the same identity.
    #[error("another message was accepted with this source and id; a new message needs an id of its own")]
    Conflict,
    /// The queue, or topic, holds as many messages that are not settled as it may.
    #[error("it holds {messages_max} messages that are not settled, which is all that it may")]
    Depth {
        /// The bound.
        messages_max: u64,
    },
    /// The lease does not count any more.
    #[error(
        "the lease is over: its message was settled or given back, its time has run out, or somebody else has got the message since"
    )]
    LeaseOver,
    /// The group has as many dead letters as it may, and so gives nothing out.
    #[error(
        "{group} has {dead} dead letters, which is all that it may, and gives nothing out until some are gone: look at them \
         (GET …/dead-letters), then put them back (POST …/redrives) or drop them (DELETE …/dead-letters)"
    )]
    DeadLetters {
        /// Whose.
        group: crate::record::Group,
        /// How many.
        dead: usize,
    },
    /// Dead letters are being put back already; the text says how far that is.
    #[error("its dead letters are being put back already: {0}; wait for its end, or cancel it")]
    Redriving(String),
    /// The broker has not been told its part of the mesh yet.
    #[error("the broker has no configuration yet")]
    NotConfigured,
    /// The engine has no room.
    #[error("the broker's disk is full: {0}")]
    NoRoom(String),
    /// The engine has failed; the broker must be started again.
    #[error("the broker's engine has failed and takes nothing: {0}")]
    Engine(String),
    /// The broker is ending.
    #[error("the broker is ending")]
    Ending,
}

impl Refusal {
    /// When it may help to ask again; `None` where it does not.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Depth { .. } | Self::NotConfigured | Self::Ending => Some(Duration::from_secs(1)),
            Self::NoRoom(_) | Self::DeadLetters { .. } => Some(Duration::from_secs(5)),
            _ => None,
        }
    }
}
