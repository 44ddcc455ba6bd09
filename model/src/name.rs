//! Names: the one alphabet for meshes, services, queues, topics, subsets and instances.
//!
//! A name is a DNS label (RFC 1123 §2.1: letters, digits, hyphen, at most 63 octets, in lower case), since it stands in
//! host names, SPIFFE paths, metric labels and file names alike and must mean the same in each.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name, in octets (RFC 1035 §2.3.4).
pub const NAME_LENGTH_MAX: usize = 63;

/// A checked DNS label; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is empty.
    #[error("a name cannot be empty")]
    Empty,
    /// The text is longer than [`NAME_LENGTH_MAX`].
    #[error("a name has at most 63 characters")]
    Long,
    /// A character is outside of `a-z`, `0-9` and `-`.
    #[error("a name holds only a-z, 0-9 and '-'; found {0:?}")]
    Character(char),
    /// A hyphen stands first or last.
    #[error("a name neither begins nor ends with '-'")]
    Hyphen,
}

impl Name {
    /// Checks `text` and makes it a name.
    ///
    /// # Errors
    /// When `text` is not a DNS label in lower case.
    pub fn new(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if text.len() > NAME_LENGTH_MAX {
            return Err(Error::Long);
        }
        if let Some(odd) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            return Err(Error::Character(odd));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(Error::Hyphen);
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        Self::new(&text)
    }
}

impl std::str::FromStr for Name {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The known names nearest to `wanted`, nearest first, at most three; for "did you mean".
#[must_use]
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut scored: Vec<(usize, &str)> = known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(wanted, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(wanted.len()) / 2).max(1))
        .collect();
    scored.sort_unstable();
    scored.into_iter().take(3).map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label() {
        for good in ["a", "orders", "v2", "a-b-c", "0", &"x".repeat(63)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        let long = "x".repeat(64);
        for (bad, why) in [
            ("", Error::Empty),
            (long.as_str(), Error::Long),
            ("Orders", Error::Character('O')),
            ("a.b", Error::Character('.')),
            ("a/b", Error::Character('/')),
            ("-a", Error::Hyphen),
            ("a-", Error::Hyphen),
        ] {
            assert_eq!(Name::new(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn the_nearest_name_comes_first_and_strangers_do_not_come() {
        let known = ["orders", "order", "payments", "catalog"];
        assert_eq!(nearest("ordrs", known), ["orders", "order"]);
        assert!(nearest("zzzzzz", known).is_empty());
    }
}
