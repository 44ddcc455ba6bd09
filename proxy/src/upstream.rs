//! Connections to endpoints: how one is made ([`dial`]), kept ([`pool`]) and used for one request ([`exchange`]).
//!
//! Which endpoint, whether to try again, and what a failure means for the endpoint, is decided above.

pub(crate) mod dial;
pub(crate) mod exchange;
pub(crate) mod pool;

pub(crate) use dial::{Address, Dial, Security, Unreachable};
pub(crate) use exchange::Connection;
pub(crate) use pool::Pool;
