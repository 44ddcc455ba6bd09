//! The data plane: carries one request from a client to an endpoint, in every direction that a role needs: out of the
//! application ([`Options::outbound`]), from the mesh into it ([`Options::inbound`]), from outside ([`Options::gateway`]), and out
//! of this process itself ([`DataPlane::caller`]).
//!
//! `request::handle` is the pipeline; read it first. `edge` is what stands before it, `upstream` what stands behind it,
//! `table` the snapshot it goes by, `refusal` all that is answered in an application's stead.
//!
//! It does not: decide anything (`policy` does), fetch its configuration or its certificates (its role does), know
//! queues or topics, or keep anything on a disk.

mod plane;
mod request;

mod edge;
mod table;
mod upstream;

mod body;
mod progress;
mod record;
mod refusal;

mod access_log;
mod metrics;
mod observed;
mod status;

pub use access_log::AccessLog;
pub use observed::{Edge, Observed};
pub use plane::{DataPlane, Error, Inbound, Options, Target};
pub use table::Rejected;
