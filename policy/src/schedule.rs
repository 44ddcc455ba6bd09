//! When a message is delivered again, and when it goes to the dead letters: one verdict for queues and topics.
//!
//! Attempts are counted in two ways, as RabbitMQ 4.3 does (`x-acquired-count`, `x-delivery-count`): *assigned* each time
//! somebody gets the message, *failed* only when the message may be to blame. A consumer that says "later" has not failed on
//! it, so a long outage of a consumer does not empty its queue into the dead letters; both counts have a bound, so that
//! nothing loops for ever (NATS `max_deliver` −1). Keeping the counts durable and timing the waits is left to the broker.

use std::fmt;
use std::time::Duration;

use model::config::Delivery;

use crate::backoff;
use crate::draw;

/// The most often that a message is assigned, whatever became of it: at a wait of a minute, a week.
pub const ASSIGNED_MAX: u32 = 10_000;

/// The longest wait that a consumer may ask for (SQS holds a message back for 12 hours at most).
pub const ASKED_WAIT_MAX: Duration = Duration::from_secs(12 * 3_600);

/// "Later" waits for at least the message's own backoff, up to so long, whatever the consumer's `Retry-After` says: with 0, or a date that
/// has passed, a consumer that is out of order would be asked thousands of times a second, until [`ASSIGNED_MAX`] ends the message.
pub const LATER_FLOOR_MAX: Duration = Duration::from_secs(1);

/// How often a message was tried. Durable with the message; a redrive sets both to zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Attempts {
    /// How often somebody got it.
    pub assigned: u32,
    /// How often that failed.
    pub failed: u32,
}

/// Why an assigned message was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The consumer has failed on it, and may ask for a time.
    Nack {
        /// Not before that has passed.
        delay: Option<Duration>,
    },
    /// A push was answered with a failure, or the connection broke over it.
    Failed,
    /// The lease has run out.
    AckTimeout,
    /// The consumer asks for later (429, 503), could not be reached, or has given its lease back: not the message's fault.
    Later {
        /// Not before that has passed.
        after: Option<Duration>,
    },
    /// The consumer will never take it (400, 422).
    Reject,
}

/// What becomes of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    /// It is delivered again after that wait.
    Again {
        /// How long it waits.
        after: Duration,
    },
    /// It goes to the dead letters.
    DeadLetter(Reason),
}

/// Why a message goes to the dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A consumer has rejected it.
    Rejected,
    /// That many attempts failed, which is all that its destination allows.
    AttemptsFailed(u32),
    /// It was assigned [`ASSIGNED_MAX`] times.
    AssignedTooOften,
}

/// What the answer to a push delivery means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The message is done.
    Acknowledge,
    /// It is not.
    Unsettled(Cause),
}

impl Attempts {
    /// The same after the message was assigned once more.
    #[must_use]
    pub const fn assign(self) -> Self {
        Self { assigned: self.assigned.saturating_add(1), ..self }
    }

    /// The same after that attempt has ended unsettled.
    #[must_use]
    pub const fn end(self, cause: Cause) -> Self {
        if cause.counts() { Self { failed: self.failed.saturating_add(1), ..self } } else { self }
    }
}

impl Cause {
    /// Whether it counts as a failure of the message.
    #[must_use]
    pub const fn counts(self) -> bool {
        !matches!(self, Self::Later { .. })
    }

    /// The wait, where `own` is the message's own backoff.
    fn wait(self, own: Duration) -> Duration {
        match self {
            // It counts as a failed attempt, so it may be at once: `attempts` is the bound.
            Self::Nack { delay: Some(asked) } => asked.min(ASKED_WAIT_MAX),
            Self::Later { after: Some(asked) } => asked.clamp(own.min(LATER_FLOOR_MAX), ASKED_WAIT_MAX),
            _ => own,
        }
    }
}

/// Decides what becomes of a message whose last attempt has ended so; `attempts` counts that attempt already
/// ([`Attempts::assign`], [`Attempts::end`]). Without a wish of the consumer the wait doubles with each assignment, less up to
/// half of it by `random`.
#[must_use]
pub fn next(delivery: &Delivery, attempts: Attempts, cause: Cause, random: u64) -> Next {
    if cause == Cause::Reject {
        return Next::DeadLetter(Reason::Rejected);
    }
    if attempts.failed >= delivery.attempts {
        return Next::DeadLetter(Reason::AttemptsFailed(attempts.failed));
    }
    if attempts.assigned >= ASSIGNED_MAX {
        return Next::DeadLetter(Reason::AssignedTooOften);
    }
    let nth = attempts.assigned.saturating_sub(1);
    let whole = backoff::exponential(delivery.backoff_initial, nth, delivery.backoff_max);
    let own = draw::between(random, whole / 2, whole);
    Next::Again { after: cause.wait(own) }
}

