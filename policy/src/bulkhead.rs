//! A bulkhead: a bound on requests in progress at a time, so that one caller's flood does not sink the rest. What the one
//! too many is told, is left to the caller (503 with `Retry-After`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts requests in progress. A clone is the same bulkhead.
#[derive(Debug, Clone)]
pub struct Bulkhead {
    concurrent_max: u32,
    /// Held by the bulkhead's clones and its permits; each permit gives its place back when it is dropped.
    in_progress: Arc<AtomicU32>,
}

/// A place in a bulkhead, given back when dropped: keep it until the last byte of the answer.
#[derive(Debug)]
#[must_use = "a dropped permit gives its place back at once"]
pub struct Permit {
    in_progress: Arc<AtomicU32>,
}

impl Bulkhead {
    /// A bulkhead for that many requests at a time; 0 refuses all.
    #[must_use]
    pub fn new(concurrent_max: u32) -> Self {
        Self { concurrent_max, in_progress: Arc::default() }
    }

    /// Takes a place, or answers `None` when all are taken.
    #[must_use]
    pub fn admit(&self) -> Option<Permit> {
        let one_more = |now: u32| (now < self.concurrent_max).then_some(now + 1);
        // Relaxed: the count guards no other memory.
        self.in_progress.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Permit { in_progress: Arc::clone(&self.in_progress) })
    }

    /// The same places under another bound, for a new snapshot: permits that are out stay counted.
    #[must_use]
    pub fn resized(&self, concurrent_max: u32) -> Self {
        Self { concurrent_max, in_progress: Arc::clone(&self.in_progress) }
    }

    /// Places taken.
    #[must_use]
    pub fn in_progress(&self) -> u32 {
        self.in_progress.load(Ordering::Relaxed)
    }

    /// Places there are.
    #[must_use]
    pub const fn concurrent_max(&self) -> u32 {
        self.concurrent_max
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_place_comes_back_and_a_new_bound_counts_who_is_in() {
        let bulkhead = Bulkhead::new(2);
        let (first, second) = (bulkhead.admit().unwrap(), bulkhead.clone().admit().unwrap());
        assert!(bulkhead.admit().is_none());
        let smaller = bulkhead.resized(1);
        drop(first);
        assert!(smaller.admit().is_none());
        drop(second);
        assert!(smaller.admit().is_some());
        assert_eq!(bulkhead.in_progress(), 0);
        assert!(Bulkhead::new(0).admit().is_none());
    }

    proptest! {
        #[test]
        fn never_more_in_progress_than_the_bound(bound in 0u32..6, steps in prop::collection::vec(any::<bool>(), 0..60)) {
            let bulkhead = Bulkhead::new(bound);
            let mut held = Vec::new();
            for enter in steps {
                if enter { held.extend(bulkhead.admit()); } else { held.pop(); }
                prop_assert!(held.len() <= bound as usize);
                prop_assert_eq!(bulkhead.in_progress() as usize, held.len());
            }
        }
    }
}
