//! The nouns of the mesh: names, identities, durations and sizes, positions, and the configuration
//! in its two forms: as written ([`config::document`]) and as proven ([`config::Config`]).
//!
//! This crate knows nothing about sockets, files, clocks, async or protobuf. It leaves decisions to `policy`,
//! wire forms to `api`, and everything that runs to the planes.

pub mod config;
pub mod identity;
pub mod name;
pub mod position;
pub mod snapshot;
pub mod unit;
