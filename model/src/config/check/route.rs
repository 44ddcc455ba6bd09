//! Routes as proven: where the requests of a service go, how long they may take, and what is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::context::{Context, inner, list};
use super::traffic;
use crate::config::document::{self, Located};
use crate::config::finding::{Mistake, Place, code};
use crate::config::{Backend, Protocol, Retry, RetryOn, Route, Service, Timeouts};
use crate::name::{self, Name};

/// Methods that are not idempotent (RFC 9110 §9.2.2; RFC 5789 for PATCH).
const NOT_IDEMPOTENT: [&str; 3] = ["POST", "PATCH", "CONNECT"];

/// The name of [`Route::plain`].
const PLAIN_NAME: &str = "default";

pub(super) fn routes(context: &mut Context<'_, '_>, services: &BTreeMap<Name, Service>) -> BTreeMap<Name, Vec<Route>> {
    let declared = context.mesh.routes.clone();
    let mut proven: BTreeMap<Name, Vec<Route>> = BTreeMap::new();
    for located in declared {
        let Some(written) = &located.value else { continue };
        let owner = written.service.as_ref().and_then(|service| context.service(service));
        if written.service.is_none() {
            context.missing(located.at, "a route names its `service`", "service: NAME");
        }
        let protocol = owner.as_ref().and_then(|name| services.get(name)).map(|service| service.protocol);
        let earlier = owner.as_ref().and_then(|name| proven.get(name)).map_or(&[][..], Vec::as_slice);
        let mut route = route(context, located.at, written, earlier, protocol);
        let Some(owner) = owner else { continue };
        if written.backends.is_none() {
            route.backends = vec![Backend { service: owner.clone(), subset: None, weight: 1 }];
        }
        check_protocols(context, services, written, &route, protocol);
        proven.entry(owner).or_default().push(route);
    }
    proven
}

fn route(
    context: &mut Context<'_, '_>,
    at: Place,
    written: &document::Route,
    earlier: &[Route],
    protocol: Option<Protocol>,
) -> Route {
    let matches = traffic::matches(context, written.matches.as_ref());
    if let Some(all) = earlier.iter().find(|route| route.matches.is_empty()) {
        let message = format!("the route `{}` before this takes every request of the service", all.name);
        context.warning(at, Mistake::new(code::NEVER_REACHED, message));
    }
    let retry = retry(context, inner(written.retry.as_ref()));
    let unsafe_match = matches.iter().find_map(|m| m.method.clone()).filter(|m| NOT_IDEMPOTENT.contains(&m.as_str()));
    let unsafe_method =
        unsafe_match.or_else(|| (protocol == Some(Protocol::Grpc)).then(|| "POST, as gRPC does".to_owned()));
    if let (Some(method), Some(on)) = (unsafe_method, on_place(written)) {
        check_effect(context, on, &retry, &method);
    }
    Route {
        name: route_name(context, written, earlier),
        matches,
        backends: backends(context, written.backends.as_ref()),
        timeouts: timeouts(context, inner(written.timeouts.as_ref())),
        retry,
    }
}

fn route_name(context: &mut Context<'_, '_>, written: &document::Route, earlier: &[Route]) -> String {
    let taken = |name: &str| earlier.iter().any(|route| route.name == name);
    let Some(name) = written.name.as_ref().and_then(|scalar| Some((scalar.at, context.read(scalar)?))) else {
        let numbers = earlier.len() + 1..;
        return numbers.map(|number| format!("route-{number}")).find(|name| !taken(name)).unwrap_or_default();
    };
    let (at, name) = (name.0, name.1.as_str().to_owned());
    if taken(&name) {
        let message = format!("another route of this service is called `{name}`");
        context.error(at, Mistake::new(code::NAME_TAKEN, message));
    } else if name == PLAIN_NAME && written.matches.is_some() {
        let message = format!("`{name}` is the route that takes what no other matches");
        context.error(at, Mistake::new(code::RESERVED_NAME, message).expected("another name"));
    }
    name
}

fn backends(context: &mut Context<'_, '_>, written: Option<&Located<Vec<Located<document::Backend>>>>) -> Vec<Backend> {
    let Some(located) = written else { return Vec::new() };
    let Some(entries) = &located.value else { return Vec::new() };
    let proven: Vec<_> = entries.iter().filter_map(|entry| backend(context, entry)).collect();
    if entries.is_empty() {
        context.missing(
            located.at,
            "`backends` names at least one; without it, it is the service itself",
            "{service: NAME}",
        );
    } else if proven.len() == entries.len() && proven.iter().all(|backend| backend.weight == 0) {
        let mistake = Mistake::new(code::WEIGHTS, "every weight of this route is 0, so nothing could go anywhere");
        context.error(located.at, mistake.expected("at least one weight above 0"));
    }
    proven
}

