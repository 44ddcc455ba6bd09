//! Making a table out of a snapshot, with all that stays of the table before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderValue;
use model::config::{Breaker, External, Protocol, Retry, RetryOn, Route as Rule, Timeouts};
use model::name::Name;
use model::snapshot::{ServicePart, Snapshot};
use policy::budget::Budget;
use policy::bulkhead::Bulkhead;
use policy::split::Split;
use runtime::tls::{self, Alpn};

use super::{Backend, Endpoint, Route, Service, Table};
use crate::edge::Direction;
use crate::plane::{Plane, Target};
use crate::upstream::{Address, Dial, Security};

/// Why a snapshot is not applied. The one before it stays in force, whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It was cut for someone else.
    #[error("the snapshot is for {found}, and this is {own}")]
    Other {
        /// Whom it is for.
        found: String,
        /// Who this is.
        own: String,
    },
    /// A newer one is in force.
    #[error("snapshot version {found} is older than version {current}, which is in force")]
    Old {
        /// Its version.
        found: u64,
        /// The version in force.
        current: u64,
    },
    /// It contradicts itself.
    #[error("service {service}: {why}")]
    Service {
        /// Where.
        service: Name,
        /// What.
        why: String,
    },
}

type Endpoints = BTreeMap<Name, Vec<Arc<Endpoint>>>;

/// Builds the table. Endpoints that were there before keep their connections, loads and breakers.
pub(crate) fn build(plane: &Plane, snapshot: Arc<Snapshot>, before: Option<&Table>) -> Result<Table, Rejected> {
    check(plane, &snapshot, before)?;
    let mut endpoints = Endpoints::new();
    for (name, part) in &snapshot.services {
        let kept = before.and_then(|table| table.services.get(name)).map_or(&[][..], |service| &service.endpoints);
        endpoints.insert(name.clone(), endpoints_of(plane, name, part, kept)?);
    }
    let mut services = BTreeMap::new();
    for (name, part) in &snapshot.services {
        let budget = before.and_then(|table| table.services.get(name)).map(|service| service.budget.clone());
        let service = service(plane, &snapshot, &endpoints, name, part, budget.unwrap_or_default())?;
        services.insert(name.clone(), Arc::new(service));
    }
    let limits = snapshot.inbound.as_ref().map(|inbound| &inbound.limits);
    let bulkhead = limits.map(|limits| match before.and_then(|table| table.bulkhead.as_ref()) {
        Some(bulkhead) => bulkhead.resized(limits.concurrent_max),
        None => Bulkhead::new(limits.concurrent_max),
    });
    let application = application(plane, &snapshot, before);
    Ok(Table { services, application, bulkhead, snapshot })
}

fn check(plane: &Plane, snapshot: &Snapshot, before: Option<&Table>) -> Result<(), Rejected> {
    if snapshot.subject != plane.subject || snapshot.mesh != plane.mesh {
        let found = format!("{} of mesh {}", snapshot.subject, snapshot.mesh);
        return Err(Rejected::Other { found, own: format!("{} of mesh {}", plane.subject, plane.mesh) });
    }
    match before.map(|table| table.snapshot.version) {
        Some(current) if snapshot.version < current => Err(Rejected::Old { found: snapshot.version, current }),
        _ => Ok(()),
    }
}

fn endpoints_of(
    plane: &Plane,
    service: &Name,
    part: &ServicePart,
    kept: &[Arc<Endpoint>],
) -> Result<Vec<Arc<Endpoint>>, Rejected> {
    let dials = match (&part.external, &part.subject) {
        (Some(external), _) => external_dials(service, part.protocol, external)?,
        (None, Some(subject)) => {
            let dial = |endpoint: &model::snapshot::Endpoint| Dial {
                address: Address::Socket(endpoint.address),
                security: Security::Mesh(subject.clone()),
            };
            let one = |e: &model::snapshot::Endpoint| (e.instance.to_string(), e.subset.clone(), dial(e));
            part.endpoints.iter().map(one).collect()
        }
        (None, None) => {
            let why = "it is neither inside of the mesh nor outside".to_owned();
            return Err(Rejected::Service { service: service.clone(), why });
        }
    };
    let keep_or_make = |(name, subset, dial): (String, Option<Name>, Dial)| {
        let same = |e: &&Arc<Endpoint>| e.is(&name, subset.as_ref(), &dial, &part.breaker);
        match kept.iter().find(same) {
            Some(endpoint) => endpoint.clone(),
            None => {
                let dialler = plane.dialler(dial);
                Arc::new(Endpoint::new(name, subset, dialler, &part.breaker, plane.slots(), plane.now()))
            }
        }
    };
    Ok(dials.into_iter().map(keep_or_make).collect())
}

fn external_dials(
    service: &Name,
    protocol: Protocol,
    external: &External,
) -> Result<Vec<(String, Option<Name>, Dial)>, Rejected> {
    let alpn = match protocol {
        Protocol::Http => Alpn::Http1,
        Protocol::Grpc => Alpn::Http2,
    };
    let rejected = |why: String| Rejected::Service { service: service.clone(), why };
    let security = match &external.tls {
        None => Security::Plain,
        Some(tls) => {
            // The checked configuration carries the roots themselves where it names any: a data plane reads no files.
            let roots = tls.roots.as_deref().map(str::as_bytes);
            let config = tls::external(roots, alpn).map_err(|error| rejected(error.to_string()))?;
            Security::External { name: tls.name.clone(), roots: tls.roots.clone(), config }
        }
    };
    let dial = |address: &String| {
        let parsed = address.parse().map_or_else(|_| Address::Named(address.clone()), Address::Socket);
        (address.clone(), None, Dial { address: parsed, security: security.clone() })
    };
    Ok(external.addresses.iter().map(dial).collect())
}

