//! Gateways and matches as proven.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use super::context::{Context, inner, list};
use crate::config::document::{self, Located};
use crate::config::finding::{Mistake, Place, code};
use crate::config::{Gateway, GatewayBackend, Inbound, Match, PathMatch};
use crate::name::Name;

pub(super) fn gateways(context: &mut Context<'_, '_>) -> BTreeMap<Name, Gateway> {
    let declared = context.mesh.gateways.clone();
    let mut proven = BTreeMap::new();
    for (key, located) in declared {
        let name = context.own_name(key);
        let Some(written) = &located.value else { continue };
        let gateway = gateway(context, key.at, written);
        if let Some(name) = name {
            proven.insert(name, gateway);
        }
    }
    proven
}

fn gateway(context: &mut Context<'_, '_>, at: Place, written: &document::Gateway) -> Gateway {
    // Stands in for an address that is wrong; a configuration never holds it.
    let unset = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    if written.listen.is_none() {
        context.missing(at, "a gateway needs an address to listen on", "listen: 127.0.0.1:8080");
    }
    let no_backends = written.backends.as_ref().is_none_or(|located| located.value.as_ref().is_some_and(Vec::is_empty));
    if no_backends {
        let at = written.backends.as_ref().map_or(at, |located| located.at);
        context.missing(at, "a gateway needs at least one of `backends`", "backends: [{service: NAME}]");
    }
    let listen = context.read_or(written.listen.as_ref(), unset);
    let body_bytes_max = context.read_or(written.body_max.as_ref(), Inbound::default().body_bytes_max);
    let mut backends: Vec<GatewayBackend> = Vec::new();
    for located in list(written.backends.as_ref()) {
        if let Some(first) = backends.iter().find(|before| before.matches.is_empty() && before.hosts.is_empty()) {
            let message = format!("every request goes to `{}`, which stands before this", first.service);
            context.warning(located.at, Mistake::new(code::NEVER_REACHED, message));
        }
        backends.extend(gateway_backend(context, located));
    }
    Gateway { listen, backends, body_bytes_max }
}

fn gateway_backend(
    context: &mut Context<'_, '_>,
    located: &Located<document::GatewayBackend>,
) -> Option<GatewayBackend> {
    let written = located.value.as_ref()?;
    let hosts = list(written.hosts.as_ref()).iter().filter_map(|host| context.read(host)).collect();
    let matches = matches(context, written.matches.as_ref());
    let Some(service) = &written.service else {
        context.missing(located.at, "a backend names its `service`", "service: NAME");
        return None;
    };
    Some(GatewayBackend { service: context.service(service)?, matches, hosts })
}

pub(super) fn matches(
    context: &mut Context<'_, '_>,
    written: Option<&Located<Vec<Located<document::Match>>>>,
) -> Vec<Match> {
    list(written).iter().filter_map(|located| Some(one_match(context, located.value.as_ref()?))).collect()
}

fn one_match(context: &mut Context<'_, '_>, written: &document::Match) -> Match {
    Match {
        path: written.path.as_ref().and_then(|located| path(context, located)),
        method: written.method.as_ref().and_then(|method| context.read(method)),
        headers: context.pairs(written.headers.as_ref()),
    }
}

fn path(context: &mut Context<'_, '_>, located: &Located<document::PathMatch>) -> Option<PathMatch> {
    let written = inner(Some(located))?;
    match (&written.exact, &written.prefix) {
        (Some(exact), None) => context.read(exact).map(PathMatch::Exact),
        (None, Some(prefix)) => context.read(prefix).map(PathMatch::Prefix),
        (None, None) => {
            context.missing(
                located.at,
                "a path is matched by `exact` or by `prefix`",
                "prefix: /PATH, or exact: /PATH",
            );
            None
        }
        (Some(_), Some(prefix)) => {
            let mistake = Mistake::new(code::CONFLICT, "a path is matched by `exact` or by `prefix`, not by both");
            context.error(prefix.at, mistake.expected("two entries of `matches`"));
            None
        }
    }
}
