//! Whether a failed attempt is made again, and when.
//!
//! It is, only when the request can be sent once more, the route lists what happened, the method is idempotent or the request
//! provably was not processed, and attempts, time and budget are left (RFC 9110 §9.2.2; gRFC A6; Gateway API GEP-1731;
//! istio#50506 for what comes of retrying a payment). What this leaves to whom: not to ask once anything of the answer has gone
//! downstream, and keeping the body, to the data plane (a body that outgrew its buffer is not `replayable`); counting, to
//! [`crate::budget`].

use std::fmt;
use std::time::Duration;

use model::config::{Retry, RetryOn};

use crate::backoff;
use crate::draw;
use crate::pushback::Pushback;

/// The longest wait before a retry, whether it is our own backoff or the server's wish: a request that waits holds its body,
/// its place in the bulkhead and its client.
pub const WAIT_MAX: Duration = Duration::from_secs(10);

/// What has become of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Happened {
    /// No connection: the request was never sent.
    ConnectFailure,
    /// REFUSED_STREAM, a stream above GOAWAY's last, or a reused connection that closed before any byte of the answer.
    ResetBeforeProcessing,
    /// The connection broke before the answer's head.
    Reset,
    /// The attempt's own timeout passed; the request's as a whole ends it (504) and is never asked about here.
    Timeout,
    /// An answer with this status.
    Status(u16),
    /// An answer with this gRPC status and without messages.
    Grpc(u8),
}

/// A failed attempt, with all that a verdict on the next one needs.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The request's method.
    pub method: &'a str,
    /// Which attempt it was, from 1.
    pub number: u32,
    /// What has become of it.
    pub happened: Happened,
    /// Whether the request can be sent again whole.
    pub replayable: bool,
    /// What the server has said about it.
    pub pushback: Pushback,
    /// Time left for the request as a whole; `None`: no bound.
    pub remaining: Option<Duration>,
}

/// Whether there is another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes, after that wait.
    Again {
        /// How long to wait before it.
        after: Duration,
    },
    /// No; what there is goes downstream.
    No(Reason),
}

/// Why there is no other attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The route does not list it.
    NotListed(Happened),
    /// It may have been processed, and the method is not idempotent.
    NotIdempotent,
    /// The body is gone.
    BodyGone,
    /// As many attempts as the route allows, which is this number, were made.
    AttemptsSpent(u32),
    /// The server forbids it (`grpc-retry-pushback-ms` below zero).
    ServerForbids,
    /// The server asks for a longer wait than [`WAIT_MAX`].
    WaitTooLong,
    /// The wait would outlast the request's deadline.
    DeadlineTooNear,
    /// The service's retries have used up their budget.
    BudgetSpent,
}

/// Decides whether a failed attempt is made again. `random` draws the jitter; `withdraw` is asked last, and only when
/// everything else allows the retry: it takes it out of the service's [`crate::budget::Budget`].
pub fn verdict(retry: &Retry, attempt: &Attempt<'_>, random: u64, withdraw: impl FnOnce() -> bool) -> Verdict {
    if let Some(reason) = forbidden(retry, attempt) {
        return Verdict::No(reason);
    }
    let own = own_wait(retry.backoff, attempt.number, random);
    let after = match attempt.pushback {
        Pushback::Stop => return Verdict::No(Reason::ServerForbids),
        Pushback::Wait(asked) if asked > WAIT_MAX => return Verdict::No(Reason::WaitTooLong),
        // Never before the server's time, and not all at that same moment either.
        Pushback::Wait(asked) => (asked + own).min(WAIT_MAX),
        Pushback::None => own,
    };
    if attempt.remaining.is_some_and(|remaining| after >= remaining) {
        return Verdict::No(Reason::DeadlineTooNear);
    }
    if withdraw() { Verdict::Again { after } } else { Verdict::No(Reason::BudgetSpent) }
}

