//! The broker: queues and topics on one log, served over HTTP and gRPC.
//!
//! It reaches its consumers, and is reached, through the mesh: identity, authorization of calls, retries and breakers are the data plane's. It
//! is not a database, and nothing here agrees with other machines: that is an engine's business, or nobody's.
//!
//! In reading order: a message comes in at `serve`, is checked by `accept`, decided on by `verdict` and written by the
//! `committer`; the `books` say what is where; `push` and `consume` give it out, and the `timer` lets time pass.

mod broker;
mod recovery;
pub mod status;

// In and out.
mod accept;
mod cloudevents;
mod consume;
mod core;
mod purge;
mod push;
mod redrive;
mod refusal;
mod selection;
mod serve;
mod timer;

// What is decided and written.
mod committer;
mod compaction;
pub mod engine;
mod record;
mod verdict;

// What is where.
mod books;
mod cache;
mod checkpoint;
mod dedup;
mod deliveries;
mod ledger;
mod metrics;
mod moment;
mod payloads;
mod queue;
mod topic;
mod wake;

pub use broker::{Broker, Error, Options};
pub use status::Status;