fn service(
    plane: &Plane,
    snapshot: &Snapshot,
    endpoints: &Endpoints,
    name: &Name,
    part: &ServicePart,
    budget: Budget,
) -> Result<Service, Rejected> {
    let rules = if part.routes.is_empty() { vec![Rule::plain(name)] } else { part.routes.clone() };
    let routes = rules.iter().map(|rule| route(plane, snapshot, endpoints, name, rule).map(Arc::new));
    Ok(Service {
        name: name.clone(),
        callable: part.callable,
        protocol: part.protocol,
        routes: routes.collect::<Result<_, _>>()?,
        rules,
        endpoints: endpoints.get(name).cloned().unwrap_or_default(),
        budget,
    })
}

fn route(
    plane: &Plane,
    snapshot: &Snapshot,
    endpoints: &Endpoints,
    service: &Name,
    rule: &Rule,
) -> Result<Route, Rejected> {
    let rejected = |why: String| Rejected::Service { service: service.clone(), why };
    let mut backends = Vec::new();
    for backend in &rule.backends {
        let part = snapshot.services.get(&backend.service);
        let part = part.ok_or_else(|| {
            rejected(format!("route {} leads to {}, which the snapshot does not hold", rule.name, backend.service))
        })?;
        let in_subset = |e: &&Arc<Endpoint>| backend.subset.is_none() || e.subset == backend.subset;
        backends.push(Backend {
            service: backend.service.clone(),
            subset: backend.subset.clone(),
            protocol: part.protocol,
            in_mesh: part.external.is_none(),
            endpoints: endpoints[&backend.service].iter().filter(in_subset).cloned().collect(),
            proves_unprocessed: part.protocol == Protocol::Grpc || part.external.is_none(),
            host: part.external.as_ref().and_then(host_of),
        });
    }
    let split = Split::of(&rule.backends);
    if split.choose(0).is_none() {
        return Err(rejected(format!("route {} leads nowhere", rule.name)));
    }
    let direction = if snapshot.gateway.is_some() { Direction::Gateway } else { Direction::Outbound };
    Ok(Route {
        split,
        backends,
        timeouts: rule.timeouts.clone(),
        retry: rule.retry.clone(),
        meters: Arc::new(plane.meters.route(direction, service.as_str(), &rule.name, plane.tally(service))),
    })
}

/// Outside of the mesh a server is addressed by its own name, not by the mesh's name for it.
fn host_of(external: &External) -> Option<HeaderValue> {
    let address = external.addresses.first()?;
    let host = match &external.tls {
        Some(tls) => match address.rsplit_once(':') {
            Some((_, "443")) | None => tls.name.clone(),
            Some((_, port)) => format!("{}:{port}", tls.name),
        },
        None => address.strip_suffix(":80").unwrap_or(address).to_owned(),
    };
    HeaderValue::from_str(&host).ok()
}

/// The application beside this sidecar as a service of one endpoint: it is reached through the same pipeline as any other.
fn application(plane: &Plane, snapshot: &Snapshot, before: Option<&Table>) -> Option<Arc<Service>> {
    let inbound = snapshot.inbound.as_ref()?;
    let name = match &plane.subject {
        model::identity::Subject::Service(name) | model::identity::Subject::Gateway(name) => name.clone(),
        other => Name::new(&other.to_string()).ok()?,
    };
    let kept = before.and_then(|table| table.application.as_ref());
    let endpoints = match plane.target.as_ref()? {
        Target::Handler(_) => Vec::new(),
        Target::Application(address) => {
            let dial = Dial { address: Address::Socket(*address), security: Security::Plain };
            // Whether this instance is worth asking is for its callers' breakers to find out.
            let breaker = Breaker { consecutive_failures: u32::MAX, ..Breaker::default() };
            let instance = plane.instance.as_str();
            let same = |e: &&Arc<Endpoint>| e.is(instance, None, &dial, &breaker);
            let endpoint = kept.and_then(|service| service.endpoints.iter().find(same).cloned());
            let make = || {
                let dialler = plane.dialler(dial.clone());
                Arc::new(Endpoint::new(instance.to_owned(), None, dialler, &breaker, plane.slots(), plane.now()))
            };
            vec![endpoint.unwrap_or_else(make)]
        }
    };
    // How long it may take is the caller's to say, and it says so by giving up. An application that cannot be reached is told
    // to the caller at once: it may know another instance.
    let mut rule = Rule::plain(&name);
    "application".clone_into(&mut rule.name);
    rule.timeouts = Timeouts { request: None, attempt: None };
    rule.retry = Retry { on: [RetryOn::ResetBeforeProcessing].into(), ..Retry::default() };
    let backend = Backend {
        service: name.clone(),
        subset: None,
        protocol: inbound.protocol,
        in_mesh: false,
        endpoints: endpoints.clone(),
        proves_unprocessed: inbound.protocol == Protocol::Grpc,
        host: None,
    };
    let meters = plane.meters.route(Direction::Inbound, name.as_str(), &rule.name, Arc::default());
    let route = Route {
        split: Split::of(&rule.backends),
        backends: vec![backend],
        timeouts: rule.timeouts.clone(),
        retry: rule.retry.clone(),
        meters: Arc::new(meters),
    };
    let budget = kept.map(|service| service.budget.clone()).unwrap_or_default();
    Some(Arc::new(Service {
        name,
        callable: true,
        protocol: inbound.protocol,
        rules: vec![rule],
        routes: vec![Arc::new(route)],
        endpoints,
        budget,
    }))
}
