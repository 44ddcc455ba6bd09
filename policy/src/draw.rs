//! Turns a random `u64` into what a verdict needs. Where the number comes from is left to the caller's seeded generator.

use std::time::Duration;

/// A share in `0.0 ..< 1.0`, from the upper 53 bits, which is all that an `f64` holds.
#[must_use]
pub fn share(random: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
    let numerator = (random >> 11) as f64;
    numerator / (1u64 << 53) as f64
}

/// An index below `bound`, by multiplication instead of division (Lemire, "Fast Random Integer Generation in an Interval",
/// 2019, without its rejection step: the bias is below `bound / 2^32`). `bound` 0 answers 0.
#[must_use]
pub const fn index(random: u32, bound: u32) -> u32 {
    ((random as u64 * bound as u64) >> 32) as u32
}

/// A duration from `shortest` to `longest`; `shortest` when they are the wrong way round.
#[must_use]
pub fn between(random: u64, shortest: Duration, longest: Duration) -> Duration {
    shortest + longest.saturating_sub(shortest).mul_f64(share(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_reach_their_ends_and_stay_inside() {
        assert_eq!(share(0), 0.0);
        assert!(share(u64::MAX) < 1.0);
        assert_eq!(index(0, 7), 0);
        assert_eq!(index(u32::MAX, 7), 6);
        assert_eq!(index(u32::MAX, 0), 0);
        let (shortest, longest) = (Duration::from_millis(10), Duration::from_millis(20));
        assert_eq!(between(0, shortest, longest), shortest);
        assert!(between(u64::MAX, shortest, longest) <= longest);
        assert_eq!(between(u64::MAX, longest, shortest), longest);
    }
}
