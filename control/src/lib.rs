//! The control plane: it holds the one versioned configuration of the mesh, is its certificate authority, knows which instances
//! live, and sends each role the part that concerns it.
//!
//! ```text
//! mesh file ─► publisher ─► revisions (disk)
//!                  │                         token ─► enrolment ─► authority
//!                  ▼                                                   │
//! registry ──►    hub  ──► cut ──► Snapshot ──► discovery ──► role ◄───┘ certificate
//!     ▲                                             │
//!     └──────────── hello, heartbeats, answers ─────┘
//! ```
//!
//! It never carries a request or a message: with the control plane gone every role works on with what it has. It leaves the
//! proof of a configuration to `model::config::check`, and starts no process. [`client`] is the roles' half.

pub mod authority;
pub mod client;
pub mod cut;
pub mod registry;
pub mod token;
pub mod view;

mod epoch;
mod hub;
mod instances;
mod plane;
mod publication;
mod publisher;
mod revisions;
mod serve;
mod sidecars;

pub use instances::forget as forget_instances;
pub use plane::{ControlPlane, Error, Options};
pub use publication::{Enclosure, MeshFile, Publication};
pub use publisher::Error as PublishError;
pub use revisions::{File as Revision, Kept, Revisions};
pub use sidecars::{Numbers, Rejected};
