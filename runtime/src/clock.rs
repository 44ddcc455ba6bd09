//! Time. Durations are measured with `tokio::time` (which the simulation advances); wall time is read here and nowhere else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Wall time in milliseconds since 1970-01-01 UTC. In the simulation it starts near 0.
#[must_use]
pub fn wall_ms() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

/// Wall time in seconds since 1970-01-01 UTC.
#[must_use]
pub fn wall_s() -> u64 {
    since_epoch().as_secs()
}

fn since_epoch() -> Duration {
    // A clock before 1970 is a broken clock; 0 keeps every comparison sane.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
