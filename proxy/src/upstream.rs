//! Connections to endpoints: how one is made ([`dial`]), kept ([`pool`]) and used for one request ([`exchange`]); HTTP/2's own
//! half of that is [`http2`].
//!
//! Which endpoint, whether to try again, and what a failure means for the endpoint, is decided above; [`ending`] only names it.

mod dial;
pub(crate) mod ending;
mod exchange;
mod http2;
mod pool;

pub(crate) use dial::{Address, Dial, Dialler, Security, Unreachable};
pub(crate) use exchange::{Connection, UpstreamBody};
pub(crate) use http2::Stream;
pub(crate) use pool::{Full, Place, Pool};
