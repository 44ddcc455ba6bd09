//! What happened in a run, as the applications and the client saw it. The checkers read it afterwards.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One thing that happened, with the simulated time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Duration,
    /// What.
    pub event: Event,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The client asked for an order.
    Asked {
        /// Which.
        order: String,
    },
    /// The client got an answer.
    Answered {
        /// To which order.
        order: String,
        /// With which status.
        status: u16,
        /// Whether the application made it; otherwise Meshwork did.
        application: bool,
        /// Whether an answer of Meshwork's says who refused and why.
        explained: bool,
    },
    /// The broker acknowledged a message.
    Published {
        /// Its id.
        message: String,
        /// The key it is ordered by; empty in a queue.
        key: String,
        /// Where it stands.
        position: u64,
    },
    /// The client's request, or an application's, was carried out; each has an id of its own and is not idempotent.
    Executed {
        /// Which.
        request: String,
    },
    /// An application was answered by its sidecar in another's stead.
    Refused {
        /// What it had asked for.
        what: String,
        /// With which status.
        status: u16,
        /// Whether it says who refused and why.
        explained: bool,
    },
    /// An application has asked twice for what the first of two routes does, and between for what the second does. Each answer
    /// tells the revision by which it was routed.
    Probed {
        /// By the first route, by the second, and by the first again.
        revisions: [String; 3],
    },
    /// A stream that an application watched is over.
    Streamed {
        /// When it was opened.
        began: Duration,
        /// How it broke; `None` for one that came whole.
        broke: Option<String>,
    },
    /// An application has made a small call while other streams are open and not read.
    Called {
        /// Why it got no answer.
        failed: Option<String>,
    },
    /// A role has ended by itself.
    Ended {
        /// On which host.
        host: &'static str,
        /// Why.
        why: String,
    },
    /// A consumer was handed a message.
    Delivered {
        /// By whom.
        consumer: &'static str,
        /// Its id.
        message: String,
        /// The key it is ordered by.
        key: String,
    },
    /// A consumer is done with a message and says so.
    Handled {
        /// By whom.
        consumer: &'static str,
        /// Its id.
        message: String,
        /// The key it is ordered by.
        key: String,
    },
}

/// The record of a run; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Vec<Entry>>>);

impl History {
    /// Records what happens now.
    pub fn record(&self, event: Event) {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Entry { at, event });
    }

    /// Whether something like this has happened.
    pub fn has(&self, mut like: impl FnMut(&Event) -> bool) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|entry| like(&entry.event))
    }

    /// Everything so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
