//! Conversions between the wire words and the nouns of `model`. Writing cannot fail; reading says which field is wrong.

pub mod event;
pub mod snapshot;
