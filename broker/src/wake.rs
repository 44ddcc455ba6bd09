//! Telling those who take from a group that there may be something for them: once for each batch and not for each message, and after
//! the books are free again, or whoever is notified would wait for them at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// How those are told who take from one group.
#[derive(Debug, Default)]
pub struct Wake {
    /// What they wait for.
    pub notify: Notify,
    /// Whether it is noted already.
    is_noted: AtomicBool,
}

/// The groups whose takers are to be notified.
#[derive(Debug, Default)]
#[must_use = "whoever waits is notified by `notify` only"]
pub struct ToNotify(Vec<Arc<Wake>>);

impl ToNotify {
    /// Notes that a group has something new.
    pub fn note(&mut self, wake: &Arc<Wake>) {
        if !wake.is_noted.swap(true, Ordering::Relaxed) {
            self.0.push(wake.clone());
        }
    }

    /// Notifies them; to be called when the books are free.
    pub fn notify(self) {
        for wake in self.0 {
            // What is noted from here on is notified anew.
            wake.is_noted.store(false, Ordering::Relaxed);
            wake.notify.notify_waiters();
        }
    }
}
