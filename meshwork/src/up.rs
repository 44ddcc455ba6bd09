//! A whole mesh on one machine: the control plane, the broker, the gateways, and each application beside its sidecar, as processes.
//!
//! It starts them in the order of the declared graph, brings back what ends by itself, and ends all of them in an order that
//! loses nothing. It carries no request, and knows of applications only what the mesh file says. What is written to the
//! terminal is left to the caller, who reads the [`Event`]s.

mod beginning;
mod error;
pub mod event;
pub(crate) mod folder;
mod follow;
mod instance;
mod invocation;
mod launch;
pub mod leftover;
mod mesh;
mod plan;
pub(crate) mod ports;
mod process;
mod program;
mod reconcile;
pub mod show;
mod supervisor;
mod tokens;
mod watch;

pub(crate) use beginning::{Beginning, start};
pub use error::Error;
pub use event::{Event, State};
pub(crate) use follow::Follow;
pub use instance::Report;
pub use mesh::{Mesh, Options};
pub(crate) use watch::Watch;
