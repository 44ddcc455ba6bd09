//! Services as proven: what they run, what they may do, and what holds their callers.

use std::collections::{BTreeMap, BTreeSet};

use super::desk::{Desk, Wanted, inner, list};
use crate::config::document::scalar::{NameText, Scalar};
use crate::config::document::{self, Entries, Located};
use crate::config::finding::{Mistake, Place, code};
use crate::config::{
    Breaker, Consumption, External, ExternalTls, Group, Health, Inbound, Place as Where, Protocol, Service, Source,
    Workload,
};
use crate::name::{NAME_LENGTH_MAX, Name};

/// What `up` adds to a service's name for each instance: a hyphen and at most two digits.
const INSTANCE_SUFFIX_LENGTH: usize = 3;
/// Deliveries at a time where a consumption does not say.
const CONCURRENCY: u16 = 8;

pub(super) fn services(desk: &mut Desk<'_, '_>) -> BTreeMap<Name, Service> {
    let declared = desk.mesh.services.clone();
    let mut proven = BTreeMap::new();
    for (key, located) in declared {
        let name = desk.own_name(key);
        let Some(written) = &located.value else {
            desk.lost_destination = true;
            continue;
        };
        desk.lost_destination |= written.publishes.as_ref().is_some_and(|publishes| publishes.value.is_none());
        desk.lost_destination |= written.consumes.as_ref().is_some_and(|consumes| consumes.value.is_none());
        let service = service(desk, key, written);
        if let Some(name) = name {
            proven.insert(name, service);
        }
    }
    proven
}

fn service(desk: &mut Desk<'_, '_>, key: &Scalar<NameText>, written: &document::Service) -> Service {
    let protocol = desk.read_or(written.protocol.as_ref(), Protocol::Http);
    let place = match &written.external {
        Some(located) => {
            refuse_inside(desk, written);
            Where::External(external(desk, located))
        }
        None => Where::Mesh(workload(desk, key, written)),
    };
    Service {
        protocol,
        place,
        calls: references(desk, written.calls.as_ref(), Desk::service),
        publishes: references(desk, written.publishes.as_ref(), |desk, name| desk.destination(name, Wanted::Either)),
        consumes: consumptions(desk, written, protocol),
        inbound: inbound(desk, inner(written.inbound.as_ref())),
        breaker: breaker(desk, inner(written.breaker.as_ref())),
    }
}

/// A service outside of the mesh has no sidecar, so nothing can be asked of it but to be called.
fn refuse_inside(desk: &mut Desk<'_, '_>, written: &document::Service) {
    let at = |scalar: Option<Place>, key| scalar.map(|place| (place, key));
    let inside = [
        at(written.command.as_ref().map(|w| w.at), "command"),
        at(written.port.as_ref().map(|w| w.at), "port"),
        at(written.instances.as_ref().map(|w| w.at), "instances"),
        at(written.subsets.as_ref().map(|w| w.at), "subsets"),
        at(written.env.as_ref().map(|w| w.at), "env"),
        at(written.health.as_ref().map(|w| w.at), "health"),
        at(written.calls.as_ref().map(|w| w.at), "calls"),
        at(written.publishes.as_ref().map(|w| w.at), "publishes"),
        at(written.consumes.as_ref().map(|w| w.at), "consumes"),
        at(written.inbound.as_ref().map(|w| w.at), "inbound"),
    ];
    for (place, key) in inside.into_iter().flatten() {
        let message = format!("a service outside of the mesh has no `{key}`: there is no sidecar beside it");
        desk.error(place, Mistake::new(code::CONFLICT, message).expected("external, protocol, breaker"));
    }
}

fn external(desk: &mut Desk<'_, '_>, located: &Located<document::External>) -> External {
    let Some(written) = &located.value else { return External { addresses: Vec::new(), tls: None } };
    let addresses: Vec<_> = list(written.addresses.as_ref()).iter().filter_map(|address| desk.read(address)).collect();
    match &written.addresses {
        None => desk.missing(located.at, "a service outside of the mesh needs `addresses`", "addresses: [HOST:PORT]"),
        Some(Located { at, value: Some(list) }) if list.is_empty() => {
            desk.missing(*at, "a service outside of the mesh needs at least one address", "HOST:PORT");
        }
        _ => {}
    }
    let tls = written.tls.as_ref().and_then(|located| {
        let tls = located.value.as_ref()?;
        let roots = tls.roots.as_ref().and_then(|roots| desk.enclosed(roots));
        match &tls.name {
            Some(name) => Some(ExternalTls { name: desk.read(name)?, roots }),
            None => {
                desk.missing(located.at, "TLS needs the `name` to verify", "name: HOST");
                None
            }
        }
    });
    External { addresses, tls }
}

fn workload(desk: &mut Desk<'_, '_>, key: &Scalar<NameText>, written: &document::Service) -> Workload {
    let port = written.port.as_ref().and_then(|port| desk.read(port)).and_then(|port| u16::try_from(port).ok());
    let whole = Group {
        name: None,
        command: written.command.as_ref().and_then(|command| desk.read(command)),
        env: desk.pairs(written.env.as_ref()),
        instances: desk.number_or(written.instances.as_ref(), 1),
    };
    let groups = match &written.subsets {
        Some(located) => subsets(desk, located, &whole),
        None => vec![whole],
    };
    let longest = NAME_LENGTH_MAX - INSTANCE_SUFFIX_LENGTH;
    if key.text().len() > longest {
        let message = format!("the name of a service has at most {longest} characters: its instances are numbered");
        desk.error(key.at, Mistake::new(code::BAD_NAME, message));
    }
    Workload { port, groups, health: health(desk, inner(written.health.as_ref())) }
}

