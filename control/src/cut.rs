//! The cut: what the declared graph gives one subject, and nothing else. Pure.
//!
//! A subject is told of the services that it may call, of those to which their routes lead, and of who may call it. The names
//! of all services are given to everyone, so that a refusal can say "did you mean".

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::config::{
    self, BROKER, Breaker, Config, Inbound, LEASE_WAIT_MAX, Match, PathMatch, Place, Protocol, Route, Service, Source,
    Timeouts,
};
use model::identity::Subject;
use model::name::Name;
use model::snapshot::{BrokerPart, GatewayPart, InboundPart, ServicePart, Snapshot};

use crate::registry::Registry;

/// Requests in progress at a time at the broker: leases wait there for messages, so it is many more than at a service.
const BROKER_CONCURRENT_MAX: u32 = 16_384;

/// Cuts the part of `subject` out of a configuration; `None` when it does not declare the subject, or the subject is outside of
/// the mesh. `version` is 0: whoever sends the snapshot counts.
#[must_use]
pub fn cut(config: &Config, revision: u64, registry: &Registry, subject: &Subject) -> Option<Snapshot> {
    let mut snapshot = Snapshot {
        revision,
        version: 0,
        mesh: config.mesh.clone(),
        subject: subject.clone(),
        services: BTreeMap::new(),
        declared: config.services.keys().cloned().collect(),
        inbound: None,
        gateway: None,
        broker: None,
    };
    let callable = match subject {
        Subject::Service(name) => {
            let service = config.services.get(name).filter(|service| matches!(service.place, Place::Mesh(_)))?;
            snapshot.inbound = Some(inbound_of(config, name, service));
            snapshot.services.extend(broker_for(service, registry));
            service.calls.clone()
        }
        Subject::Gateway(name) => {
            let gateway = config.gateways.get(name)?;
            snapshot.gateway = Some(gateway_part(gateway));
            gateway.backends.iter().map(|backend| backend.service.clone()).collect()
        }
        Subject::Broker => {
            snapshot.inbound = Some(inbound_of_broker(config));
            snapshot.broker = Some(broker_part(config));
            pushed_to(config)
        }
        Subject::ControlPlane => return None,
    };
    snapshot.services.extend(with_backends(config, registry, &callable));
    if *subject == Subject::Broker {
        unbound(&mut snapshot.services);
    }
    Some(snapshot)
}

/// How long a delivery may take is its `ack_timeout`, which the broker holds; a bound for callers would cut it off before.
fn unbound(services: &mut BTreeMap<Name, ServicePart>) {
    for route in services.values_mut().flat_map(|part| &mut part.routes) {
        route.timeouts = Timeouts { request: None, attempt: None, ..route.timeouts };
    }
}

/// What may be named, and what its routes lead to.
fn with_backends(config: &Config, registry: &Registry, callable: &BTreeSet<Name>) -> BTreeMap<Name, ServicePart> {
    let mut parts = BTreeMap::new();
    for (name, service) in callable.iter().filter_map(|name| config.services.get_key_value(name)) {
        let routes = routes_of(config, name);
        let behind = routes.iter().flat_map(|route| &route.backends).map(|backend| &backend.service);
        for (behind, service) in behind.filter_map(|behind| config.services.get_key_value(behind)) {
            let part = || service_part(registry, behind, service, false, Vec::new());
            parts.entry(behind.clone()).or_insert_with(part);
        }
        parts.insert(name.clone(), service_part(registry, name, service, true, routes));
    }
    parts
}

fn service_part(
    registry: &Registry,
    name: &Name,
    service: &Service,
    callable: bool,
    routes: Vec<Route>,
) -> ServicePart {
    let subject = Subject::Service(name.clone());
    let (subject, external, endpoints) = match &service.place {
        Place::Mesh(_) => (Some(subject.clone()), None, registry.endpoints(&subject)),
        Place::External(external) => (None, Some(external.clone()), Vec::new()),
    };
    let breaker = service.breaker.clone();
    ServicePart { protocol: service.protocol, callable, subject, external, routes, breaker, endpoints }
}

/// A service's routes, of which the last one matches every request.
fn routes_of(config: &Config, name: &Name) -> Vec<Route> {
    let mut routes = config.routes.get(name).cloned().unwrap_or_default();
    if routes.last().is_none_or(|last| !last.matches.is_empty()) {
        routes.push(Route::plain(name));
    }
    routes
}

