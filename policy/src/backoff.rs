//! Waits that double. What is waited for, and how the jitter is drawn, is left to each verdict.

use std::time::Duration;

/// The `nth` wait, from 0: `first`, doubled each time, never above `longest`.
#[must_use]
pub fn exponential(first: Duration, nth: u32, longest: Duration) -> Duration {
    // Past 2^31 every wait is at its bound anyway.
    first.saturating_mul(1 << nth.min(31)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_doubles_up_to_its_bound() {
        let (first, longest) = (Duration::from_millis(200), Duration::from_secs(60));
        for (nth, millis) in
            [(0, 200), (1, 400), (5, 6_400), (8, 51_200), (9, 60_000), (1_000, 60_000), (u32::MAX, 60_000)]
        {
            assert_eq!(exponential(first, nth, longest), Duration::from_millis(millis), "{nth}");
        }
        assert_eq!(exponential(Duration::MAX, 31, Duration::MAX), Duration::MAX);
        assert_eq!(exponential(longest, 0, first), first);
    }
}
