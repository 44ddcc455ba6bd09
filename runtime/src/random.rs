//! Seeds. Every generator in Meshwork is seeded from here, so that the simulation, which answers the operating system's
//! `getrandom` from its own seed, repeats a run to the byte.

use std::hash::{BuildHasher as _, RandomState};

/// A fresh seed, different at each call.
#[must_use]
pub fn seed() -> u64 {
    // Each `RandomState` draws its keys from the operating system; hashing anything yields them mixed.
    RandomState::new().hash_one(0u8)
}
