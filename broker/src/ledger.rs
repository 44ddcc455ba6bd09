//! What the committer, the timers and the edges share: the books with their clock, what was written lately, and how the engine is.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::books::Books;
use crate::cache::Cache;
use crate::engine::{Capabilities, Engine, Usage};
use crate::metrics::EngineMetrics;
use crate::moment::Clock;

/// The shared state. Lock order: `books`, then `cache`; the others alone.
#[derive(Debug)]
pub struct Ledger {
    /// The books. Held for moments, never while something is waited for.
    pub books: Mutex<Books>,
    /// What was written lately.
    pub cache: Mutex<Cache>,
    /// Time.
    pub clock: Clock,
    /// Told when a delay or a lease may end sooner than the timer thinks.
    pub timer: Notify,
    /// What is measured of the engine.
    pub metrics: EngineMetrics,
    /// What the engine can do.
    pub capabilities: Capabilities,
    engine: Mutex<EngineState>,
    /// Told when the engine has failed.
    failed: Notify,
}

/// How the engine is.
#[derive(Debug, Clone, Default)]
pub struct EngineState {
    /// Why it takes nothing any more.
    pub failure: Option<String>,
    /// What it holds.
    pub usage: Usage,
}

impl Ledger {
    /// The ledger of an engine and the books that were read from it.
    #[must_use]
    pub fn new(books: Books, clock: Clock, engine: &dyn Engine, metrics: EngineMetrics) -> Self {
        Self {
            books: Mutex::new(books),
            cache: Mutex::default(),
            clock,
            timer: Notify::new(),
            metrics,
            capabilities: engine.capabilities(),
            engine: Mutex::new(EngineState { failure: None, usage: engine.usage() }),
            failed: Notify::new(),
        }
    }

    /// Why the engine takes nothing any more; `None` while it is well.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        lock(&self.engine).failure.clone()
    }

    /// How the engine is.
    #[must_use]
    pub fn engine(&self) -> EngineState {
        lock(&self.engine).clone()
    }

    /// Notes that the engine has failed for good, and tells everybody who waits for messages.
    pub fn fail(&self, why: String) {
        lock(&self.engine).failure = Some(why);
        self.failed.notify_waiters();
        lock(&self.books).wake_all();
    }

    /// Whether the engine gets no more room.
    #[must_use]
    pub fn is_short_of_room(&self) -> bool {
        lock(&self.engine).usage.bytes_left.is_some()
    }

    /// Waits until the engine has failed, and says why.
    pub async fn failed(&self) -> String {
        loop {
            let failed = self.failed.notified();
            tokio::pin!(failed);
            // Before the look, or a failure between the look and the wait would be missed.
            failed.as_mut().enable();
            if let Some(why) = self.failure() {
                return why;
            }
            failed.await;
        }
    }

    /// Notes what the engine holds.
    pub fn note_usage(&self, usage: Usage) {
        lock(&self.engine).usage = usage;
    }
}

/// Takes a lock. A panic while it was held has ended one task only, and the books are changed in steps that each leave them whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
