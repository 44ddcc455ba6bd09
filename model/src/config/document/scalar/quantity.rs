//! Kinds of quantities, each with its bounds in its type: whole numbers, durations, sizes, shares, truth values.

use std::time::Duration;

use schemars::{Schema, json_schema};

use super::{Kind, Written};
use crate::config::finding::{Mistake, code};
use crate::name;
use crate::unit;

/// A whole number from `MIN` to `MAX`.
#[derive(Debug)]
pub struct Whole<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Kind for Whole<MIN, MAX> {
    type Value = u64;

    fn expected() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }

    fn schema() -> Schema {
        json_schema!({"type": "integer", "minimum": MIN, "maximum": MAX})
    }

    fn read(written: &Written) -> Result<u64, Mistake> {
        let text = written.as_plain()?;
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if digits.is_empty() || digits.contains(|c: char| !c.is_ascii_digit()) {
            return Err(Mistake::new(code::WRONG_TYPE, format!("{text:?} is not a whole number")));
        }
        let in_range = |number: &u64| (MIN..=MAX).contains(number);
        text.parse().ok().filter(in_range).ok_or_else(|| {
            let nearest =
                if text.starts_with('-') || text.parse().is_ok_and(|number: u64| number < MIN) { MIN } else { MAX };
            let mistake = Mistake::new(code::OUT_OF_RANGE, format!("{text} is not from {MIN} to {MAX}"));
            mistake.nearest(Some(nearest.to_string()))
        })
    }
}

/// A duration from `MIN` to `MAX` milliseconds.
#[derive(Debug)]
pub struct Time<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Kind for Time<MIN, MAX> {
    type Value = Duration;

    fn expected() -> String {
        let bound = |millis| unit::write_duration(Duration::from_millis(millis));
        format!("a duration from {} to {}, such as 250ms, 2s, 5m, 1h, 7d", bound(MIN), bound(MAX))
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9]+ ?(ms|s|m|h|d)$"})
    }

    fn read(written: &Written) -> Result<Duration, Mistake> {
        let text = written.as_any()?;
        let duration = unit::duration(text).map_err(|error| mistake(&error).nearest(nearest_duration(text)))?;
        if (u128::from(MIN)..=u128::from(MAX)).contains(&duration.as_millis()) {
            return Ok(duration);
        }
        let bound = if duration.as_millis() < u128::from(MIN) { MIN } else { MAX };
        let nearest = unit::write_duration(Duration::from_millis(bound));
        let how = if bound == MIN { "short" } else { "long" };
        Err(Mistake::new(code::OUT_OF_RANGE, format!("{text} is too {how}")).nearest(Some(nearest)))
    }
}

/// A size from `MIN` to `MAX` bytes.
#[derive(Debug)]
pub struct Size<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Kind for Size<MIN, MAX> {
    type Value = u64;

    fn expected() -> String {
        format!("a size from {} to {}, such as 512B, 64KiB, 1MiB, 2GiB", write_size(MIN), write_size(MAX))
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB)$"})
    }

    fn read(written: &Written) -> Result<u64, Mistake> {
        let text = written.as_any()?;
        let size = unit::size_bytes(text).map_err(|error| mistake(&error).nearest(nearest_size(text)))?;
        if (MIN..=MAX).contains(&size) {
            return Ok(size);
        }
        let (bound, how) = if size < MIN { (MIN, "small") } else { (MAX, "large") };
        Err(Mistake::new(code::OUT_OF_RANGE, format!("{text} is too {how}")).nearest(Some(write_size(bound))))
    }
}

/// A share in percent.
#[derive(Debug)]
pub struct Percent;

impl Kind for Percent {
    type Value = f64;

    fn expected() -> String {
        "a whole percentage from 0% to 100%".to_owned()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^(100|[0-9]{1,2}) ?%$"})
    }

