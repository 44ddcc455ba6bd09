//! One circuit breaker for each endpoint: closed (requests pass), open (none does), half-open (a probe does).
//!
//! It opens on consecutive faults, stays open for a time that doubles with each opening in a row, then lets one probe
//! through: served, it closes with its count at zero (envoy#1491); at fault, it opens again. Answers to requests that were
//! admitted before the breaker changed are ignored (linkerd2-proxy `breaker/consecutive_failures.rs`). A probe that is dropped
//! without an outcome gives its slot back, and one that takes longer than [`PROBE_TIME_MAX`] no longer keeps others from
//! probing; whichever of them ends first decides.
//!
//! Which endpoints are asked is left to [`crate::balance`], and so is that no more of them are left alone than may be: an
//! attempt that it sends to an endpoint whose breaker is open ([`Breaker::pass`]) closes the breaker when it is served.
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

use word::{Millis, Phase, Word};

/// How long a probe may keep others from probing; less where the breaker's first open time is less. A request may rightly take
/// long, and a hung endpoint takes for ever: neither says anything about how the endpoint does with other requests.
pub const PROBE_TIME_MAX: Duration = Duration::from_secs(1);

/// An endpoint's breaker. A clone is the same breaker.
#[derive(Debug, Clone)]
pub struct Breaker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: config::Breaker,
    word: AtomicU64,
}

/// How a breaker stands, without taking anything from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Requests pass.
    Closed,
    /// Its open time, or its last probe's time, has passed: the next request it is given is a probe, and it should be given one.
    Due,
    /// No request passes before `until`.
    Open {
        /// When it is due.
        until: Tick,
        /// What opened it.
        by: Origin,
    },
    /// A probe is under way, and has not taken long yet.
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
    epoch: u16,
    kind: Kind,
}

