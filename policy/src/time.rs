//! Monotonic time as a number. Who reads the clock chooses the origin; verdicts only compare.

use std::time::Duration;

/// A point in monotonic time: nanoseconds since an origin that all ticks of one process share. Good for 584 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(u64);

impl Tick {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The tick that many nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The tick at that distance from the origin, such as `now - start` of a monotonic clock.
    #[must_use]
    pub fn since_origin(distance: Duration) -> Self {
        Self::ZERO.after(distance)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The tick that much later; the last tick there is when that would pass it.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not, since lanes may read their clocks out of step.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let tick = Tick::since_origin(Duration::from_millis(5));
        assert_eq!(tick.as_nanos(), 5_000_000);
        assert_eq!(tick.after(Duration::from_secs(1)).since(tick), Duration::from_secs(1));
        assert_eq!(Tick::ZERO.since(tick), Duration::ZERO);
        assert_eq!(tick.after(Duration::MAX), Tick::from_nanos(u64::MAX));
    }
}
