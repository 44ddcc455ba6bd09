//! The downstream edge: listeners, connections and their HTTP version. Behind it there are only requests.
//!
//! Each lane has listeners of its own; a connection stays on the lane that accepted it. What is wrong with a connection as
//! such (no bytes, half a head, idle for too long) ends here; what is wrong with a request is `request`'s.

mod accept;
mod connection;
mod control;
mod first_bytes;
mod http1;
mod streams;

pub(crate) use accept::{DRAIN_TIMEOUT, Door, accept_loop, open};
pub(crate) use connection::{Arrival, Direction, killed, serve_tunnel};
pub(crate) use control::{Control, InFlight};
pub(crate) use first_bytes::Io;