/// What a permit's outcome decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It counts.
    Plain,
    /// It opens or closes the breaker. Until then no other probe is made before this time.
    Probe(Millis),
    /// Made though the breaker was not closed: it may close it.
    Ejected,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(settings: &config::Breaker) -> Self {
        let word = Word { phase: Phase::Closed { failures: 0 }, by: Origin::Local, openings: 0, epoch: 0 };
        Self(Arc::new(Shared { settings: settings.clone(), word: AtomicU64::new(word.pack()) }))
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self, now: Tick) -> Standing {
        let word = self.word();
        match word.phase {
            Phase::Closed { .. } => Standing::Closed,
            Phase::Open { until } | Phase::HalfOpen { until } if until.tick() <= now => Standing::Due,
            Phase::Open { until } => Standing::Open { until: until.tick(), by: word.by },
            Phase::HalfOpen { .. } => Standing::HalfOpen,
        }
    }

    /// Lets an attempt pass, or says why not. Of a breaker that is due, the first to ask gets the probe.
    ///
    /// # Errors
    /// When the breaker is open, or half-open with a probe under way that has not taken long yet.
    pub fn admit(&self, now: Tick) -> Result<Permit, Refused> {
        loop {
            let word = self.word();
            let mine = Millis::of(now.after(self.probe_time()));
            let probing = match word.phase {
                Phase::Closed { .. } => return Ok(self.permit(word.epoch, Kind::Plain)),
                Phase::HalfOpen { until } if now < until.tick() => return Err(Refused::HalfOpen),
                Phase::Open { until } if now < until.tick() => {
                    return Err(Refused::Open { until: until.tick(), by: word.by });
                }
                // In the same epoch: the probe that takes so long may still be the one that decides.
                Phase::HalfOpen { .. } => Word { phase: Phase::HalfOpen { until: mine }, ..word },
                Phase::Open { .. } => word.next(Phase::HalfOpen { until: mine }),
            };
            if self.exchange(word, probing) {
                return Ok(self.permit(probing.epoch, Kind::Probe(mine)));
            }
            // Another lane was quicker: look again.
        }
    }

    /// Lets an attempt pass however the breaker stands: for an endpoint that may not be left alone, since too many are already.
    pub fn pass(&self, now: Tick) -> Permit {
        self.admit(now).unwrap_or_else(|_| self.permit(self.word().epoch, Kind::Ejected))
    }

    /// The settings it was made with.
    #[must_use]
    pub fn settings(&self) -> &config::Breaker {
        &self.0.settings
    }

    fn probe_time(&self) -> Duration {
        self.0.settings.open.min(PROBE_TIME_MAX)
    }

    fn permit(&self, epoch: u16, kind: Kind) -> Permit {
        Permit { breaker: self.clone(), epoch, kind }
    }

    fn word(&self) -> Word {
        Word::unpack(self.0.word.load(Ordering::Acquire))
    }

    fn exchange(&self, from: Word, to: Word) -> bool {
        self.0.word.compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Counts an outcome of a closed breaker's attempt.
    fn count(&self, epoch: u16, fault: Option<Origin>, random: u64, now: Tick) -> Option<Change> {
        loop {
            let word = self.word();
            let failures = match word.phase {
                Phase::Closed { failures } if word.epoch == epoch => failures,
                _ => return None,
            };
            let (counted, change) = match fault {
                None if failures == 0 => return None,
                None => (Word { phase: Phase::Closed { failures: 0 }, ..word }, None),
                Some(by) if failures.saturating_add(1) >= self.0.settings.consecutive_failures => {
                    self.opened(word, by, random, now)
                }
                Some(_) => (Word { phase: Phase::Closed { failures: failures.saturating_add(1) }, ..word }, None),
            };
            if self.exchange(word, counted) {
                return change;
            }
        }
    }

    /// A probe was at fault.
    fn reopen(&self, epoch: u16, by: Origin, random: u64, now: Tick) -> Option<Change> {
        loop {
            let word = self.word();
            if word.epoch != epoch || !matches!(word.phase, Phase::HalfOpen { .. }) {
                return None;
            }
            let (open, change) = self.opened(word, by, random, now);
            if self.exchange(word, open) {
                return change;
            }
        }
    }

    fn opened(&self, from: Word, by: Origin, random: u64, now: Tick) -> (Word, Option<Change>) {
        let until = Millis::of(now.after(open_time(&self.0.settings, from.openings, random)));
        let openings = from.openings.saturating_add(1);
        let open = Word { by, openings, ..from.next(Phase::Open { until }) };
        (open, Some(Change::Opened { until: until.tick(), by }))
    }

    /// An attempt that passed a breaker which was not closed was served; answers the closed breaker's epoch.
    fn close(&self, epoch: u16) -> Option<u16> {
        loop {
            let word = self.word();
            if word.epoch != epoch || matches!(word.phase, Phase::Closed { .. }) {
                return None;
            }
            let closed = Word { openings: 0, ..word.next(Phase::Closed { failures: 0 }) };
            if self.exchange(word, closed) {
                return Some(closed.epoch);
            }
        }
    }

    /// A probe has come to nothing: the next to ask gets one, unless another is under way already.
    fn give_back(&self, epoch: u16, mine: Millis) {
        let word = self.word();
        if word.epoch == epoch && word.phase == (Phase::HalfOpen { until: mine }) {
            // Where another lane is quicker, it has taken a probe or decided.
            self.exchange(word, Word { phase: Phase::HalfOpen { until: Millis::ZERO }, ..word });
        }
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
        matches!(self.kind, Kind::Probe(_))
    }

    /// Tells the breaker what the attempt has shown; `random` draws the jitter of the open time. Answers what changed.
    /// An outcome that comes after the breaker has changed is ignored.
    pub fn settle(mut self, outcome: Outcome, random: u64, now: Tick) -> Option<Change> {
        // Where nothing was shown, `drop` gives back what there is to give back.
        let fault = match outcome {
            Outcome::Unknown | Outcome::Unanswered => return None,
            Outcome::Served | Outcome::Overloaded | Outcome::Dependency => None,
            Outcome::Fault(by) => Some(by),
        };
        match (std::mem::replace(&mut self.kind, Kind::Plain), fault) {
            (Kind::Plain, fault) => self.breaker.count(self.epoch, fault, random, now),
            (Kind::Probe(_) | Kind::Ejected, None) => self.breaker.close(self.epoch).map(|_| Change::Closed),
            (Kind::Probe(_), Some(by)) => self.breaker.reopen(self.epoch, by, random, now),
            // It is open already, and its time is not prolonged.
            (Kind::Ejected, Some(_)) => None,
        }
    }

    /// The answer has begun well. That is all that a probe is for, since an answer may be endless: it closes the breaker now. The
    /// rest of the answer counts as that of any other attempt when it is settled.
    pub fn begun(&mut self) -> Option<Change> {
        if self.kind == Kind::Plain {
            return None;
        }
        self.kind = Kind::Plain;
        self.epoch = self.breaker.close(self.epoch)?;
        Some(Change::Closed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Kind::Probe(mine) = self.kind {
            self.breaker.give_back(self.epoch, mine);
        }
    }
}

#[cfg(test)]
mod tests;
