//! Snapshots over the wire: durations in milliseconds, subjects as their text, gRPC codes as numbers.
//!
//! What is read is read whole or not at all: the first part that does not parse refuses the snapshot, and the error names it, so
//! that a role can say why it rejected a revision.

mod read;
mod write;

/// A part of a snapshot that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Error {
    /// Where it stands, from the outside in: `services.orders.routes.0.retry.on.2`.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

impl Error {
    fn new(field: &str, why: impl std::fmt::Display) -> Self {
        Self { field: field.to_owned(), why: why.to_string() }
    }
}

/// Puts the outer field's name before an inner one's.
trait Within<T> {
    fn within(self, outer: impl std::fmt::Display) -> Result<T, Error>;
}

impl<T> Within<T> for Result<T, Error> {
    fn within(self, outer: impl std::fmt::Display) -> Self {
        self.map_err(|inner| Error { field: format!("{outer}.{}", inner.field), why: inner.why })
    }
}

#[cfg(test)]
mod tests;
