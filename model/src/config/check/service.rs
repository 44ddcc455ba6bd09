//! Services as proven: what they run, what they may do, and what holds their callers.

use std::collections::{BTreeMap, BTreeSet};

use super::context::{Context, Wanted, inner, list};
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

pub(super) fn services(context: &mut Context<'_, '_>) -> BTreeMap<Name, Service> {
    let declared = context.mesh.services.clone();
    let mut proven = BTreeMap::new();
    for (key, located) in declared {
        let name = context.own_name(key);
        let Some(written) = &located.value else {
            context.lost_destination = true;
            continue;
        };
        context.lost_destination |= written.publishes.as_ref().is_some_and(|publishes| publishes.value.is_none());
        context.lost_destination |= written.consumes.as_ref().is_some_and(|consumes| consumes.value.is_none());
        let service = service(context, key, written);
        if let Some(name) = name {
            proven.insert(name, service);
        }
    }
    proven
}

fn service(context: &mut Context<'_, '_>, key: &Scalar<NameText>, written: &document::Service) -> Service {
    let protocol = context.read_or(written.protocol.as_ref(), Protocol::Http);
    let place = match &written.external {
        Some(located) => {
            refuse_inside(context, written);
            Where::External(external(context, located))
        }
        None => Where::Mesh(workload(context, key, written)),
    };
    Service {
        protocol,
        place,
        calls: references(context, written.calls.as_ref(), Context::service),
        publishes: references(context, written.publishes.as_ref(), |context, name| {
            context.destination(name, Wanted::Either)
        }),
        consumes: consumptions(context, written, protocol),
        inbound: inbound(context, inner(written.inbound.as_ref())),
        breaker: breaker(context, inner(written.breaker.as_ref())),
    }
}

/// A service outside of the mesh has no sidecar, so nothing can be asked of it but to be called.
fn refuse_inside(context: &mut Context<'_, '_>, written: &document::Service) {
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
        context.error(place, Mistake::new(code::CONFLICT, message).expected("external, protocol, breaker"));
    }
}

fn external(context: &mut Context<'_, '_>, located: &Located<document::External>) -> External {
    let Some(written) = &located.value else { return External { addresses: Vec::new(), tls: None } };
    let addresses: Vec<_> =
        list(written.addresses.as_ref()).iter().filter_map(|address| context.read(address)).collect();
    match &written.addresses {
        None => {
            context.missing(located.at, "a service outside of the mesh needs `addresses`", "addresses: [HOST:PORT]")
        }
        Some(Located { at, value: Some(list) }) if list.is_empty() => {
            context.missing(*at, "a service outside of the mesh needs at least one address", "HOST:PORT");
        }
        _ => {}
    }
    let tls = written.tls.as_ref().and_then(|located| {
        let tls = located.value.as_ref()?;
        let roots = tls.roots.as_ref().and_then(|roots| context.enclosed(roots));
        match &tls.name {
            Some(name) => Some(ExternalTls { name: context.read(name)?, roots }),
            None => {
                context.missing(located.at, "TLS needs the `name` to verify", "name: HOST");
                None
            }
        }
    });
    External { addresses, tls }
}

fn workload(context: &mut Context<'_, '_>, key: &Scalar<NameText>, written: &document::Service) -> Workload {
    let port = written.port.as_ref().and_then(|port| context.read(port)).and_then(|port| u16::try_from(port).ok());
    let whole = Group {
        name: None,
        command: written.command.as_ref().and_then(|command| context.read(command)),
        env: context.pairs(written.env.as_ref()),
        instances: context.number_or(written.instances.as_ref(), 1),
    };
    let groups = match &written.subsets {
        Some(located) => subsets(context, located, &whole),
        None => vec![whole],
    };
    let longest = NAME_LENGTH_MAX - INSTANCE_SUFFIX_LENGTH;
    if key.text().len() > longest {
        let message = format!("the name of a service has at most {longest} characters: its instances are numbered");
        context.error(key.at, Mistake::new(code::BAD_NAME, message));
    }
    Workload { port, groups, health: health(context, inner(written.health.as_ref())) }
}

fn subsets(
    context: &mut Context<'_, '_>,
    located: &Located<Entries<NameText, Located<document::Subset>>>,
    whole: &Group,
) -> Vec<Group> {
    let mut groups = Vec::new();
    let Some(Entries(entries)) = &located.value else { return groups };
    if entries.is_empty() {
        context.missing(located.at, "`subsets` names at least one; without it all instances are alike", "NAME: {}");
    }
    for (key, subset) in entries {
        let name = context.read(key);
        let Some(written) = &subset.value else { continue };
        let command = written.command.as_ref().and_then(|command| context.read(command));
        let mut env = whole.env.clone();
        env.extend(context.pairs(written.env.as_ref()));
        let instances = context.number_or(written.instances.as_ref(), whole.instances);
        groups.push(Group { name, command: command.or_else(|| whole.command.clone()), env, instances });
    }
    groups
}

