//! How long a request may still take: the route's bounds and what the client has asked for, whichever ends sooner.
//!
//! `grpc-timeout` is read and written here (gRPC over HTTP/2, "Request-Headers"; gRFC A31): each hop passes on what is left of
//! what the client has asked for, and nothing of its own: the next hop could not tell the two apart.

use std::fmt;
use std::time::Duration;

use crate::time::Tick;

/// Most digits of a `grpc-timeout`.
const DIGITS_MAX: usize = 8;
/// The units from the finest, with their nanoseconds.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// When a request has to have its answer, if ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deadline(Option<Tick>);

impl Deadline {
    /// No bound.
    pub const NEVER: Self = Self(None);

    /// That long after `now`; without a `wait`, never.
    #[must_use]
    pub fn after(now: Tick, wait: Option<Duration>) -> Self {
        Self(wait.map(|wait| now.after(wait)))
    }

    /// What is left; zero when it has passed, `None` without a bound.
    #[must_use]
    pub fn remaining(self, now: Tick) -> Option<Duration> {
        self.0.map(|deadline| deadline.since(now))
    }

    /// Whether it has passed.
    #[must_use]
    pub fn has_passed(self, now: Tick) -> bool {
        self.0.is_some_and(|deadline| now >= deadline)
    }

    /// The sooner of two.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0.into_iter().chain(other.0).min())
    }

    /// The moment itself; `None` without a bound.
    #[must_use]
    pub const fn at(self) -> Option<Tick> {
        self.0
    }
}

/// The clocks of one request before its answer's head: the client's deadline, the route's bound for the whole, and the one for an
/// attempt.
///
/// The client's deadline is a moment and holds whatever happens (gRFC A31). The route's bounds measure how long an endpoint takes
/// to answer: they stand still while the request's body is on its way, and begin when all of it was sent. (Envoy's route timeout
/// and per-try timeout begin there too.) What holds a body that is on its way is its idle bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// When the request came.
    pub started: Tick,
    /// The client's own deadline.
    pub asked: Deadline,
    /// The route's bound for all attempts.
    pub request: Option<Duration>,
    /// The route's bound for one attempt.
    pub attempt: Option<Duration>,
}

/// What an attempt waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// For the endpoint: it was sent the whole request at that moment, or has not begun to take a body that was offered to it then.
    Answer(Tick),
    /// For more of the request's body, from the client or into the endpoint.
    Body,
}

impl Clocks {
    /// When the request as a whole is over, where it waits for an endpoint since `since`.
    #[must_use]
    pub fn whole(&self, since: Tick) -> Deadline {
        let begins = self.started.max(since);
        self.asked.or(Deadline::after(begins, self.request))
    }

    /// When an attempt that began at `begun` is over: by its own bound, and never later than the whole (GEP-1742).
    #[must_use]
    pub fn expiry(&self, begun: Tick, waits: Waits) -> Deadline {
        let Waits::Answer(since) = waits else { return self.asked };
        self.whole(since).or(Deadline::after(begun.max(since), self.attempt))
    }

    /// How long nobody need look again at an attempt whose body was still on its way: no clock that begins later runs out sooner.
    #[must_use]
    pub fn shortest(&self) -> Option<Duration> {
        self.request.into_iter().chain(self.attempt).min()
    }
}

/// Reads a `grpc-timeout`: one to eight digits and one of `H`, `M`, `S`, `m`, `u`, `n`. What is not of that form is `None`,
/// which a server may take for no timeout.
#[must_use]
pub fn parse_grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let (_, unit_nanos) = UNITS.iter().find(|(letter, _)| letter == unit)?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0u128, |number, digit| number * 10 + u128::from(digit - b'0'));
    Some(from_nanos(number * unit_nanos))
}

/// 99,999,999 hours are more nanoseconds than a `u64` holds.
fn from_nanos(nanos: u128) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    let subsec = u32::try_from(nanos % SECOND).unwrap_or(0);
    Duration::new(u64::try_from(nanos / SECOND).unwrap_or(u64::MAX), subsec)
}

/// A `grpc-timeout` as it stands in a header; made without allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GrpcTimeout {
    bytes: [u8; DIGITS_MAX + 1],
    length: usize,
}

