//! The snapshot in the shape that requests need: names resolved, weights summed, metrics looked up, endpoints with the state that
//! outlives a snapshot (connections, loads, breakers). Built whole or not at all; read without locks.

mod build;
mod endpoint;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::config::Protocol;
use model::name::Name;
use model::snapshot::Snapshot;
use policy::budget::Budget;
use policy::bulkhead::Bulkhead;
use policy::split::Split;

use crate::metrics::RouteMeters;

pub use build::Rejected;
pub(crate) use build::build;
pub(crate) use endpoint::{Endpoint, Lease};

/// One snapshot, ready for requests.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) services: BTreeMap<Name, Arc<Service>>,
    /// The application beside this sidecar, or the handler in its place.
    pub(crate) application: Option<Arc<Service>>,
    pub(crate) bulkhead: Option<Bulkhead>,
}

/// A service as its callers go to it.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: Name,
    pub(crate) callable: bool,
    /// What its application speaks.
    pub(crate) protocol: Protocol,
    /// As the policies want them; index for index the same as `routes`.
    pub(crate) rules: Vec<model::config::Route>,
    pub(crate) routes: Vec<Arc<Route>>,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    /// Shared by all routes, over all lanes.
    pub(crate) budget: Budget,
}

/// One route of a service.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) split: Split,
    pub(crate) backends: Vec<Backend>,
    pub(crate) timeouts: model::config::Timeouts,
    pub(crate) retry: model::config::Retry,
    pub(crate) meters: Arc<RouteMeters>,
}

/// Where a share of a route's requests goes.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) service: Name,
    pub(crate) subset: Option<Name>,
    pub(crate) protocol: Protocol,
    /// Its endpoints are sidecars.
    pub(crate) in_mesh: bool,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    /// Whether its endpoints can prove that they did not process a request, so that any method may be sent again: HTTP/2 can,
    /// and so can the sidecars of the mesh.
    pub(crate) proves_unprocessed: bool,
}

impl Backend {
    /// What is spoken to its endpoints for one request. Sidecars take both, and only HTTP/2 carries trailers whole: in HTTP/1.1 they
    /// get through where a `Trailer` header has announced them (RFC 9110 §6.6.2), which gRPC servers do not send.
    pub(crate) fn protocol_for(&self, by_http2: bool) -> Protocol {
        if by_http2 && self.in_mesh { Protocol::Grpc } else { self.protocol }
    }
}
