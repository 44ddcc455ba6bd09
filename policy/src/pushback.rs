//! What a server says about trying again: `Retry-After` (RFC 9110 §10.2.3) and `grpc-retry-pushback-ms` (gRFC A6).

use std::time::Duration;

/// A server's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pushback {
    /// It has said nothing.
    #[default]
    None,
    /// Not before that has passed.
    Wait(Duration),
    /// Not at all.
    Stop,
}

/// Reads `grpc-retry-pushback-ms`: a negative or unreadable value means not to retry (gRFC A6 "Pushback").
#[must_use]
pub fn grpc(value: &[u8]) -> Pushback {
    number(value).map_or(Pushback::Stop, |millis| Pushback::Wait(Duration::from_millis(millis)))
}

/// Reads `Retry-After`: seconds, or a date (RFC 9110 §5.6.7), which is compared with `wall_s`, seconds since 1970-01-01 UTC.
/// The two obsolete forms of dates and everything unreadable count as nothing said.
#[must_use]
pub fn retry_after(value: &[u8], wall_s: u64) -> Pushback {
    let seconds = number(value).or_else(|| date(value).map(|date_s| date_s.saturating_sub(wall_s)));
    seconds.map_or(Pushback::None, |seconds| Pushback::Wait(Duration::from_secs(seconds)))
}

/// Only digits; `parse` alone would also take a sign.
fn number(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value.trim_ascii()).ok()?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than a u64 holds are still a wish to wait for very long.
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Seconds since 1970 of an IMF-fixdate: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date(value: &[u8]) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = std::str::from_utf8(value.trim_ascii()).ok()?;
    let (_weekday, rest) = text.split_once(", ")?;
    let mut words = rest.split(' ');
    let mut next = || words.next();
    let day = number(next()?.as_bytes()).filter(|day| (1..=31).contains(day))?;
    let name = next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64 + 1;
    let year = number(next()?.as_bytes()).filter(|year| (1970..=9999).contains(year))?;
    let mut clock = next()?.splitn(3, ':').map(|part| number(part.as_bytes()).filter(|part| *part <= 60));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if next() != Some("GMT") || next().is_some() {
        return None;
    }
    Some(days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days from 1970-01-01, counting years from March so that the leap day comes last.
const fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    // 719,469 days from 0000-03-01 to the last day before 1970-01-01 that a count from day 1 needs.
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 719_469
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_waits() {
        for (value, wall_s, expected) in [
            ("0", 0, Pushback::Wait(Duration::ZERO)),
            ("120", 0, Pushback::Wait(Duration::from_secs(120))),
            (" 7 ", 0, Pushback::Wait(Duration::from_secs(7))),
            ("99999999999999999999", 0, Pushback::Wait(Duration::from_secs(u64::MAX))),
            ("-1", 0, Pushback::None),
            ("+1", 0, Pushback::None),
            ("1.5", 0, Pushback::None),
            ("soon", 0, Pushback::None),
            ("", 0, Pushback::None),
            ("Thu, 01 Jan 1970 00:00:05 GMT", 0, Pushback::Wait(Duration::from_secs(5))),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_770, Pushback::Wait(Duration::from_secs(7))),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 800_000_000, Pushback::Wait(Duration::ZERO)),
            ("Thu, 29 Feb 2024 00:00:00 GMT", 1_709_164_799, Pushback::Wait(Duration::from_secs(1))),
            ("Fri, 31 Dec 2100 23:59:59 GMT", 4_133_980_799, Pushback::Wait(Duration::ZERO)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 0, Pushback::None),
            ("Sun Nov  6 08:49:37 1994", 0, Pushback::None),
            ("Sun, 06 Nov 1994 08:49:37 CET", 0, Pushback::None),
            ("Sun, 06 Nov 1994 08:49 GMT", 0, Pushback::None),
            ("Sun, 32 Nov 1994 08:49:37 GMT", 0, Pushback::None),
        ] {
            assert_eq!(retry_after(value.as_bytes(), wall_s), expected, "{value}");
        }
        assert_eq!(days(2100, 12, 31) * 86_400 + 86_399, 4_133_980_799);
        assert_eq!(retry_after(&[0xff], 0), Pushback::None);
    }

    #[test]
    fn a_grpc_pushback_that_cannot_be_read_forbids() {
        for (value, expected) in [
            ("0", Pushback::Wait(Duration::ZERO)),
            ("250", Pushback::Wait(Duration::from_millis(250))),
            ("-1", Pushback::Stop),
            ("x", Pushback::Stop),
            ("", Pushback::Stop),
        ] {
            assert_eq!(grpc(value.as_bytes()), expected, "{value}");
        }
    }
}
