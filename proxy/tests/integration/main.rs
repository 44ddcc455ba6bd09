//! The data plane over real sockets: small applications at the edges, two data planes with a test's own certificate authority
//! between them.
//!
//! `kit` builds meshes; each of the other files asks one kind of question.

mod kit;

mod answers;
mod blame;
mod calls;
mod doors;
mod drain;
mod gateway;
mod grpc;
mod heads;
mod hostile;
mod refusals;
mod retries;
mod shared;
mod tunnels;
mod upstream_http2;
