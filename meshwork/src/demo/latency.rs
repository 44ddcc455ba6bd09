//! Latencies: percentiles of what was measured, in a window or outside of all of them. Where windows lie is left to the faults.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A span of the run, as offsets from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first moment.
    pub from: Duration,
    /// Its last.
    pub to: Duration,
}

impl Window {
    /// Whether something that began and ended at these offsets was under way in the window at any time.
    #[must_use]
    pub fn touches(&self, began: Duration, ended: Duration) -> bool {
        began <= self.to && ended >= self.from
    }
}

/// How long things took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many there were.
    pub count: u64,
    /// Half took at most so many milliseconds.
    pub p50_ms: f64,
    /// All but one in a hundred did.
    pub p99_ms: f64,
    /// All did.
    pub max_ms: f64,
}

impl Latency {
    /// Of these; `None` when there are none.
    #[must_use]
    pub fn of(took: impl IntoIterator<Item = Duration>) -> Option<Self> {
        const SIGNIFICANT_DIGITS: u8 = 3;
        /// An hour in microseconds; nothing here takes so long.
        const HIGHEST_US: u64 = 3_600_000_000;
        let mut histogram = Histogram::<u64>::new_with_bounds(1, HIGHEST_US, SIGNIFICANT_DIGITS).ok()?;
        for one in took {
            histogram.saturating_record(u64::try_from(one.as_micros()).unwrap_or(u64::MAX));
        }
        let ms = |us: u64| us as f64 / 1_000.0;
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            p50_ms: ms(histogram.value_at_quantile(0.5)),
            p99_ms: ms(histogram.value_at_quantile(0.99)),
            max_ms: ms(histogram.max()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn percentiles_are_those_of_what_was_measured() {
        let latency = Latency::of((1..=100).map(ms)).unwrap();
        assert_eq!(latency.count, 100);
        assert!((latency.p50_ms - 50.0).abs() < 0.1, "{latency:?}");
        assert!((latency.p99_ms - 99.0).abs() < 0.2, "{latency:?}");
        assert!((latency.max_ms - 100.0).abs() < 0.2, "{latency:?}");
        assert_eq!(Latency::of([]), None);
    }

    #[test]
    fn a_window_holds_what_was_under_way_in_it() {
        let window = Window { from: ms(100), to: ms(200) };
        for (began, ended, holds) in
            [(0, 99, false), (0, 100, true), (0, 300, true), (120, 130, true), (200, 900, true), (201, 202, false)]
        {
            assert_eq!(window.touches(ms(began), ms(ended)), holds, "{began} to {ended}");
        }
    }
}
