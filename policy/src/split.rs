//! Weighted choice among the backends of a route. Which route it is, is decided before; which endpoint, after.

use model::config::Backend;

/// The weights of one route, summed up once for each snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// For each backend the sum of the weights up to and with its own; the last is the total.
    cumulative: Box<[u64]>,
}

impl Split {
    /// Sums up weights. Weights of 0 are never chosen (Gateway API `BackendRef.weight`).
    #[must_use]
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let sums = weights.into_iter().scan(0u64, |sum, weight| {
            *sum += u64::from(weight);
            Some(*sum)
        });
        Self { cumulative: sums.collect() }
    }

    /// Sums up the weights of a route's backends.
    #[must_use]
    pub fn of(backends: &[Backend]) -> Self {
        Self::new(backends.iter().map(|backend| backend.weight))
    }

    /// The index of a backend, each by its share. `None` when no weight is above 0, which a checked route does not have.
    #[must_use]
    pub fn choose(&self, random: u64) -> Option<usize> {
        let total = *self.cumulative.last().filter(|total| **total > 0)?;
        if self.cumulative.len() == 1 {
            return Some(0);
        }
        // A 128-bit product keeps the shares exact for any sum of weights.
        let point = u64::try_from((u128::from(random) * u128::from(total)) >> 64).unwrap_or(total - 1);
        Some(self.cumulative.partition_point(|sum| *sum <= point))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_follow_the_weights() {
        let split = Split::new([95, 0, 5]);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut counts = [0u32; 3];
        for _ in 0..100_000 {
            counts[split.choose(rng.u64(..)).unwrap()] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((94_000..96_000).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn nothing_is_chosen_where_there_is_nothing() {
        assert_eq!(Split::new([]).choose(7), None);
        assert_eq!(Split::new([0, 0]).choose(7), None);
        assert_eq!(Split::new([3]).choose(u64::MAX), Some(0));
    }

    proptest! {
        #[test]
        fn a_backend_of_weight_0_is_never_chosen(weights in prop::collection::vec(0u32..=1_000_000, 1..12), random: u64) {
            match Split::new(weights.iter().copied()).choose(random) {
                Some(chosen) => prop_assert!(weights[chosen] > 0),
                None => prop_assert!(weights.iter().all(|weight| *weight == 0)),
            }
        }
    }
}