/// What the status of a push delivery's answer means; `retry_after` is what its `Retry-After` says.
#[must_use]
pub const fn answer(status: u16, retry_after: Option<Duration>) -> Answer {
    match status {
        200..=299 => Answer::Acknowledge,
        429 | 503 => Answer::Unsettled(Cause::Later { after: retry_after }),
        400 | 422 => Answer::Unsettled(Cause::Reject),
        _ => Answer::Unsettled(Cause::Failed),
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected => f.write_str("rejected by its consumer"),
            Self::AttemptsFailed(attempts) => write!(f, "{attempts} of {attempts} attempts failed"),
            Self::AssignedTooOften => write!(f, "assigned {ASSIGNED_MAX} times without being settled"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn delivery(attempts: u32) -> Delivery {
        Delivery { attempts, ..Delivery::default() }
    }

    #[test]
    fn only_what_the_message_may_be_blamed_for_counts() {
        for (cause, failed) in [
            (Cause::Nack { delay: None }, 1),
            (Cause::Nack { delay: Some(SECOND) }, 1),
            (Cause::Failed, 1),
            (Cause::AckTimeout, 1),
            (Cause::Reject, 1),
            (Cause::Later { after: None }, 0),
            (Cause::Later { after: Some(SECOND) }, 0),
        ] {
            let attempts = Attempts::default().assign().end(cause);
            assert_eq!(attempts, Attempts { assigned: 1, failed }, "{cause:?}");
        }
    }

    #[test]
    fn each_end_has_its_next() {
        let again = |millis| Next::Again { after: Duration::from_millis(millis) };
        let dead = Next::DeadLetter;
        for (assigned, failed, cause, expected) in [
            (1, 1, Cause::Failed, again(200)),
            (2, 2, Cause::AckTimeout, again(400)),
            (7, 7, Cause::Nack { delay: None }, again(12_800)),
            (8, 8, Cause::Failed, dead(Reason::AttemptsFailed(8))),
            (9, 1, Cause::Failed, again(51_200)),
            (500, 0, Cause::Later { after: None }, again(60_000)),
            (500, 0, Cause::Later { after: Some(SECOND) }, again(1_000)),
            (500, 0, Cause::Later { after: Some(SECOND * 7) }, again(7_000)),
            (1, 0, Cause::Later { after: Some(Duration::ZERO) }, again(200)),
            (3, 0, Cause::Later { after: Some(Duration::ZERO) }, again(800)),
            (500, 0, Cause::Later { after: Some(Duration::ZERO) }, again(1_000)),
            (1, 0, Cause::Later { after: Some(ASKED_WAIT_MAX * 2) }, Next::Again { after: ASKED_WAIT_MAX }),
            (1, 1, Cause::Nack { delay: Some(Duration::ZERO) }, again(0)),
            (1, 1, Cause::Nack { delay: Some(ASKED_WAIT_MAX * 2) }, Next::Again { after: ASKED_WAIT_MAX }),
            (1, 1, Cause::Reject, dead(Reason::Rejected)),
            (ASSIGNED_MAX, 0, Cause::Later { after: None }, dead(Reason::AssignedTooOften)),
        ] {
            let found = next(&delivery(8), Attempts { assigned, failed }, cause, u64::MAX);
            let near = |one: Next, other: Next| match (one, other) {
                (Next::Again { after }, Next::Again { after: wanted }) => {
                    after.abs_diff(wanted) < Duration::from_micros(1)
                }
                _ => one == other,
            };
            assert!(near(found, expected), "{cause:?}: {found:?}, not {expected:?}");
        }
        assert_eq!(
            next(&delivery(1), Attempts::default().assign().end(Cause::Failed), Cause::Failed, 0),
            Next::DeadLetter(Reason::AttemptsFailed(1))
        );
    }

    #[test]
    fn a_push_is_settled_by_its_status() {
        for (status, expected) in [
            (200, Answer::Acknowledge),
            (204, Answer::Acknowledge),
            (302, Answer::Unsettled(Cause::Failed)),
            (400, Answer::Unsettled(Cause::Reject)),
            (403, Answer::Unsettled(Cause::Failed)),
            (404, Answer::Unsettled(Cause::Failed)),
            (422, Answer::Unsettled(Cause::Reject)),
            (429, Answer::Unsettled(Cause::Later { after: Some(SECOND) })),
            (500, Answer::Unsettled(Cause::Failed)),
            (503, Answer::Unsettled(Cause::Later { after: Some(SECOND) })),
        ] {
            assert_eq!(answer(status, Some(SECOND)), expected, "{status}");
        }
    }

    proptest! {
        /// Whatever its consumers do, a message is settled or dead after a bounded number of assignments.
        #[test]
        fn every_message_ends(attempts_max in 1u32..20, seed: u64, patient: bool) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let delivery = delivery(attempts_max);
            let mut attempts = Attempts::default();
            loop {
                let cause = if patient || rng.bool() { Cause::Later { after: None } } else { Cause::AckTimeout };
                attempts = attempts.assign().end(cause);
                prop_assert!(attempts.assigned <= ASSIGNED_MAX && attempts.failed <= attempts_max);
                match next(&delivery, attempts, cause, rng.u64(..)) {
                    Next::Again { after } => {
                        prop_assert!(after >= delivery.backoff_initial / 2 && after <= delivery.backoff_max);
                    }
                    Next::DeadLetter(_) => break,
                }
            }
        }
    }
}
