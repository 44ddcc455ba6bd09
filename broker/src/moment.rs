//! Time as the state machines are told it: monotonic for waits, wall time for what is written down.

use std::time::Duration;

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
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment { tick_ms: millis(self.start.elapsed()), wall_ms: runtime::clock::wall_ms() }
    }

    /// The instant of a tick.
    #[must_use]
    pub fn instant(&self, tick_ms: u64) -> tokio::time::Instant {
        self.start + Duration::from_millis(tick_ms)
    }
}

impl Moment {
    /// The tick at which the wall clock will say `wall_ms`; now, where it has said so already.
    #[must_use]
    pub const fn tick_of(self, wall_ms: u64) -> u64 {
        self.tick_ms.saturating_add(wall_ms.saturating_sub(self.wall_ms))
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
