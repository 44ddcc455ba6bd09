//! The ground that the planes stand on: the doors to sockets and threads, time, drain, TLS with workload identities,
//! the one HTTP shape in which roles hand requests to each other, the one form of refusals, and telemetry.
//!
//! It knows nothing about routes, queues or configuration. Files are `storage`'s; decisions are `policy`'s.

pub mod clock;
pub mod drain;
pub mod http;
pub mod identity;
pub mod lanes;
pub mod log;
pub mod metrics;
pub mod net;
pub mod output;
pub mod random;
pub mod refusal;
pub mod tls;
