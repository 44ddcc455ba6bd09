//! What one role is told: the part of the mesh that concerns it, whole, under a revision.
//!
//! A snapshot is cut out of a [`Config`](crate::config::Config) and the registry by `control`, travels as protobuf (`api`),
//! and is applied whole or not at all. It never holds what the declared graph does not give its subject.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Breaker, Consumption, External, GatewayBackend, Inbound, Protocol, Queue, Route, Topic};
use crate::identity::Subject;
use crate::name::Name;

/// The part of the mesh that concerns one subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The revision of the configuration it was cut from; grows by one with each configuration.
    pub revision: u64,
    /// Grows with each snapshot to this subject: also when only endpoints have changed.
    pub version: u64,
    /// The mesh's name, which is its trust domain.
    pub mesh: Name,
    /// Whom it is for.
    pub subject: Subject,
    /// What it may call, by name; the backends of their routes are here too, with `callable` false.
    pub services: BTreeMap<Name, ServicePart>,
    /// Every declared service, for "no such service; did you mean".
    pub declared: BTreeSet<Name>,
    /// What it holds its callers to; `None` for a gateway.
    pub inbound: Option<InboundPart>,
    /// Only for a gateway.
    pub gateway: Option<GatewayPart>,
    /// Only for the broker.
    pub broker: Option<BrokerPart>,
}

/// A service as its callers need it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServicePart {
    /// What it speaks.
    pub protocol: Protocol,
    /// Whether the subject may name it; `false`: only its routes' backends lead here.
    pub callable: bool,
    /// Who its endpoints must prove to be; `None`: it is outside of the mesh.
    pub subject: Option<Subject>,
    /// Where it is when it is outside.
    pub external: Option<External>,
    /// Tried in order; the last one matches every request.
    pub routes: Vec<Route>,
    /// How its endpoints are taken out of rotation.
    pub breaker: Breaker,
    /// The live instances. Empty for an external service.
    pub endpoints: Vec<Endpoint>,
}

/// A live instance of a service inside of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// The instance's name, unique in the mesh: `orders-0`.
    pub instance: Name,
    /// Where its sidecar listens for the mesh.
    pub address: SocketAddr,
    /// The subset it belongs to.
    pub subset: Option<Name>,
}

/// What a sidecar or the broker holds its callers to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InboundPart {
    /// What the application speaks.
    pub protocol: Protocol,
    /// Who may call: the edges of the declared graph that end here.
    pub callers: BTreeSet<Subject>,
    /// Bounds.
    pub limits: Inbound,
    /// How long nothing of a request's bodies may move: the longest `idle` of the routes that lead here, so that none is cut off here before
    /// its own. `None`: no bound.
    pub idle: Option<Duration>,
}

/// What a gateway lets through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatewayPart {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The first that matches.
    pub backends: Vec<GatewayBackend>,
    /// Largest request body in bytes.
    pub body_bytes_max: u64,
}

/// What the broker serves, and to whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BrokerPart {
    /// The queues.
    pub queues: BTreeMap<Name, Queue>,
    /// The topics.
    pub topics: BTreeMap<Name, Topic>,
    /// Queue or topic → who may publish to it.
    pub publishers: BTreeMap<Name, BTreeSet<Subject>>,
    /// Service → what it consumes. It names the subscription on a topic: one for each service.
    pub consumers: BTreeMap<Name, Vec<Consumption>>,
    /// Largest message in bytes.
    pub message_bytes_max: u64,
}