/// The wait after the attempt of that number: anything up to `first`, doubled for each attempt before (full jitter: Brooker,
/// "Exponential Backoff And Jitter", 2015).
#[must_use]
pub fn own_wait(first: Duration, number: u32, random: u64) -> Duration {
    draw::between(random, Duration::ZERO, backoff::exponential(first, number.saturating_sub(1), WAIT_MAX))
}

/// What forbids a retry, whatever time and budget are left.
fn forbidden(retry: &Retry, attempt: &Attempt<'_>) -> Option<Reason> {
    if !retry.on.contains(&attempt.happened.condition()) {
        return Some(Reason::NotListed(attempt.happened));
    }
    let safe = attempt.happened.is_unprocessed() || is_idempotent(attempt.method) || retry.non_idempotent;
    if !safe {
        return Some(Reason::NotIdempotent);
    }
    if !attempt.replayable {
        return Some(Reason::BodyGone);
    }
    let attempts_max = retry.attempts.saturating_add(1);
    (attempt.number >= attempts_max).then_some(Reason::AttemptsSpent(attempts_max))
}

/// RFC 9110 §9.2.2. gRPC calls are all POST, and so are retried on what may have been processed only where the route says so.
#[must_use]
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

impl Happened {
    /// The condition under which a route lists it.
    #[must_use]
    pub const fn condition(self) -> RetryOn {
        match self {
            Self::ConnectFailure => RetryOn::ConnectFailure,
            Self::ResetBeforeProcessing => RetryOn::ResetBeforeProcessing,
            Self::Reset | Self::Timeout => RetryOn::Reset,
            Self::Status(status) => RetryOn::Status(status),
            Self::Grpc(status) => RetryOn::Grpc(status),
        }
    }

