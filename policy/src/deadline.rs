//! How long a request may still take: the route's bound and what the caller has asked for, whichever ends sooner.
//!
//! `grpc-timeout` is read and written here (gRPC over HTTP/2, "Request-Headers"; gRFC A31): each hop passes on what is left.

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

    /// The sooner of the route's own bound and what the caller has asked for, from `now` on.
    #[must_use]
    pub fn sooner(now: Tick, own: Option<Duration>, asked: Option<Duration>) -> Self {
        let wait = own.into_iter().chain(asked).min();
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

    /// How long one attempt may take: its own bound, and never more than what is left for the whole (GEP-1742).
    #[must_use]
    pub fn for_attempt(self, now: Tick, own: Option<Duration>) -> Option<Duration> {
        self.remaining(now).into_iter().chain(own).min()
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
            assert_eq!(Deadline::sooner(now, own, asked).remaining(now), left);
        }
        let deadline = Deadline::sooner(now, Some(second), None);
        let later = now.after(second / 4);
        assert_eq!(deadline.for_attempt(later, Some(second)), Some(second * 3 / 4));
        assert_eq!(deadline.for_attempt(later, Some(second / 2)), Some(second / 2));
        assert_eq!(Deadline::NEVER.for_attempt(later, None), None);
        assert!(!deadline.has_passed(later));
        assert!(deadline.has_passed(now.after(second)));
        assert_eq!(deadline.remaining(now.after(second * 2)), Some(Duration::ZERO));
        assert!(!Deadline::NEVER.has_passed(Tick::from_nanos(u64::MAX)));
    }

    proptest! {
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