fn inbound_of(config: &Config, name: &Name, service: &Service) -> InboundPart {
    let (protocol, limits) = (service.protocol, service.inbound.clone());
    InboundPart { protocol, callers: config.callers_of(name), limits, idle: idle_of(config, name) }
}

/// The longest idle bound of all routes that lead to a service, those included that nobody has written.
fn idle_of(config: &Config, name: &Name) -> Option<Duration> {
    let leads_here = |route: &&Route| route.backends.iter().any(|backend| backend.service == *name);
    let routes = config.routes.values().flatten().filter(leads_here).map(|route| route.timeouts.idle);
    // No bound is longer than any.
    routes.chain([Timeouts::default().idle]).collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// The broker, for who sends to it or is served from it.
fn broker_for(service: &Service, registry: &Registry) -> Option<(Name, ServicePart)> {
    let name = Name::new(BROKER).ok().filter(|_| uses_broker(service))?;
    let part = ServicePart {
        protocol: Protocol::Http,
        callable: true,
        subject: Some(Subject::Broker),
        external: None,
        routes: broker_routes(service, &name),
        breaker: Breaker::default(),
        endpoints: registry.endpoints(&Subject::Broker),
    };
    Some((name, part))
}

/// A request for leases waits at the broker for messages, so it has the time for that beside the time of every other request. The
/// paths are those of the broker's API.
fn broker_routes(service: &Service, broker: &Name) -> Vec<Route> {
    let all = Route::plain(broker);
    let queues = service.consumes.iter().filter_map(|consumption| match &consumption.source {
        Source::Queue(queue) => Some(format!("/v1/queues/{queue}/leases")),
        Source::Topic(_) => None,
    });
    let paths: Vec<_> = queues.chain(["/meshwork.broker.v1.Queues/Lease".to_owned()]).collect();
    if paths.len() == 1 {
        return vec![all];
    }
    let matched = |path| Match { path: Some(PathMatch::Exact(path)), method: None, headers: BTreeMap::new() };
    let request = all.timeouts.request.map(|bound| bound + LEASE_WAIT_MAX);
    let leases = Route {
        name: "leases".to_owned(),
        matches: paths.into_iter().map(matched).collect(),
        timeouts: Timeouts { request, ..all.timeouts },
        ..all.clone()
    };
    vec![leases, all]
}

fn uses_broker(service: &Service) -> bool {
    !service.publishes.is_empty() || !service.consumes.is_empty()
}

fn inbound_of_broker(config: &Config) -> InboundPart {
    let users = config.services.iter().filter(|(_, service)| uses_broker(service));
    // The broker holds messages to their own bound; this one is for batches, and for a message in its structured form.
    let body_bytes_max = Inbound::default().body_bytes_max.max(config.broker.message_bytes_max.saturating_mul(2));
    InboundPart {
        protocol: Protocol::Http,
        callers: users.map(|(name, _)| Subject::Service(name.clone())).collect(),
        limits: Inbound { concurrent_max: BROKER_CONCURRENT_MAX, body_bytes_max },
        idle: Timeouts::default().idle,
    }
}

/// The services to which the broker pushes.
fn pushed_to(config: &Config) -> BTreeSet<Name> {
    let pushed = |service: &Service| service.consumes.iter().any(|consumption| consumption.path.is_some());
    config.services.iter().filter(|(_, service)| pushed(service)).map(|(name, _)| name.clone()).collect()
}

fn gateway_part(gateway: &config::Gateway) -> GatewayPart {
    GatewayPart { listen: gateway.listen, backends: gateway.backends.clone(), body_bytes_max: gateway.body_bytes_max }
}

fn broker_part(config: &Config) -> BrokerPart {
    let kept = config.queues.keys().chain(config.topics.keys());
    let consuming = config.services.iter().filter(|(_, service)| !service.consumes.is_empty());
    BrokerPart {
        queues: config.queues.clone(),
        topics: config.topics.clone(),
        publishers: kept.map(|name| (name.clone(), config.publishers_of(name))).collect(),
        consumers: consuming.map(|(name, service)| (name.clone(), service.consumes.clone())).collect(),
        message_bytes_max: config.broker.message_bytes_max,
    }
}

#[cfg(test)]
mod tests;