    /// Whether the request provably was not processed, which makes a retry safe for every method (gRFC A6 "transparent").
    #[must_use]
    pub const fn is_unprocessed(self) -> bool {
        matches!(self, Self::ConnectFailure | Self::ResetBeforeProcessing)
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectFailure => f.write_str("a connect failure"),
            Self::ResetBeforeProcessing => f.write_str("a reset before processing"),
            Self::Reset => f.write_str("a reset"),
            Self::Timeout => f.write_str("a timeout of the attempt"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Grpc(status) => write!(f, "gRPC status {status}"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotListed(happened) => write!(f, "{happened} is none of the route's retry conditions"),
            Self::NotIdempotent => f.write_str("the method is not idempotent and the request may have been processed"),
            Self::BodyGone => f.write_str("the request's body cannot be sent again"),
            Self::AttemptsSpent(attempts) => write!(f, "{attempts} of {attempts} attempts were made"),
            Self::ServerForbids => f.write_str("the server asks not to try again"),
            Self::WaitTooLong => write!(f, "the server asks to wait for longer than {} s", WAIT_MAX.as_secs()),
            Self::DeadlineTooNear => f.write_str("too little of the request's time is left"),
            Self::BudgetSpent => f.write_str("the service's retry budget is spent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn route() -> Retry {
        Retry {
            on: BTreeSet::from([
                RetryOn::ConnectFailure,
                RetryOn::ResetBeforeProcessing,
                RetryOn::Reset,
                RetryOn::Status(503),
                RetryOn::Grpc(14),
            ]),
            ..Retry::default()
        }
    }

    const FAILED: Attempt<'static> = Attempt {
        method: "GET",
        number: 1,
        happened: Happened::Status(503),
        replayable: true,
        pushback: Pushback::None,
        remaining: Some(Duration::from_secs(5)),
    };

    fn check(attempt: &Attempt<'_>, expected: Result<(), Reason>) {
        let answer = match verdict(&route(), attempt, u64::MAX / 2, || true) {
            Verdict::Again { .. } => Ok(()),
            Verdict::No(reason) => Err(reason),
        };
        assert_eq!(answer, expected, "{attempt:?}");
    }

    #[test]
    fn only_what_is_safe_is_tried_again() {
        use Happened::{ConnectFailure, Grpc, Reset, ResetBeforeProcessing, Status, Timeout};
        for (method, happened, expected) in [
            ("GET", Status(503), Ok(())),
            ("PUT", Reset, Ok(())),
            ("DELETE", Timeout, Ok(())),
            ("GET", Status(502), Err(Reason::NotListed(Status(502)))),
            ("GET", Status(200), Err(Reason::NotListed(Status(200)))),
            ("GET", Grpc(13), Err(Reason::NotListed(Grpc(13)))),
            ("POST", Status(503), Err(Reason::NotIdempotent)),
            ("POST", Reset, Err(Reason::NotIdempotent)),
            ("POST", Timeout, Err(Reason::NotIdempotent)),
            ("PATCH", Status(503), Err(Reason::NotIdempotent)),
            ("get", Status(503), Err(Reason::NotIdempotent)),
            ("POST", Grpc(14), Err(Reason::NotIdempotent)),
            ("POST", ConnectFailure, Ok(())),
            ("POST", ResetBeforeProcessing, Ok(())),
        ] {
            check(&Attempt { method, happened, ..FAILED }, expected);
        }
        let willing = Retry { non_idempotent: true, ..route() };
        let post = Attempt { method: "POST", happened: Happened::Grpc(14), ..FAILED };
        assert!(matches!(verdict(&willing, &post, 0, || true), Verdict::Again { .. }));
    }

    #[test]
    fn each_bound_has_its_reason() {
        let wait = |seconds| Pushback::Wait(Duration::from_secs(seconds));
        for (attempt, expected) in [
            (Attempt { replayable: false, ..FAILED }, Err(Reason::BodyGone)),
            (Attempt { number: 2, ..FAILED }, Ok(())),
            (Attempt { number: 3, ..FAILED }, Err(Reason::AttemptsSpent(3))),
            (Attempt { pushback: Pushback::Stop, ..FAILED }, Err(Reason::ServerForbids)),
            (Attempt { pushback: wait(2), ..FAILED }, Ok(())),
            (Attempt { pushback: wait(5), ..FAILED }, Err(Reason::DeadlineTooNear)),
            (Attempt { pushback: wait(11), remaining: None, ..FAILED }, Err(Reason::WaitTooLong)),
            (Attempt { remaining: Some(Duration::ZERO), ..FAILED }, Err(Reason::DeadlineTooNear)),
            (Attempt { remaining: None, ..FAILED }, Ok(())),
        ] {
            check(&attempt, expected);
        }
        assert_eq!(verdict(&route(), &FAILED, 0, || false), Verdict::No(Reason::BudgetSpent));
    }

    #[test]
    fn the_budget_is_asked_last() {
        let refused = Attempt { method: "POST", ..FAILED };
        let verdict = verdict(&route(), &refused, 0, || panic!("a retry that is not made costs no budget"));
        assert_eq!(verdict, Verdict::No(Reason::NotIdempotent));
    }

    #[test]
    fn a_reason_reads_well() {
        for (reason, text) in [
            (Reason::NotListed(Happened::Status(502)), "status 502 is none of the route's retry conditions"),
            (Reason::AttemptsSpent(3), "3 of 3 attempts were made"),
            (Reason::WaitTooLong, "the server asks to wait for longer than 10 s"),
        ] {
            assert_eq!(reason.to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_within_its_bounds(number in 1u32..12, random: u64, asked in prop::option::of(0u64..20_000), left in 0u64..20_000) {
            let retry = Retry { attempts: 20, ..route() };
            let pushback = asked.map_or(Pushback::None, |millis| Pushback::Wait(Duration::from_millis(millis)));
            let remaining = Some(Duration::from_millis(left));
            let attempt = Attempt { number, pushback, remaining, ..FAILED };
            if let Verdict::Again { after } = verdict(&retry, &attempt, random, || true) {
                prop_assert!(after <= WAIT_MAX);
                prop_assert!(after < Duration::from_millis(left));
                prop_assert!(after >= Duration::from_millis(asked.unwrap_or(0)));
                if asked.is_none() {
                    prop_assert!(after <= Duration::from_millis(25) * (1 << (number - 1)));
                }
            }
        }
    }
}