fn health(context: &mut Context<'_, '_>, written: Option<&document::Health>) -> Health {
    let default = Health::default();
    let Some(written) = written else { return default };
    Health {
        path: written.path.as_ref().and_then(|path| context.read(path)),
        interval: context.read_or(written.interval.as_ref(), default.interval),
        timeout: context.read_or(written.timeout.as_ref(), default.timeout),
    }
}

fn inbound(context: &mut Context<'_, '_>, written: Option<&document::Inbound>) -> Inbound {
    let default = Inbound::default();
    let Some(written) = written else { return default };
    Inbound {
        body_bytes_max: context.read_or(written.body_max.as_ref(), default.body_bytes_max),
        concurrent_max: context.number_or(written.concurrent_max.as_ref(), default.concurrent_max),
    }
}

fn breaker(context: &mut Context<'_, '_>, written: Option<&document::Breaker>) -> Breaker {
    let default = Breaker::default();
    let Some(written) = written else { return default };
    let open = context.read_or(written.open.as_ref(), default.open);
    // Where only `open` is given, it may be longer than the default of `open_max`.
    let open_max = context.read_or(written.open_max.as_ref(), default.open_max.max(open));
    if let Some(at) = written.open_max.as_ref().map(|scalar| scalar.at).filter(|_| open_max < open) {
        let message = "`open_max` is shorter than `open`, the first time that a breaker stays open";
        context.error(at, Mistake::new(code::TIMEOUT_ORDER, message));
    }
    let consecutive_failures = context.number_or(written.consecutive_failures.as_ref(), default.consecutive_failures);
    let max_ejected = context.read_or(written.max_ejected.as_ref(), default.max_ejected);
    Breaker { consecutive_failures, open, open_max, max_ejected }
}

fn references<'d, 'a>(
    context: &mut Context<'d, 'a>,
    written: Option<&Located<Vec<Scalar<NameText>>>>,
    resolve: impl Fn(&mut Context<'d, 'a>, &Scalar<NameText>) -> Option<Name>,
) -> BTreeSet<Name> {
    let mut names = BTreeSet::new();
    for reference in list(written) {
        if let Some(name) = resolve(context, reference)
            && !names.insert(name)
        {
            let message = format!("`{}` stands in this list already", reference.text());
            context.error(reference.at, Mistake::new(code::DUPLICATE, message).expected("each name once"));
        }
    }
    names
}

fn consumptions(context: &mut Context<'_, '_>, written: &document::Service, protocol: Protocol) -> Vec<Consumption> {
    let mut proven: Vec<Consumption> = Vec::new();
    for located in list(written.consumes.as_ref()) {
        let Some(consumption) = consumption(context, located) else { continue };
        if proven.iter().any(|other| other.source == consumption.source) {
            let message = "the service consumes this already: it has one subscription, whatever its instances";
            context.error(located.at, Mistake::new(code::DUPLICATE, message));
        }
        if consumption.path.is_some() && protocol == Protocol::Grpc {
            let message = "messages are pushed as HTTP POSTs, and this service speaks gRPC";
            context.error(located.at, Mistake::new(code::PROTOCOL_MISMATCH, message));
        }
        proven.push(consumption);
    }
    proven
}

fn consumption(context: &mut Context<'_, '_>, located: &Located<document::Consumption>) -> Option<Consumption> {
    let Some(written) = &located.value else {
        context.lost_destination = true;
        return None;
    };
    let path = written.path.as_ref().and_then(|path| context.read(path));
    let concurrency = context.number_or(written.concurrency.as_ref(), CONCURRENCY);
    let source = match (&written.queue, &written.topic) {
        (Some(queue), None) => Source::Queue(context.destination(queue, Wanted::Queue)?),
        (None, Some(topic)) => {
            if written.path.is_none() {
                let what = "a topic is pushed, so its consumption needs a `path`";
                context.missing(located.at, what, "path: /PATH");
            }
            Source::Topic(context.destination(topic, Wanted::Topic)?)
        }
        (None, None) => {
            context.missing(located.at, "a consumption names a `queue` or a `topic`", "queue: NAME, or topic: NAME");
            context.lost_destination = true;
            return None;
        }
        (Some(_), Some(topic)) => {
            let mistake = Mistake::new(code::CONFLICT, "a consumption is of a queue or of a topic, not of both");
            context.error(topic.at, mistake.expected("two entries"));
            context.lost_destination = true;
            return None;
        }
    };
    Some(Consumption { source, path, concurrency })
}
