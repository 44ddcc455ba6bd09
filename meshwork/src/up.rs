//! A whole mesh on one machine: the control plane, the broker, the gateways, and each application beside its sidecar, as processes.
//!
//! It starts them in the order of the declared graph, brings back what ends by itself, and ends all of them in an order that
//! loses nothing. It carries no request, and knows of applications only what the mesh file says. What is written to the
//! terminal is left to the caller, who reads the [`Event`]s.

mod error;
pub mod event;
pub(crate) mod folder;
pub(crate) mod health;
mod invocation;
pub mod leftover;
mod mesh;
mod plan;
pub(crate) mod ports;
mod process;
mod program;
pub mod show;
mod supervisor;
mod tokens;

pub use error::Error;
pub use event::{Event, State};
pub use mesh::{Mesh, Options, Report};