fn backend(context: &mut Context<'_, '_>, located: &Located<document::Backend>) -> Option<Backend> {
    let written = located.value.as_ref()?;
    let weight = context.number_or(written.weight.as_ref(), 1);
    let Some(reference) = &written.service else {
        context.missing(located.at, "a backend names its `service`", "service: NAME");
        return None;
    };
    let service = context.service(reference)?;
    let subset = match &written.subset {
        Some(subset) => Some(known_subset(context, &service, subset)?),
        None => None,
    };
    Some(Backend { service, subset, weight })
}

fn known_subset(
    context: &mut Context<'_, '_>,
    service: &Name,
    subset: &document::scalar::Scalar<document::scalar::NameText>,
) -> Option<Name> {
    subset.written.as_ref()?;
    let declared = context.declared_service(service.as_str())?;
    let known: Vec<&str> = match &declared.subsets {
        Some(located) => located.value.as_ref()?.0.iter().map(|(name, _)| name.text()).collect(),
        None => Vec::new(),
    };
    if known.contains(&subset.text()) {
        return Name::new(subset.text()).ok();
    }
    let message = format!("the service `{service}` has no subset `{}`", subset.text());
    let expected =
        if known.is_empty() { "no subset: it has none".to_owned() } else { format!("one of {}", known.join(", ")) };
    let nearest = name::nearest(subset.text(), known).first().copied();
    context.error(subset.at, Mistake::new(code::UNKNOWN_SUBSET, message).expected(expected).nearest(nearest));
    None
}

/// A caller speaks to a backend as it speaks to the service whose route it is.
fn check_protocols(
    context: &mut Context<'_, '_>,
    services: &BTreeMap<Name, Service>,
    written: &document::Route,
    route: &Route,
    protocol: Option<Protocol>,
) {
    for backend in &route.backends {
        let theirs = services.get(&backend.service).map(|service| service.protocol);
        if theirs.is_none() || protocol.is_none() || theirs == protocol {
            continue;
        }
        let reference = list(written.backends.as_ref())
            .iter()
            .filter_map(|located| located.value.as_ref()?.service.as_ref())
            .find(|reference| reference.text() == backend.service.as_str());
        if let Some(reference) = reference {
            let message =
                format!("`{}` does not speak the protocol of the service whose route this is", backend.service);
            context.error(reference.at, Mistake::new(code::PROTOCOL_MISMATCH, message).expected("the same `protocol`"));
        }
    }
}

fn timeouts(context: &mut Context<'_, '_>, written: Option<&document::Timeouts>) -> Timeouts {
    let default = Timeouts::default();
    let Some(written) = written else { return default };
    let bound = |duration: Duration| (!duration.is_zero()).then_some(duration);
    let request = match written.request.as_ref().and_then(|request| context.read(request)) {
        Some(duration) => bound(duration),
        None => default.request,
    };
    let attempt = written.attempt.as_ref().and_then(|attempt| context.read(attempt)).and_then(bound);
    if let (Some(longer), Some(whole), Some(scalar)) = (attempt, request, &written.attempt)
        && longer > whole
    {
        let whole = crate::unit::write_duration(whole);
        let message = format!("one attempt may take {}, but the whole request only {whole}", scalar.text());
        context.error(scalar.at, Mistake::new(code::TIMEOUT_ORDER, message).nearest(Some(whole)));
    }
    let idle = match written.idle.as_ref().and_then(|idle| context.read(idle)) {
        Some(duration) => bound(duration),
        None => default.idle,
    };
    Timeouts { request, attempt, idle }
}

fn retry(context: &mut Context<'_, '_>, written: Option<&document::Retry>) -> Retry {
    let default = Retry::default();
    let Some(written) = written else { return default };
    let on = match &written.on {
        Some(located) => list(Some(located)).iter().filter_map(|condition| context.read(condition)).collect(),
        None => default.on,
    };
    Retry {
        attempts: context.number_or(written.attempts.as_ref(), default.attempts),
        on,
        budget: context.read_or(written.budget.as_ref(), default.budget),
        backoff: context.read_or(written.backoff.as_ref(), default.backoff),
        non_idempotent: context.read_or(written.non_idempotent.as_ref(), default.non_idempotent),
    }
}

fn on_place(written: &document::Route) -> Option<Place> {
    Some(inner(written.retry.as_ref())?.on.as_ref()?.at)
}

/// Warns of conditions that the method of the route keeps from ever leading to a retry.
fn check_effect(context: &mut Context<'_, '_>, at: Place, retry: &Retry, method: &str) {
    let safe = BTreeSet::from([RetryOn::ConnectFailure, RetryOn::ResetBeforeProcessing]);
    if !retry.non_idempotent && retry.on.difference(&safe).next().is_some() {
        let message = format!(
            "these requests use {method}, which is not idempotent, so only connect-failure and \
             reset-before-processing are retried"
        );
        let mistake = Mistake::new(code::RETRY_WITHOUT_EFFECT, message);
        context.warning(at, mistake.expected("non_idempotent: true, if doing it twice is harmless"));
    }
}
