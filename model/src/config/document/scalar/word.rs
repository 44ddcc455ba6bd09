//! Kinds of words: one out of a few.

use std::marker::PhantomData;

use schemars::{Schema, json_schema};

use super::{Kind, Written};
use crate::config::finding::{Mistake, code};
use crate::config::{Durability, Engine, Protocol, RetryOn};
use crate::name;

/// What has a word for each of its values.
pub trait Words: Copy + 'static {
    /// The word of each value.
    const WORDS: &'static [(&'static str, Self)];
    /// Words of the design that this version cannot keep.
    const LATER: &'static [&'static str] = &[];
}

impl Words for Protocol {
    const WORDS: &'static [(&'static str, Self)] = &[("http", Self::Http), ("grpc", Self::Grpc)];
}

impl Words for Durability {
    const WORDS: &'static [(&'static str, Self)] = &[("sync", Self::Sync), ("os", Self::Os)];
}

impl Words for Engine {
    const WORDS: &'static [(&'static str, Self)] = &[("embedded", Self::Embedded)];
    const LATER: &'static [&'static str] = &["nats", "kafka"];
}

/// The word of a `T`.
#[derive(Debug)]
pub struct Word<T>(PhantomData<T>);

impl<T: Words> Kind for Word<T> {
    type Value = T;

    fn expected() -> String {
        let words: Vec<_> = T::WORDS.iter().map(|(word, _)| *word).collect();
        if let [only] = words[..] { only.to_owned() } else { format!("one of {}", words.join(", ")) }
    }

    fn schema() -> Schema {
        let words: Vec<_> = T::WORDS.iter().map(|(word, _)| *word).collect();
        json_schema!({"type": "string", "enum": words})
    }

    fn read(written: &Written) -> Result<T, Mistake> {
        let text = written.as_any()?;
        if let Some((_, value)) = T::WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        if T::LATER.contains(&text) {
            return Err(Mistake::new(code::NOT_BUILT_YET, format!("`{text}` is not built yet")));
        }
        Err(unknown(text, T::WORDS.iter().map(|(word, _)| *word)))
    }
}

/// What a retry may be for.
#[derive(Debug)]
pub struct RetryCondition;

const CONDITIONS: [(&str, RetryOn); 3] = [
    ("connect-failure", RetryOn::ConnectFailure),
    ("reset-before-processing", RetryOn::ResetBeforeProcessing),
    ("reset", RetryOn::Reset),
];

/// The names of gRPC's codes that are failures, from 1 on (grpc/doc/statuscodes.md).
const GRPC_CODES: [&str; 16] = [
    "cancelled",
    "unknown",
    "invalid-argument",
    "deadline-exceeded",
    "not-found",
    "already-exists",
    "permission-denied",
    "resource-exhausted",
    "failed-precondition",
    "aborted",
    "out-of-range",
    "unimplemented",
    "internal",
    "unavailable",
    "data-loss",
    "unauthenticated",
];

const STATUSES: std::ops::RangeInclusive<u16> = 400..=599;

impl Kind for RetryCondition {
    type Value = RetryOn;

    fn expected() -> String {
        let conditions = CONDITIONS.map(|(word, _)| word).join(", ");
        format!("{conditions}, a status from 400 to 599, or the name of a gRPC code such as unavailable")
    }

    fn schema() -> Schema {
        let words: Vec<_> = CONDITIONS.iter().map(|(word, _)| *word).chain(GRPC_CODES).collect();
        json_schema!({"anyOf": [
            {"type": "integer", "minimum": STATUSES.start(), "maximum": STATUSES.end()},
            {"type": "string", "enum": words},
        ]})
    }

    fn read(written: &Written) -> Result<RetryOn, Mistake> {
        let text = written.as_any()?;
        if let Ok(status) = text.parse::<u16>() {
            let message = format!("{status} is not the status of a failure");
            let in_range = STATUSES.contains(&status).then_some(RetryOn::Status(status));
            return in_range.ok_or_else(|| Mistake::new(code::OUT_OF_RANGE, message));
        }
        if let Some((_, condition)) = CONDITIONS.iter().find(|(word, _)| *word == text) {
            return Ok(*condition);
        }
        let grpc = (1..).zip(GRPC_CODES).find(|(_, word)| *word == text);
        grpc.map(|(number, _)| RetryOn::Grpc(number)).ok_or_else(|| match nearest_grpc(text) {
            Some(word) => {
                Mistake::new(code::UNKNOWN_WORD, format!("`{text}` is not a word for it")).nearest(Some(word))
            }
            None => unknown(text, CONDITIONS.iter().map(|(word, _)| *word).chain(GRPC_CODES)),
        })
    }
}

/// `DEADLINE_EXCEEDED` and `DeadlineExceeded` → `deadline-exceeded`.
fn nearest_grpc(text: &str) -> Option<&'static str> {
    let letters = |word: &str| word.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_lowercase();
    GRPC_CODES.into_iter().find(|word| letters(word) == letters(text))
}

fn unknown<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> Mistake {
    let nearest = name::nearest(&text.to_lowercase(), words).first().map(|word| (*word).to_owned());
    Mistake::new(code::UNKNOWN_WORD, format!("`{text}` is none of the words that can stand here")).nearest(nearest)
}
