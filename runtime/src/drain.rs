//! Drain: how long-lived parts are asked to end, and how one waits until they have.
//!
//! A part holds a [`Drain`], ends its loop when [`Drain::requested`] resolves, and runs what must be finished inside of
//! [`Drain::spawn`]. The owner calls [`Signal::drain`] and waits, with a bound.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The owner's end.
#[derive(Debug)]
pub struct Signal {
    token: CancellationToken,
    tracker: TaskTracker,
}

/// The part's end; cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain {
    token: CancellationToken,
    tracker: TaskTracker,
}

/// Not everything ended within the bound.
#[derive(Debug, thiserror::Error)]
#[error("{left} tasks were still running after {}", model::unit::write_duration(*.after))]
pub struct Late {
    /// How many.
    pub left: usize,
    /// The bound.
    pub after: Duration,
}

/// Makes both ends.
#[must_use]
pub fn channel() -> (Signal, Drain) {
    let (token, tracker) = (CancellationToken::new(), TaskTracker::new());
    (Signal { token: token.clone(), tracker: tracker.clone() }, Drain { token, tracker })
}

impl Signal {
    /// Asks everything to end and waits for it, at most `bound`.
    ///
    /// # Errors
    /// When tasks were still running at the bound; they go on and are the caller's to abandon.
    pub async fn drain(self, bound: Duration) -> Result<(), Late> {
        self.token.cancel();
        self.tracker.close();
        match tokio::time::timeout(bound, self.tracker.wait()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Late { left: self.tracker.len(), after: bound }),
        }
    }
}

impl Drain {
    /// Resolves when the owner has asked for the end; at once from then on.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Whether the owner has asked for the end.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Runs `task` on the current runtime; the owner waits for it.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Wraps `task` so that the owner waits for it, wherever it is run.
    pub fn track<F: Future>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        self.tracker.track_future(task)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_owner_waits_for_what_is_running() {
        let (signal, drain) = channel();
        let part = drain.clone();
        let task = drain.spawn(async move {
            part.requested().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            7
        });
        let began = Instant::now();
        signal.drain(Duration::from_secs(5)).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 2);
        assert!(task.is_finished());
        assert_eq!(task.await.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_has_a_bound() {
        let (signal, drain) = channel();
        drain.spawn(std::future::pending::<()>());
        let began = Instant::now();
        let drained = tokio::time::timeout(Duration::from_secs(60), signal.drain(Duration::from_secs(5))).await;
        let late = drained.expect("an end").unwrap_err();
        assert_eq!(began.elapsed().as_secs(), 5);
        assert_eq!(late.to_string(), "1 tasks were still running after 5s");
    }
}
