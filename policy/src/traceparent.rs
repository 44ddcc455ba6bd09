//! W3C Trace Context (Recommendation, 2021; level 2 for the `random` flag): reading `traceparent`, a new span for each hop and
//! each attempt, writing it. `tracestate` passes as it came and is left to the data plane; so is sampling, which is inherited.

use std::fmt;

/// Length of a `traceparent` of version 00.
pub const LENGTH: usize = 55;

const SAMPLED: u8 = 0b01;
const RANDOM: u8 = 0b10;

/// Which trace a request belongs to, and which span sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceParent {
    /// Reads a header's value. A later version is read as far as version 00 goes, when what follows begins with `-` (§3.2.1).
    /// `None` when it is not valid, and then a new trace begins.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let head = value.get(..LENGTH)?;
        let version = u8::try_from(number(&head[..2])?).ok()?;
        let whole = match version {
            0 => value.len() == LENGTH,
            0xff => false,
            _ => value.get(LENGTH).is_none_or(|next| *next == b'-'),
        };
        if !whole || head[2] != b'-' || head[35] != b'-' || head[52] != b'-' {
            return None;
        }
        let trace = u128::from(number(&head[3..19])?) << 64 | u128::from(number(&head[19..35])?);
        let span = number(&head[36..52])?;
        let flags = u8::try_from(number(&head[53..])?).ok()?;
        (trace != 0 && span != 0).then_some(Self { trace, span, flags: flags & (SAMPLED | RANDOM) })
    }

    /// The first span of a new trace.
    #[must_use]
    pub fn root(random_trace: u128, random_span: u64, sampled: bool) -> Self {
        let flags = if sampled { SAMPLED | RANDOM } else { RANDOM };
        // Zero is the one value that is not allowed, and nobody draws it.
        Self { trace: random_trace.max(1), span: random_span.max(1), flags }
    }

    /// A new span of the same trace: one for each hop and for each attempt.
    #[must_use]
    pub fn child(self, random_span: u64) -> Self {
        Self { span: random_span.max(1), ..self }
    }

    /// The trace.
    #[must_use]
    pub const fn trace_id(self) -> u128 {
        self.trace
    }

    /// The span that sends.
    #[must_use]
    pub const fn span_id(self) -> u64 {
        self.span
    }

    /// Whether the caller may have recorded its part.
    #[must_use]
    pub const fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The header's value, of version 00.
    #[must_use]
    pub fn format(self) -> [u8; LENGTH] {
        let mut text = [b'-'; LENGTH];
        write(&mut text[..2], 0);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the id")]
        let (high, low) = ((self.trace >> 64) as u64, self.trace as u64);
        write(&mut text[3..19], high);
        write(&mut text[19..35], low);
        write(&mut text[36..52], self.span);
        write(&mut text[53..], self.flags.into());
        text
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// The values of digits; of what is none, more than four bits.
const VALUES: [u8; 256] = {
    let (mut values, mut value) = ([u8::MAX; 256], 0);
    while value < 16 {
        values[DIGITS[value as usize] as usize] = value;
        value += 1;
    }
    values
};

/// At most sixteen digits; only lower-case ones are valid. Each request is read so: a table and no branch.
fn number(digits: &[u8]) -> Option<u64> {
    let (number, odd) = digits.iter().fold((0, 0), |(number, odd), digit| {
        let value = VALUES[usize::from(*digit)];
        (number << 4 | u64::from(value), odd | value)
    });
    (odd < 16).then_some(number)
}

fn write(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = DIGITS[(number & 0xf) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_the_recommendation_allows_is_read() {
        let parent = TraceParent::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(parent.trace_id(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(parent.span_id(), 0x00f0_67aa_0ba9_02b7);
        assert!(parent.is_sampled());
        assert_eq!(parent.format(), GOOD.as_bytes());
        for later in [format!("cc{}", &GOOD[2..]), format!("cc{}-what-comes", &GOOD[2..])] {
            assert_eq!(TraceParent::parse(later.as_bytes()), Some(parent), "{later}");
        }
        // Flags that have no meaning yet are not passed on (§3.2.2.5.2).
        let flags = format!("{}ff", &GOOD[..53]);
        assert_eq!(&TraceParent::parse(flags.as_bytes()).unwrap().format()[53..], b"03");
    }

    #[test]
    fn what_is_not_valid_is_nothing() {
        for odd in [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-"),
            format!("{GOOD}0"),
            format!("ff{}", &GOOD[2..]),
            format!("cc{}x", &GOOD[2..]),
            GOOD.to_uppercase(),
            GOOD.replace('-', "_"),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace("4bf9", "4bg9"),
            GOOD.replace("-01", "-+1"),
        ] {
            assert_eq!(TraceParent::parse(odd.as_bytes()), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(trace: u128, span: u64, child: u64, sampled: bool) {
            let root = TraceParent::root(trace, span, sampled);
            let child = root.child(child);
            prop_assert_eq!(TraceParent::parse(&child.format()), Some(child));
            let text = child.to_string();
            prop_assert_eq!(text.as_bytes(), child.format());
            prop_assert_eq!((child.trace_id(), child.is_sampled()), (root.trace_id(), sampled));
        }

        #[test]
        fn any_bytes_get_an_answer(bytes: Vec<u8>) {
            let _ = TraceParent::parse(&bytes);
        }
    }
}
