//! The mesh file as written: its types, from which it is read and from which its JSON Schema is made.
//!
//! Nothing is judged here but form: keys, lists, mappings. What the words mean, and whether they fit together, is left to
//! [`check`](mod@super::check); so every scalar keeps its text and its place. The doc comment of a field is its description in the
//! schema: unit, range, default.

mod later;
mod located;
mod messaging;
mod read;
pub mod scalar;
mod service;
mod traffic;
mod tree;

use schemars::JsonSchema;
use serde::Deserialize;

pub use located::{Entries, Located};
pub use messaging::{Broker, Consumption, DeadLetter, Delivery, DeliveryBackoff, Queue, Topic};
use scalar::{NameText, Scalar};
pub use service::{Breaker, External, ExternalTls, Health, Inbound, Service, Subset};
pub use traffic::{Backend, Gateway, GatewayBackend, Match, PathMatch, Retry, Route, Timeouts};
pub use tree::{DEPTH_MAX, FILE_BYTES_MAX, NODES_MAX};

use super::finding::{Findings, Source};

/// A mesh, or one file of several that describe it: the services, how they call each other, and what they send.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Meshwork mesh file")]
pub struct Document {
    /// The mesh's name, which is its SPIFFE trust domain: `shop` gives `spiffe://shop/service/orders`.
    #[schemars(required)]
    pub mesh: Option<Scalar<NameText>>,
    /// The services by name, inside and outside of the mesh. `broker` and `sidecar` are reserved.
    pub services: Option<Located<Entries<NameText, Located<Service>>>>,
    /// The doors for clients from outside, by name.
    pub gateways: Option<Located<Entries<NameText, Located<Gateway>>>>,
    /// What happens to the requests of a service; of the routes of one service the first that matches.
    pub routes: Option<Located<Vec<Located<Route>>>>,
    /// The queues by name: each message goes to one consumer.
    pub queues: Option<Located<Entries<NameText, Located<Queue>>>>,
    /// The topics by name: each consuming service gets every message. A name is either a queue's or a topic's.
    pub topics: Option<Located<Entries<NameText, Located<Topic>>>>,
    /// The broker's own settings.
    pub broker: Option<Located<Broker>>,
}

/// Reads one file. Whatever of it could be read is there; the rest is among the findings.
pub(super) fn parse(source: Source<'_>, file: u32, findings: &mut Findings<'_>) -> Option<Located<Document>> {
    let tree = tree::parse(source, file, findings)?;
    Some(read::read(&tree, findings))
}
