//! The program as its users meet it: whole processes, real sockets on ports that were free, data in folders that go away.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside of the mesh's doors, like the applications and clients that they play"
)]

mod application;
mod change;
mod command_line;
mod control_plane;
mod demo;
mod docs;
mod member;
mod outside;
mod process;
mod refused;
mod restart;
mod sidecar;
mod up;
mod up_life;