    fn read(written: &Written) -> Result<f64, Mistake> {
        let text = written.as_any()?;
        unit::percent(text).map_err(|error| {
            let nearest = match text.parse::<f64>() {
                Ok(share) if (0.0..1.0).contains(&share) => Some(format!("{:.0}%", share * 100.0)),
                Ok(percent) if (1.0..=100.0).contains(&percent) => Some(format!("{percent:.0}%")),
                _ if text.ends_with('%') => Some("100%".to_owned()),
                _ => None,
            };
            mistake(&error).nearest(nearest)
        })
    }
}

/// `true` or `false`.
#[derive(Debug)]
pub struct Flag;

impl Kind for Flag {
    type Value = bool;

    fn expected() -> String {
        "true or false".to_owned()
    }

    fn schema() -> Schema {
        json_schema!({"type": "boolean"})
    }

    fn read(written: &Written) -> Result<bool, Mistake> {
        match written.as_plain()? {
            "true" | "True" | "TRUE" => Ok(true),
            "false" | "False" | "FALSE" => Ok(false),
            text => {
                let nearest = match text.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "1" => Some("true"),
                    "no" | "off" | "0" => Some("false"),
                    lower => name::nearest(lower, ["true", "false"]).first().copied(),
                };
                Err(Mistake::new(code::WRONG_TYPE, format!("{text:?} is neither true nor false")).nearest(nearest))
            }
        }
    }
}

fn mistake(error: &unit::Error) -> Mistake {
    Mistake::new(code::QUANTITY, error.to_string())
}

/// `30` → `30s`, `250` → `250ms`, `5min` → `5m`, `1.5s` → `1500ms`, `2 weeks` → `14d`.
fn nearest_duration(text: &str) -> Option<String> {
    let (number, unit) = parts(text)?;
    let millis = match unit.as_str() {
        // Without a unit people mean seconds or milliseconds, and nobody waits for 100 seconds.
        "" if number >= 100.0 => 1.0,
        "" | "s" | "sec" | "secs" | "second" | "seconds" => 1e3,
        "ms" | "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" => 1.0,
        "us" | "µs" => 1e-3,
        "m" | "min" | "mins" | "minute" | "minutes" => 6e4,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3.6e6,
        "d" | "day" | "days" => 8.64e7,
        "w" | "week" | "weeks" => 6.048e8,
        _ => return None,
    };
    let duration = Duration::try_from_secs_f64((number * millis).ceil() / 1e3).ok()?;
    Some(unit::write_duration(Duration::from_millis(u64::try_from(duration.as_millis()).ok()?)))
}

/// `64KB` → `64KiB`, `1M` → `1MiB`, `1.5MiB` → `1536KiB`.
fn nearest_size(text: &str) -> Option<String> {
    let (number, unit) = parts(text)?;
    let bytes = match unit.as_str() {
        "" | "b" | "byte" | "bytes" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let total = (number * bytes).ceil();
    // Beyond this an f64 does not hold whole numbers.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^53")]
    (total <= 9_007_199_254_740_992.0).then(|| write_size(total as u64))
}

/// The number and the unit in lower case; `None` when there is no number that is not negative.
fn parts(text: &str) -> Option<(f64, String)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim().to_lowercase()))
}

fn write_size(bytes: u64) -> String {
    for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantity_that_was_meant_is_found() {
        for (text, meant) in [
            ("30", Some("30s")),
            ("250", Some("250ms")),
            ("5min", Some("5m")),
            ("1.5s", Some("1500ms")),
            ("2 weeks", Some("14d")),
            ("soon", None),
            ("-5s", None),
        ] {
            assert_eq!(nearest_duration(text).as_deref(), meant, "{text}");
        }
        for (text, meant) in [
            ("64KB", Some("64KiB")),
            ("1M", Some("1MiB")),
            ("1.5MiB", Some("1536KiB")),
            ("4096", Some("4KiB")),
            ("big", None),
        ] {
            assert_eq!(nearest_size(text).as_deref(), meant, "{text}");
        }
    }
}
