//! Durations and sizes as people write them: a number and a unit, never a bare number.
//!
//! `ms`, `s`, `m`, `h`, `d` for time; `B`, `KiB`, `MiB`, `GiB` for sizes (IEC 80000-13). A percentage is `20%`.

use std::time::Duration;

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Digits without a unit.
    #[error("{0:?} has no unit; write one of {1}")]
    NoUnit(String, &'static str),
    /// A unit that is not known.
    #[error("{0:?} has no unit that is known here; write one of {1}")]
    Unit(String, &'static str),
    /// No digits, or too many.
    #[error("{0:?} is not a whole number with a unit")]
    Number(String),
}

const TIME_UNITS: &str = "ms, s, m, h, d";
const SIZE_UNITS: &str = "B, KiB, MiB, GiB";

/// Reads a duration such as `250ms`, `2s`, `7d`.
///
/// # Errors
/// When there is no number, no unit, or a unit that is not one of `ms`, `s`, `m`, `h`, `d`.
pub fn duration(text: &str) -> Result<Duration, Error> {
    let (number, unit) = split(text)?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        "" => return Err(Error::NoUnit(text.to_owned(), TIME_UNITS)),
        _ => return Err(Error::Unit(text.to_owned(), TIME_UNITS)),
    };
    millis.map(Duration::from_millis).ok_or_else(|| Error::Number(text.to_owned()))
}

/// Reads a size in bytes such as `64KiB`.
///
/// # Errors
/// When there is no number, no unit, or a unit that is not one of `B`, `KiB`, `MiB`, `GiB`.
pub fn size_bytes(text: &str) -> Result<u64, Error> {
    let (number, unit) = split(text)?;
    let bytes = match unit {
        "B" => Some(number),
        "KiB" => number.checked_mul(1 << 10),
        "MiB" => number.checked_mul(1 << 20),
        "GiB" => number.checked_mul(1 << 30),
        "" => return Err(Error::NoUnit(text.to_owned(), SIZE_UNITS)),
        _ => return Err(Error::Unit(text.to_owned(), SIZE_UNITS)),
    };
    bytes.ok_or_else(|| Error::Number(text.to_owned()))
}

/// Reads a percentage such as `20%`, from 0 to 100, and answers the share from 0.0 to 1.0.
///
/// # Errors
/// When it is not a whole number from 0 to 100 with `%` behind it.
pub fn percent(text: &str) -> Result<f64, Error> {
    let (number, unit) = split(text)?;
    match unit {
        "%" if number <= 100 => Ok(f64::from(u32::try_from(number).unwrap_or(100)) / 100.0),
        "%" => Err(Error::Number(text.to_owned())),
        "" => Err(Error::NoUnit(text.to_owned(), "%")),
        _ => Err(Error::Unit(text.to_owned(), "%")),
    }
}

/// Writes a duration in the largest unit that holds it whole.
#[must_use]
pub fn write_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis > 0 && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

fn split(text: &str) -> Result<(u64, &str), Error> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number = digits.parse().map_err(|_| Error::Number(text.to_owned()))?;
    Ok((number, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_carries_its_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(size_bytes("64KiB"), Ok(65_536));
        assert_eq!(percent("20%"), Ok(0.2));
        assert!(matches!(duration("250"), Err(Error::NoUnit(..))));
        assert!(matches!(duration("2 weeks"), Err(Error::Unit(..))));
        assert!(matches!(size_bytes("64KB"), Err(Error::Unit(..))));
        assert!(matches!(percent("120%"), Err(Error::Number(..))));
        assert!(matches!(duration("99999999999999999999d"), Err(Error::Number(..))));
    }

    #[test]
    fn a_written_duration_reads_back() {
        for millis in [0, 1, 250, 1_000, 60_000, 90_000, 3_600_000, 86_400_000] {
            let duration_in = Duration::from_millis(millis);
            assert_eq!(duration(&write_duration(duration_in)), Ok(duration_in));
        }
    }
}
