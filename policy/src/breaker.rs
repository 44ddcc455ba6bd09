//! One circuit breaker for each endpoint: closed (requests pass), open (none does), half-open (exactly one probe does).
//!
//! It opens on consecutive faults, stays open for a time that doubles with each opening in a row, then lets one probe
//! through: served, it closes with its count at zero (envoy#1491); at fault, it opens again. Answers to requests that were
//! admitted before the breaker changed are ignored (linkerd2-proxy `breaker/consecutive_failures.rs`). A probe that is dropped
//! without an outcome gives its slot back. Which endpoints are asked, is left to [`crate::balance`].
//!
//! The whole state is one atomic word, so no two threads can both take the probe.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::config;

use crate::backoff;
use crate::classify::{Origin, Outcome};
use crate::draw;
use crate::time::Tick;

mod word;

use word::{Phase, Word};

/// An endpoint's breaker. A clone is the same breaker.
#[derive(Debug, Clone)]
pub struct Breaker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: config::Breaker,
    word: AtomicU64,
    /// When an open breaker may be probed, in nanoseconds; written before `word` says open.
    open_until: AtomicU64,
}

/// How a breaker stands, without taking anything from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Requests pass.
    Closed,
    /// Its open time has passed: the next request it is given is the probe, and it should be given one.
    Due,
    /// No request passes before `until`.
    Open {
        /// When it is due.
        until: Tick,
        /// What opened it.
        by: Origin,
    },
    /// The probe is under way.
    HalfOpen,
}

/// Why a breaker lets nothing pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is open.
    #[error("the endpoint's breaker is open after too many failures in a row: {by}")]
    Open {
        /// When it may be probed.
        until: Tick,
        /// What opened it.
        by: Origin,
    },
    /// Its one probe is under way.
    #[error("the endpoint's breaker is half-open and its one probe is under way")]
    HalfOpen,
}

/// A change of a breaker, for metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It has opened, or opened again after a probe.
    Opened {
        /// When it may be probed.
        until: Tick,
        /// What opened it.
        by: Origin,
    },
    /// It has closed.
    Closed,
}

/// One attempt that a breaker let pass. Settle it; a dropped one counts for nothing, and frees the slot if it was the probe.
#[derive(Debug)]
#[must_use = "an attempt's outcome must be settled"]
pub struct Permit {
    breaker: Breaker,
    epoch: u32,
    probe: bool,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(settings: &config::Breaker) -> Self {
        let word = Word { phase: Phase::Closed, by: Origin::Local, openings: 0, epoch: 0, failures: 0 };
        Self(Arc::new(Shared {
            settings: settings.clone(),
            word: AtomicU64::new(word.pack()),
            open_until: AtomicU64::new(0),
        }))
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self, now: Tick) -> Standing {
        let word = self.word();
        match word.phase {
            Phase::Closed => Standing::Closed,
            Phase::HalfOpen => Standing::HalfOpen,
            Phase::Open if now < self.open_until() => Standing::Open { until: self.open_until(), by: word.by },
            Phase::Open => Standing::Due,
        }
    }

    /// Lets an attempt pass, or says why not. Of a breaker that is due, the first to ask gets the probe.
    ///
    /// # Errors
    /// When the breaker is open, or half-open with its probe under way.
    pub fn admit(&self, now: Tick) -> Result<Permit, Refused> {
        loop {
            let word = self.word();
            match word.phase {
                Phase::Closed => return Ok(self.permit(word.epoch, false)),
                Phase::HalfOpen => return Err(Refused::HalfOpen),
                Phase::Open if now < self.open_until() => {
                    return Err(Refused::Open { until: self.open_until(), by: word.by });
                }
                Phase::Open => {
                    let probing = word.next(Phase::HalfOpen);
                    if self.exchange(word, probing) {
                        return Ok(self.permit(probing.epoch, true));
                    }
                    // Another lane was quicker: look again.
                }
            }
        }
    }

