//! What an endpoint's recent answers say about its cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::classify::Outcome;
use crate::time::Tick;

/// What the round trip to an endpoint is taken for until one was measured (Linkerd's default).
pub const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(30);
/// The time constant with which a measured round trip is forgotten (Linkerd's default).
pub const DECAY: Duration = Duration::from_secs(10);
/// What a failed or refused attempt adds to the cost: without it an endpoint that fails fast attracts traffic (linkerd2-proxy
/// pull request 4537).
pub const PENALTY: Duration = Duration::from_millis(100);
/// The most that penalties add up to.
pub const PENALTY_MAX: Duration = Duration::from_secs(1);
/// The time constant with which penalties are forgotten.
pub const PENALTY_DECAY: Duration = Duration::from_secs(5);

/// The load of one endpoint as one caller sees it. A clone is the same load.
///
/// Starting and ending an attempt, and the cost, take some tens of nanoseconds and no lock. Lanes that share one may lose a
/// sample when they race; one lane alone loses none.
#[derive(Debug, Clone)]
pub struct Load(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    in_progress: AtomicU32,
    round_trip: Fading,
    /// Whether a round trip was measured yet: the first one replaces the default instead of being averaged into it.
    measured: AtomicBool,
    penalty: Fading,
}

/// An attempt in progress at an endpoint. End it with what it has shown; a dropped one only stops counting as in progress.
#[derive(Debug)]
#[must_use = "an attempt in progress weighs on its endpoint until it ends"]
pub struct InProgress {
    load: Load,
    started: Tick,
}

/// A number of nanoseconds that fades with time.
#[derive(Debug)]
struct Fading {
    /// The bits of an `f64`.
    nanos: AtomicU64,
    at: AtomicU64,
    decay_nanos: f64,
}

impl Load {
    /// The load of an endpoint that is new at `now`.
    #[must_use]
    pub fn new(now: Tick) -> Self {
        Self(Arc::new(Shared {
            in_progress: AtomicU32::new(0),
            round_trip: Fading::new(nanos(DEFAULT_ROUND_TRIP), DECAY, now),
            measured: AtomicBool::new(false),
            penalty: Fading::new(0.0, PENALTY_DECAY, now),
        }))
    }

    /// Counts an attempt as in progress.
    pub fn start(&self, now: Tick) -> InProgress {
        self.0.in_progress.fetch_add(1, Ordering::Relaxed);
        InProgress { load: self.clone(), started: now }
    }

    /// Attempts in progress.
    #[must_use]
    pub fn in_progress(&self) -> u32 {
        self.0.in_progress.load(Ordering::Relaxed)
    }

    /// What one more attempt costs; only comparable with other costs of the same moment.
    #[must_use]
    pub fn cost(&self, now: Tick) -> f64 {
        let (_, round_trip) = self.0.round_trip.read(now);
        let (_, penalty) = self.0.penalty.read(now);
        (round_trip + penalty) * (f64::from(self.in_progress()) + 1.0)
    }

    /// The estimated round trip, without penalties; for metrics.
    #[must_use]
    pub fn round_trip(&self, now: Tick) -> Duration {
        let (_, nanos) = self.0.round_trip.read(now);
        Duration::from_secs_f64(nanos / 1e9)
    }

    /// A longer round trip is believed at once, a shorter one in proportion to the time since the last.
    fn measure(&self, round_trip: f64, now: Tick) {
        let shared = &*self.0;
        let (kept, estimate) = shared.round_trip.read(now);
        // The very first answer is all there is to know.
        if !shared.measured.swap(true, Ordering::Relaxed) || round_trip >= estimate {
            shared.round_trip.write(round_trip, now);
        } else {
            shared.round_trip.write(round_trip.mul_add(1.0 - kept, estimate), now);
        }
    }

    /// An answer that had begun well has failed behind its head (a reset, a body cut short, a gRPC status in the trailers): its
    /// quick head must not make the endpoint attractive.
    pub fn failed_late(&self, outcome: Outcome, now: Tick) {
        if matches!(outcome, Outcome::Overloaded | Outcome::Dependency | Outcome::Fault(_)) {
            self.penalise(0.0, now);
        }
    }

    /// A round trip was at least that long.
    fn raise(&self, round_trip: f64, now: Tick) {
        let (_, estimate) = self.0.round_trip.read(now);
        if round_trip > estimate {
            self.measure(round_trip, now);
        }
    }

    /// A failed attempt says nothing good: it may raise the estimate (it took long), never lower it.
    fn penalise(&self, round_trip: f64, now: Tick) {
        self.raise(round_trip, now);
        let (_, penalty) = self.0.penalty.read(now);
        self.0.penalty.write((penalty + nanos(PENALTY)).min(nanos(PENALTY_MAX)), now);
    }
}

impl InProgress {
    /// Ends the attempt when the head of its answer is there, or when it has failed.
    pub fn end(self, outcome: Outcome, now: Tick) {
        let round_trip = nanos(now.since(self.started));
        match outcome {
            Outcome::Served => self.load.measure(round_trip, now),
            Outcome::Overloaded | Outcome::Dependency | Outcome::Fault(_) => self.load.penalise(round_trip, now),
            Outcome::Unanswered => self.load.raise(round_trip, now),
            Outcome::Unknown => {}
        }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.load.0.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Fading {
    fn new(nanos: f64, decay: Duration, now: Tick) -> Self {
        Self {
            nanos: AtomicU64::new(nanos.to_bits()),
            at: AtomicU64::new(now.as_nanos()),
            decay_nanos: self::nanos(decay),
        }
    }

    /// Which share of it is kept now, and what that is.
    fn read(&self, now: Tick) -> (f64, f64) {
        let nanos = f64::from_bits(self.nanos.load(Ordering::Relaxed));
        // Most endpoints have no penalty, and what is nothing stays nothing.
        if nanos == 0.0 {
            return (0.0, 0.0);
        }
        let age = self::nanos(now.since(Tick::from_nanos(self.at.load(Ordering::Relaxed)))) / self.decay_nanos;
        // For the small ages of a busy endpoint the first term of the series is exact to seven digits, and cheaper.
        let kept = if age < 1e-4 { 1.0 - age } else { (-age).exp() };
        (kept, nanos * kept)
    }

    fn write(&self, nanos: f64, now: Tick) {
        self.nanos.store(nanos.to_bits(), Ordering::Relaxed);
        self.at.store(now.as_nanos(), Ordering::Relaxed);
    }
}

fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}