fn subsets(
    desk: &mut Desk<'_, '_>,
    located: &Located<Entries<NameText, Located<document::Subset>>>,
    whole: &Group,
) -> Vec<Group> {
    let mut groups = Vec::new();
    let Some(Entries(entries)) = &located.value else { return groups };
    if entries.is_empty() {
        desk.missing(located.at, "`subsets` names at least one; without it all instances are alike", "NAME: {}");
    }
    for (key, subset) in entries {
        let name = desk.read(key);
        let Some(written) = &subset.value else { continue };
        let command = written.command.as_ref().and_then(|command| desk.read(command));
        let mut env = whole.env.clone();
        env.extend(desk.pairs(written.env.as_ref()));
        let instances = desk.number_or(written.instances.as_ref(), whole.instances);
        groups.push(Group { name, command: command.or_else(|| whole.command.clone()), env, instances });
    }
    groups
}

fn health(desk: &mut Desk<'_, '_>, written: Option<&document::Health>) -> Health {
    let default = Health::default();
    let Some(written) = written else { return default };
    Health {
        path: written.path.as_ref().and_then(|path| desk.read(path)),
        interval: desk.read_or(written.interval.as_ref(), default.interval),
        timeout: desk.read_or(written.timeout.as_ref(), default.timeout),
    }
}

fn inbound(desk: &mut Desk<'_, '_>, written: Option<&document::Inbound>) -> Inbound {
    let default = Inbound::default();
    let Some(written) = written else { return default };
    Inbound {
        body_bytes_max: desk.read_or(written.body_max.as_ref(), default.body_bytes_max),
        concurrent_max: desk.number_or(written.concurrent_max.as_ref(), default.concurrent_max),
    }
}

fn breaker(desk: &mut Desk<'_, '_>, written: Option<&document::Breaker>) -> Breaker {
    let default = Breaker::default();
    let Some(written) = written else { return default };
    let open = desk.read_or(written.open.as_ref(), default.open);
    // Where only `open` is given, it may be longer than the default of `open_max`.
    let open_max = desk.read_or(written.open_max.as_ref(), default.open_max.max(open));
    if let Some(at) = written.open_max.as_ref().map(|scalar| scalar.at).filter(|_| open_max < open) {
        let message = "`open_max` is shorter than `open`, the first time that a breaker stays open";
        desk.error(at, Mistake::new(code::TIMEOUT_ORDER, message));
    }
    let consecutive_failures = desk.number_or(written.consecutive_failures.as_ref(), default.consecutive_failures);
    let max_ejected = desk.read_or(written.max_ejected.as_ref(), default.max_ejected);
    Breaker { consecutive_failures, open, open_max, max_ejected }
}

fn references<'d, 'a>(
    desk: &mut Desk<'d, 'a>,
    written: Option<&Located<Vec<Scalar<NameText>>>>,
    resolve: impl Fn(&mut Desk<'d, 'a>, &Scalar<NameText>) -> Option<Name>,
) -> BTreeSet<Name> {
    let mut names = BTreeSet::new();
    for reference in list(written) {
        if let Some(name) = resolve(desk, reference)
            && !names.insert(name)
        {
            let message = format!("`{}` stands in this list already", reference.text());
            desk.error(reference.at, Mistake::new(code::DUPLICATE, message).expected("each name once"));
        }
    }
    names
}

fn consumptions(desk: &mut Desk<'_, '_>, written: &document::Service, protocol: Protocol) -> Vec<Consumption> {
    let mut proven: Vec<Consumption> = Vec::new();
    for located in list(written.consumes.as_ref()) {
        let Some(consumption) = consumption(desk, located) else { continue };
        if proven.iter().any(|other| other.source == consumption.source) {
            let message = "the service consumes this already: it has one subscription, whatever its instances";
            desk.error(located.at, Mistake::new(code::DUPLICATE, message));
        }
        if consumption.path.is_some() && protocol == Protocol::Grpc {
            let message = "messages are pushed as HTTP POSTs, and this service speaks gRPC";
            desk.error(located.at, Mistake::new(code::PROTOCOL_MISMATCH, message));
        }
        proven.push(consumption);
    }
    proven
}

fn consumption(desk: &mut Desk<'_, '_>, located: &Located<document::Consumption>) -> Option<Consumption> {
    let Some(written) = &located.value else {
        desk.lost_destination = true;
        return None;
    };
    let path = written.path.as_ref().and_then(|path| desk.read(path));
    let concurrency = desk.number_or(written.concurrency.as_ref(), CONCURRENCY);
    let source = match (&written.queue, &written.topic) {
        (Some(queue), None) => Source::Queue(desk.destination(queue, Wanted::Queue)?),
        (None, Some(topic)) => {
            if written.path.is_none() {
                let what = "a topic is pushed, so its consumption needs a `path`";
                desk.missing(located.at, what, "path: /PATH");
            }
            Source::Topic(desk.destination(topic, Wanted::Topic)?)
        }
        (None, None) => {
            desk.missing(located.at, "a consumption names a `queue` or a `topic`", "queue: NAME, or topic: NAME");
            desk.lost_destination = true;
            return None;
        }
        (Some(_), Some(topic)) => {
            let mistake = Mistake::new(code::CONFLICT, "a consumption is of a queue or of a topic, not of both");
            desk.error(topic.at, mistake.expected("two entries"));
            desk.lost_destination = true;
            return None;
        }
    };
    Some(Consumption { source, path, concurrency })
}
