//! Conversions between the wire words and the nouns of `model`, and the stored form of an event. Writing cannot fail;
//! reading says which field is wrong.

pub mod event;
pub mod snapshot;
