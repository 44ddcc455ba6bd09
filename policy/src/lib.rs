//! The verdicts of the mesh: which route, which endpoint, retry or not, open or closed, admit or refuse, again or dead letter.
//!
//! Each is a function or a small state machine whose time ([`time::Tick`]) and randomness (a `u64`) are arguments, so that
//! tables and seeds test it without a runtime, and the simulation repeats it to the byte. This crate knows no clock, no
//! generator, no socket, no file and no future; carrying verdicts out is left to the planes.
//!
//! State that lives between calls ([`balance::Load`], [`breaker::Breaker`], [`budget::Budget`], [`bulkhead::Bulkhead`]) is
//! taken by `&self`, `Send + Sync`, free of locks, and cheap to clone (a clone is the same state). A lane keeps its own;
//! sharing one between lanes is correct, only slower.

// What a request is.
pub mod host;
pub mod path;
pub mod route;
pub mod split;
pub mod traceparent;
// Who may.
pub mod authorize;
// Whether now.
pub mod bulkhead;
pub mod deadline;
// Where to, and what came of it.
pub mod balance;
pub mod breaker;
pub mod classify;
// Whether again.
pub mod budget;
pub mod pushback;
pub mod retry;
pub mod schedule;
// The ground of the above.
pub mod backoff;
pub mod draw;
pub mod time;
