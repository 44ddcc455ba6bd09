//! The broker: queues and topics on one log, served over HTTP and gRPC.
//!
//! It reaches its consumers, and is reached, through the mesh: identity, authorization of calls, retries and breakers are the data plane's. It
//! is not a database, and nothing here agrees with other machines: that is an engine's business, or nobody's.
//!
//! In reading order: a message comes in at `serve`, is checked by `accept`, decided on by `verdict` and written by the
//! `committer`; the `books` say what is where; `push` and `consume` give it out, and the `timer` lets time pass.

mod accept;
mod books;
mod broker;
mod cache;
mod checkpoint;
mod cloudevents;
mod committer;
mod compaction;
mod consume;
mod core;
mod dedup;
mod deliveries;
pub mod engine;
mod ledger;
mod metrics;
mod moment;
mod payloads;
mod push;
mod queue;
mod record;
mod recovery;
mod refusal;
mod serve;
pub mod status;
mod timer;
mod topic;
mod verdict;

pub use broker::{Broker, Error, Options};
pub use status::Status;
