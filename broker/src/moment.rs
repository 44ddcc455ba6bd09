//! Time as the state machines are told it: monotonic for waits, wall time for what is written down.

use std::time::Duration;

use policy::schedule::ASKED_WAIT_MAX;

/// Now. What waits is compared by `tick_ms`, so that a jump of the wall clock fires nothing; what must outlive the process is
/// written as wall time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Monotonic, in milliseconds since the broker was started.
    pub tick_ms: u64,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
}

/// Where moments come from.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: tokio::time::Instant,
    /// The wall time at the start, in milliseconds.
    start_wall_ms: u64,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now(), start_wall_ms: runtime::clock::wall_ms() }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment { tick_ms: millis(self.start.elapsed()), wall_ms: runtime::clock::wall_ms() }
    }

    /// Now, for dropping what is old: its wall time has moved on since the start by no more than time has passed. So a wall clock that jumps
    /// ahead drops nothing early, as one that is corrected backwards does not either.
    #[must_use]
    pub fn now_for_age(&self) -> Moment {
        let now = self.now();
        Moment { wall_ms: now.wall_ms.min(self.start_wall_ms.saturating_add(now.tick_ms)), ..now }
    }

    /// The instant of a tick.
    #[must_use]
    pub fn instant(&self, tick_ms: u64) -> tokio::time::Instant {
        self.start + Duration::from_millis(tick_ms)
    }
}

impl Moment {
    /// The tick at which the wall clock will say `wall_ms`; now, where it has said so already. It is never further away than the longest
    /// wait there is: a clock that was set back before a start would otherwise hold messages for as long as it was set back.
    #[must_use]
    pub fn tick_of(self, wall_ms: u64) -> u64 {
        self.tick_ms.saturating_add(wall_ms.saturating_sub(self.wall_ms).min(millis(ASKED_WAIT_MAX)))
    }

    /// What the wall clock will say at `tick_ms`.
    #[must_use]
    pub const fn wall_of(self, tick_ms: u64) -> u64 {
        self.wall_ms.saturating_add(tick_ms.saturating_sub(self.tick_ms))
    }
}

/// A duration in whole milliseconds; one that is too long is the longest.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_holds_nothing_for_long() {
        let now = Moment { tick_ms: 5, wall_ms: 1_000 };
        for (wall_ms, tick_ms) in [(0, 5), (1_000, 5), (1_700, 705), (u64::MAX, 5 + millis(ASKED_WAIT_MAX))] {
            assert_eq!(now.tick_of(wall_ms), tick_ms, "{wall_ms}");
        }
    }

    #[test]
    fn a_clock_that_jumps_ahead_makes_nothing_older() {
        let ahead = Clock { start_wall_ms: 1_000, ..Clock::start() };
        assert!(ahead.now_for_age().wall_ms < 1_000 + 60_000, "wall time is half a century further");
        let behind = Clock { start_wall_ms: u64::MAX, ..Clock::start() };
        let (now, wall_ms) = (behind.now_for_age().wall_ms, runtime::clock::wall_ms());
        assert!(
            now <= wall_ms && now > wall_ms - 60_000,
            "one that was set back says what it says: {now}, not {wall_ms}"
        );
    }
}
