//! What a running mesh tells whoever started it.

mod queue;

use model::name::Name;
use serde::Serialize;

pub use queue::{Events, Listener, channel};

/// Something happened to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// It wrote a line.
    Line {
        /// Who.
        instance: Name,
        /// The line, without its end.
        text: String,
    },
    /// It is in another state now.
    State {
        /// Who.
        instance: Name,
        /// The state.
        #[serde(flatten)]
        state: State,
    },
    /// Something happened to the mesh as a whole: its file was read, a revision came, an instance is to be replaced.
    Mesh {
        /// What, in one or more lines for people.
        text: String,
    },
    /// Here stood more than whoever reads the events took in time.
    Dropped {
        /// How many events.
        events: u64,
    },
}

/// How an instance stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// It was not started yet.
    Waiting,
    /// Its process runs; it cannot carry traffic yet.
    Starting,
    /// It carries traffic.
    Ready,
    /// It ended by itself and will be started again.
    Restarting {
        /// How it ended.
        why: String,
        /// In how many milliseconds.
        after_ms: u64,
    },
    /// It was killed on purpose.
    Killed,
    /// It was told to end.
    Stopping,
    /// It ended because it was told to.
    Stopped,
    /// It never came up.
    Failed {
        /// How.
        why: String,
    },
}

impl State {
    /// One word for a table.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Restarting { .. } => "restarting",
            Self::Killed => "killed",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed { .. } => "failed",
        }
    }

    /// Nothing more will come of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Stopped | Self::Failed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object() {
        let instance = Name::new("orders-0").unwrap();
        let state = State::Restarting { why: "exit code 1".to_owned(), after_ms: 200 };
        let text = serde_json::to_string(&Event::State { instance, state }).unwrap();
        assert_eq!(
            text,
            r#"{"event":"state","instance":"orders-0","state":"restarting","why":"exit code 1","after_ms":200}"#
        );
        assert_eq!(serde_json::to_string(&Event::Dropped { events: 3 }).unwrap(), r#"{"event":"dropped","events":3}"#);
    }
}
