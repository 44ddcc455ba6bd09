//! How long to wait before the next attempt: exponential with jitter, so that a thousand roles do not come back at once.

use std::time::Duration;

/// The wait before the next attempt.
#[derive(Debug)]
pub(super) struct Backoff {
    rng: fastrand::Rng,
    initial: Duration,
    max: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Waits of up to `initial` at first and never above `max`.
    pub(super) fn new(initial: Duration, max: Duration) -> Self {
        Self { rng: fastrand::Rng::with_seed(runtime::random::seed()), initial, max, ceiling: initial }
    }

    /// How long to wait now: from half of the ceiling to all of it, and the ceiling doubles.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.ceiling.mul_f64(0.5 + self.rng.f64() / 2.0);
        self.ceiling = (self.ceiling * 2).min(self.max);
        wait
    }

    /// An attempt succeeded.
    pub(super) fn reset(&mut self) {
        self.ceiling = self.initial;
    }

    /// A number from 0 to 1, for other jitter.
    pub(super) fn jitter(&mut self) -> f64 {
        self.rng.f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(200));
        for ceiling in [50, 100, 200, 200] {
            let wait = backoff.next();
            assert!(wait >= Duration::from_millis(ceiling / 2) && wait <= Duration::from_millis(ceiling), "{wait:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(50));
    }
}
