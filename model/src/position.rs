//! Positions: what a write answers with and what a read may ask for (docs/glossary.md).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A point in a broker's log. Positions of one broker are totally ordered; a later write has a greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