impl GrpcTimeout {
    /// Writes a timeout in the finest unit in which it has eight digits, rounded up (as grpc-go does), so that the hop
    /// behind never gives up before this one; never zero, since the number must be positive.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        let nanos = timeout.as_nanos().max(1);
        let limit = 10u128.pow(8);
        let fits =
            UNITS.iter().map(|(letter, unit)| (*letter, nanos.div_ceil(*unit))).find(|(_, number)| *number < limit);
        let (letter, number) = fits.unwrap_or((b'H', limit - 1));
        Self::written(letter, number)
    }

    fn written(letter: u8, mut number: u128) -> Self {
        let length = number.checked_ilog10().unwrap_or(0) as usize + 2;
        let mut bytes = [letter; DIGITS_MAX + 1];
        for place in bytes[..length - 1].iter_mut().rev() {
            *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
        }
        Self { bytes, length }
    }

    /// The header's value.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Debug for GrpcTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_bytes().escape_ascii().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_grpc_timeout_is_digits_and_a_unit() {
        for (value, expected) in [
            ("1n", Some(Duration::from_nanos(1))),
            ("100m", Some(Duration::from_millis(100))),
            ("5u", Some(Duration::from_micros(5))),
            ("3S", Some(Duration::from_secs(3))),
            ("2M", Some(Duration::from_secs(120))),
            ("1H", Some(Duration::from_secs(3_600))),
            ("00000007S", Some(Duration::from_secs(7))),
            ("0m", Some(Duration::ZERO)),
            ("99999999H", Some(Duration::from_secs(359_999_996_400))),
            ("100000000n", None),
            ("", None),
            ("S", None),
            ("5", None),
            ("5s", None),
            ("-5S", None),
            ("+5S", None),
            ("5 S", None),
            ("1.5S", None),
        ] {
            assert_eq!(parse_grpc_timeout(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn a_timeout_is_written_in_the_finest_unit_that_holds_it() {
        for (timeout, text) in [
            (Duration::ZERO, "1n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_001), "100001u"),
            (Duration::from_secs(15), "15000000u"),
            (Duration::from_secs(3_600), "3600000m"),
            (Duration::from_secs(200_000), "200000S"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(GrpcTimeout::new(timeout).as_bytes(), text.as_bytes(), "{timeout:?}");
        }
    }

    #[test]
    fn the_sooner_deadline_holds() {
        let (now, second) = (Tick::from_nanos(7), Duration::from_secs(1));
        for (own, asked, left) in [
            (None, None, None),
            (Some(second), None, Some(second)),
            (None, Some(second), Some(second)),
            (Some(second), Some(second * 2), Some(second)),
            (Some(second * 2), Some(second), Some(second)),
        ] {
            assert_eq!(Deadline::after(now, own).or(Deadline::after(now, asked)).remaining(now), left);
        }
        let deadline = Deadline::after(now, Some(second));
        let later = now.after(second / 4);
        assert!(!deadline.has_passed(later));
        assert!(deadline.has_passed(now.after(second)));
        assert_eq!(deadline.remaining(now.after(second * 2)), Some(Duration::ZERO));
        assert!(!Deadline::NEVER.has_passed(Tick::from_nanos(u64::MAX)));
    }

    #[test]
    fn a_route_s_clocks_stand_still_while_a_body_is_on_its_way() {
        let at = |seconds| Tick::since_origin(Duration::from_secs(seconds));
        let (started, s) = (at(100), Duration::from_secs);
        for (request, attempt, asked, begun, waits, expiry) in [
            // Nothing was sent yet, or there is no body: from the beginning of the request, and of the attempt.
            (Some(15), None, None, 100, Waits::Answer(at(100)), Some(115)),
            (Some(15), Some(4), None, 100, Waits::Answer(at(100)), Some(104)),
            (Some(15), Some(4), None, 113, Waits::Answer(at(100)), Some(115)),
            (None, Some(4), None, 113, Waits::Answer(at(100)), Some(117)),
            (None, None, None, 113, Waits::Answer(at(100)), None),
            // The body moves: only what the client asked for counts.
            (Some(15), Some(4), None, 100, Waits::Body, None),
            (Some(15), Some(4), Some(60), 100, Waits::Body, Some(160)),
            // An upload of twenty seconds, and then the answer's own time.
            (Some(15), Some(4), None, 100, Waits::Answer(at(120)), Some(124)),
            (Some(15), None, None, 100, Waits::Answer(at(120)), Some(135)),
            (Some(15), None, Some(30), 100, Waits::Answer(at(120)), Some(130)),
            // A later attempt sends it again: the whole began when the client was done.
            (Some(15), Some(4), None, 130, Waits::Answer(at(120)), Some(134)),
            (Some(15), Some(9), None, 130, Waits::Answer(at(120)), Some(135)),
        ] {
            let asked = Deadline::after(started, asked.map(s));
            let clocks = Clocks { started, asked, request: request.map(s), attempt: attempt.map(s) };
            assert_eq!(clocks.expiry(at(begun), waits).at(), expiry.map(at), "{clocks:?} {begun} {waits:?}");
        }
    }

    proptest! {
        #[test]
        fn looking_again_in_time_misses_no_clock(
            bounds in [prop::option::of(1u64..50), prop::option::of(1u64..50)], looked in 0u64..100, later in 0u64..100
        ) {
            let (at, [request, attempt]) = (Tick::from_nanos, bounds.map(|bound| bound.map(Duration::from_nanos)));
            let clocks = Clocks { started: Tick::ZERO, asked: Deadline::NEVER, request, attempt };
            // Whatever begins after the last look is over at the next one, or later.
            let expiry = clocks.expiry(Tick::ZERO, Waits::Answer(at(looked + later))).at();
            let next = clocks.shortest().map(|wait| at(looked).after(wait));
            prop_assert_eq!(expiry.is_some(), next.is_some());
            prop_assert!(expiry >= next);
        }

        #[test]
        fn what_is_written_reads_back_a_little_longer_at_most(nanos in 1u64..) {
            let timeout = Duration::from_nanos(nanos);
            let text = GrpcTimeout::new(timeout);
            let read = parse_grpc_timeout(text.as_bytes()).unwrap();
            prop_assert!(read >= timeout);
            prop_assert!(read.as_nanos() <= timeout.as_nanos() + timeout.as_nanos() / 100_000 + 1);
        }
    }
}
