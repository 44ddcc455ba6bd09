//! Meshes: data planes with a test's snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use model::config::{self, External, GatewayBackend, Protocol, Route};
use model::identity::Subject;
use model::name::Name;
use model::snapshot::{Endpoint, GatewayPart, InboundPart, ServicePart, Snapshot};
use proxy::{AccessLog, DataPlane, Inbound, Options, Target};
use runtime::drain::Signal;
use runtime::lanes::Lanes;
use runtime::metrics::Metrics;

use super::Ca;

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn anywhere() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// The authority and the declared services that all data planes of a test share.
pub struct Mesh {
    pub ca: Ca,
    pub declared: Vec<&'static str>,
    /// Where its data planes run: on the test's own runtime, if not on threads.
    pub lanes: Arc<Lanes>,
}

/// A data plane of the mesh.
pub struct Node {
    pub plane: DataPlane,
    pub snapshot: Snapshot,
    pub signal: Option<Signal>,
}

impl Mesh {
    pub fn new(declared: &[&'static str]) -> Self {
        Self { ca: Ca::new(&name("test")), declared: declared.to_vec(), lanes: Arc::new(Lanes::inline()) }
    }

    async fn node(&self, subject: Subject, outbound: bool, target: Option<Target>, gateway: bool) -> Node {
        let (signal, drain) = runtime::drain::channel();
        let instance = name(&subject.to_string().replace('/', "-"));
        let plane = DataPlane::start(Options {
            mesh: name("test"),
            subject: subject.clone(),
            instance,
            identity: Some(self.ca.identity(&subject)),
            lanes: self.lanes.clone(),
            metrics: Metrics::default(),
            access_log: AccessLog::Off,
            outbound: outbound.then(anywhere),
            status: gateway.then(anywhere),
            inbound: target.map(|target| Inbound { listen: anywhere(), target }),
            gateway: gateway.then(anywhere),
            drain,
        })
        .await
        .unwrap();
        let snapshot = Snapshot {
            revision: 1,
            version: 1,
            mesh: name("test"),
            subject,
            services: BTreeMap::new(),
            declared: self.declared.iter().map(|text| name(text)).collect(),
            inbound: None,
            gateway: None,
            broker: None,
        };
        Node { plane, snapshot, signal: Some(signal) }
    }

    /// A sidecar whose application only calls.
    pub async fn caller(&self, service: &str, services: Vec<(&str, ServicePart)>) -> Node {
        let mut node = self.node(Subject::Service(name(service)), true, None, false).await;
        node.snapshot.services = services.into_iter().map(|(text, part)| (name(text), part)).collect();
        node.apply();
        node
    }

    /// A sidecar whose application is only called.
    pub async fn callee(&self, service: &str, protocol: Protocol, target: Target, callers: &[&str]) -> Node {
        self.callee_with(service, protocol, target, callers, config::Inbound::default()).await
    }

    pub async fn callee_with(
        &self,
        service: &str,
        protocol: Protocol,
        target: Target,
        callers: &[&str],
        limits: config::Inbound,
    ) -> Node {
        let mut node = self.node(Subject::Service(name(service)), false, Some(target), false).await;
        let callers: BTreeSet<_> = callers.iter().map(|text| Subject::Service(name(text))).collect();
        node.snapshot.inbound = Some(InboundPart { protocol, callers, limits });
        node.apply();
        node
    }

    /// A gateway with one backend.
    pub async fn gateway(&self, backend: GatewayBackend, part: ServicePart, body_bytes_max: u64) -> Node {
        let mut node = self.node(Subject::Gateway(name("door")), false, None, true).await;
        node.snapshot.services = BTreeMap::from([(backend.service.clone(), part)]);
        node.snapshot.gateway = Some(GatewayPart { listen: anywhere(), backends: vec![backend], body_bytes_max });
        node.apply();
        node
    }

    /// A data plane that was given no snapshot yet.
    pub async fn fresh(&self, service: &str) -> Node {
        self.node(Subject::Service(name(service)), true, None, false).await
    }
}

impl Node {
    pub fn apply(&mut self) {
        self.snapshot.version += 1;
        self.plane.apply(Arc::new(self.snapshot.clone())).unwrap();
    }

    pub fn outbound(&self) -> SocketAddr {
        self.plane.outbound_address().unwrap()
    }

    pub fn inbound(&self) -> SocketAddr {
        self.plane.inbound_address().unwrap()
    }

    pub fn part(&mut self, service: &str) -> &mut ServicePart {
        self.snapshot.services.get_mut(&name(service)).unwrap()
    }
}

/// A service of the mesh at these endpoints.
pub fn in_mesh(service: &str, protocol: Protocol, endpoints: Vec<Endpoint>) -> ServicePart {
    ServicePart {
        protocol,
        callable: true,
        subject: Some(Subject::Service(name(service))),
        external: None,
        routes: vec![Route::plain(&name(service))],
        breaker: config::Breaker::default(),
        endpoints,
    }
}

/// A plain-text service outside of the mesh.
pub fn external(service: &str, protocol: Protocol, addresses: &[SocketAddr]) -> ServicePart {
    let addresses = addresses.iter().map(ToString::to_string).collect();
    let external = Some(External { addresses, tls: None });
    ServicePart { subject: None, external, ..in_mesh(service, protocol, Vec::new()) }
}

/// `orders` calls `catalog`, whose application is at this address.
pub async fn called(app: SocketAddr, protocol: Protocol, limits: config::Inbound) -> (Node, Node) {
    let mesh = Mesh::new(&["orders", "catalog", "secret"]);
    let catalog = mesh.callee_with("catalog", protocol, Target::Application(app), &["orders"], limits).await;
    let part = in_mesh("catalog", protocol, vec![endpoint("catalog-0", catalog.inbound())]);
    (mesh.caller("orders", vec![("catalog", part)]).await, catalog)
}

pub fn endpoint(instance: &str, address: SocketAddr) -> Endpoint {
    Endpoint { instance: name(instance), address, subset: None }
}