    /// The settings it was made with.
    #[must_use]
    pub fn settings(&self) -> &config::Breaker {
        &self.0.settings
    }

    fn permit(&self, epoch: u32, probe: bool) -> Permit {
        Permit { breaker: self.clone(), epoch, probe }
    }

    fn word(&self) -> Word {
        Word::unpack(self.0.word.load(Ordering::Acquire))
    }

    fn open_until(&self) -> Tick {
        Tick::from_nanos(self.0.open_until.load(Ordering::Acquire))
    }

    fn exchange(&self, from: Word, to: Word) -> bool {
        self.0.word.compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Counts an outcome of a closed breaker's attempt.
    fn count(&self, epoch: u32, fault: Option<Origin>, random: u64, now: Tick) -> Option<Change> {
        loop {
            let word = self.word();
            if word.phase != Phase::Closed || word.epoch != epoch {
                return None;
            }
            let Some(by) = fault else {
                if word.failures == 0 || self.exchange(word, Word { failures: 0, ..word }) {
                    return None;
                }
                continue;
            };
            let failures = word.failures.saturating_add(1);
            if failures >= self.0.settings.consecutive_failures {
                if let Some(change) = self.open(word, by, random, now) {
                    return Some(change);
                }
            } else if self.exchange(word, Word { failures, ..word }) {
                return None;
            }
        }
    }

    /// Settles the probe: only its holder may move the breaker out of half-open, so each exchange is made once.
    fn settle_probe(&self, epoch: u32, outcome: Outcome, random: u64, now: Tick) -> Option<Change> {
        let word = self.word();
        if word.phase != Phase::HalfOpen || word.epoch != epoch {
            return None;
        }
        match outcome {
            Outcome::Fault(by) => self.open(word, by, random, now),
            Outcome::Served | Outcome::Overloaded => {
                let closed = Word { openings: 0, failures: 0, ..word.next(Phase::Closed) };
                self.exchange(word, closed).then_some(Change::Closed)
            }
            // Its open time has passed already, so the next one to ask gets the probe.
            Outcome::Unknown => {
                self.exchange(word, word.next(Phase::Open));
                None
            }
        }
    }

    fn open(&self, from: Word, by: Origin, random: u64, now: Tick) -> Option<Change> {
        let until = now.after(open_time(&self.0.settings, from.openings, random));
        self.0.open_until.store(until.as_nanos(), Ordering::Release);
        let open = Word { by, failures: 0, openings: from.openings.saturating_add(1), ..from.next(Phase::Open) };
        self.exchange(from, open).then_some(Change::Opened { until, by })
    }
}

/// How long a breaker stays open after so many openings in a row: doubled each time up to the bound, less up to a fifth, so
/// that the callers of an endpoint do not probe it all at once.
#[must_use]
pub fn open_time(settings: &config::Breaker, openings: u8, random: u64) -> Duration {
    let whole = backoff::exponential(settings.open, openings.into(), settings.open_max);
    draw::between(random, whole.mul_f64(0.8), whole)
}

impl Permit {
    /// Whether this attempt is the probe of a half-open breaker.
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        self.probe
    }

    /// Tells the breaker what the attempt has shown; `random` draws the jitter of the open time. Answers what changed.
    /// An outcome that comes after the breaker has changed is ignored.
    pub fn settle(mut self, outcome: Outcome, random: u64, now: Tick) -> Option<Change> {
        if self.probe {
            // Settled here, so `drop` finds nothing to give back.
            self.probe = false;
            return self.breaker.settle_probe(self.epoch, outcome, random, now);
        }
        match outcome {
            Outcome::Unknown => None,
            Outcome::Served | Outcome::Overloaded => self.breaker.count(self.epoch, None, random, now),
            Outcome::Fault(by) => self.breaker.count(self.epoch, Some(by), random, now),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.probe {
            // Giving the slot back needs neither a time nor a draw.
            self.breaker.settle_probe(self.epoch, Outcome::Unknown, 0, Tick::ZERO);
        }
    }
}

#[cfg(test)]
mod tests;
