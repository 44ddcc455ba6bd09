//! The retry budget of a service: retries may add a share of the requests of the last ten seconds, and a small floor, and no
//! more; so that retries cannot multiply an outage (Linkerd's retry budget; Gateway API GEP-3388). One budget for each
//! service, over all of its routes; each retry of a request counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Tick;

/// How far back requests and retries are counted.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Retries that are always allowed, a second, so that a quiet service can retry at all.
pub const FLOOR_PER_SECOND: u32 = 10;

const BUCKETS: usize = 10;
const BUCKET_NANOS: u64 = WINDOW.as_nanos() as u64 / BUCKETS as u64;
/// What the floor gives over the whole window.
const FLOOR: f64 = (FLOOR_PER_SECOND as u64 * WINDOW.as_secs()) as f64;

/// Counts requests and their retries over a sliding window. A clone is the same budget.
///
/// Each call costs a few atomic operations, a withdrawal a read of ten buckets. Lanes that share one may, when they race at
/// the turn of a bucket, lose a handful of counts; one lane alone counts exactly.
#[derive(Debug, Clone)]
pub struct Budget {
    buckets: Arc<[Bucket; BUCKETS]>,
}

/// One tenth of the window.
#[derive(Debug, Default)]
struct Bucket {
    /// Which tenth since the origin of time, from 1; 0: never used.
    turn: AtomicU64,
    requests: AtomicU64,
    retries: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

impl Budget {
    /// A budget that has counted nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { buckets: Arc::default() }
    }

    /// Counts an original request (not its retries).
    pub fn deposit(&self, now: Tick) {
        self.bucket(now).requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one retry when the window's retries would stay within `share` of its requests plus the floor.
    #[must_use = "a retry without a withdrawal is outside of the budget"]
    pub fn withdraw(&self, share: f64, now: Tick) -> bool {
        let current = self.bucket(now);
        let (requests, retries) = self.sums(now);
        #[expect(clippy::cast_precision_loss, reason = "counts of ten seconds are far below 2^53")]
        let within = (retries + 1) as f64 <= share.mul_add(requests as f64, FLOOR);
        if within {
            current.retries.fetch_add(1, Ordering::Relaxed);
        }
        within
    }

    /// Requests and retries of the window, in this order; for metrics.
    #[must_use]
    pub fn sums(&self, now: Tick) -> (u64, u64) {
        let turn = turn(now);
        let live = self.buckets.iter().filter(|bucket| bucket.turn.load(Ordering::Acquire) + (BUCKETS as u64) > turn);
        live.fold((0, 0), |(requests, retries), bucket| {
            (requests + bucket.requests.load(Ordering::Relaxed), retries + bucket.retries.load(Ordering::Relaxed))
        })
    }

    /// The bucket of this moment, emptied when it still holds an older one.
    fn bucket(&self, now: Tick) -> &Bucket {
        let turn = turn(now);
        let bucket = &self.buckets[(turn % BUCKETS as u64) as usize];
        let seen = bucket.turn.load(Ordering::Acquire);
        // Only ever forward: a lane whose clock reads a little older counts into what is there.
        if seen < turn && bucket.turn.compare_exchange(seen, turn, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            bucket.requests.store(0, Ordering::Relaxed);
            bucket.retries.store(0, Ordering::Relaxed);
        }
        bucket
    }
}

const fn turn(now: Tick) -> u64 {
    now.as_nanos() / BUCKET_NANOS + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Tick {
        Tick::since_origin(Duration::from_millis(millis))
    }

    fn drain(budget: &Budget, share: f64, now: Tick) -> u32 {
        std::iter::repeat_with(|| budget.withdraw(share, now)).take(10_000).take_while(|granted| *granted).count()
            as u32
    }

    #[test]
    fn a_quiet_service_has_the_floor_and_a_busy_one_its_share_on_top() {
        let budget = Budget::new();
        assert_eq!(drain(&budget, 0.2, at(0)), 100);
        let budget = Budget::new();
        for _ in 0..1_000 {
            budget.deposit(at(0));
        }
        assert_eq!(drain(&budget, 0.2, at(9_999)), 300);
        // The window has left the requests behind, and the retries of its last tenth have not.
        assert_eq!(drain(&budget, 0.2, at(10_000)), 0);
        assert_eq!(drain(&budget, 0.2, at(20_000)), 100);
    }

    #[test]
    fn a_share_of_0_leaves_the_floor() {
        let budget = Budget::new();
        for _ in 0..1_000 {
            budget.deposit(at(0));
        }
        assert_eq!(drain(&budget, 0.0, at(0)), 100);
    }

    #[test]
    fn long_silence_empties_the_window() {
        let budget = Budget::new();
        budget.deposit(at(0));
        assert!(budget.withdraw(0.2, at(0)));
        assert_eq!(budget.sums(at(0)), (1, 1));
        assert_eq!(budget.sums(at(3_600_000)), (0, 0));
    }

    proptest! {
        /// In every window of ten seconds that begins with a bucket, retries stay within share and floor.
        #[test]
        fn retries_never_exceed_share_and_floor(seed: u64, share in 0.0f64..1.0) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let budget = Budget::new();
            let (mut now, mut log) = (0u64, Vec::new());
            for _ in 0..800 {
                now += rng.u64(0..80);
                if rng.bool() {
                    budget.deposit(at(now));
                    log.push((now, false));
                } else if budget.withdraw(share, at(now)) {
                    log.push((now, true));
                    let from = (now / 1_000 + 1).saturating_sub(10) * 1_000;
                    let count = |kind| log.iter().filter(|(when, retry)| *when >= from && *retry == kind).count() as f64;
                    prop_assert!(count(true) <= share * count(false) + FLOOR + 1e-9);
                }
            }
        }
    }
}
