//! Who listens where: two cannot listen on one port of one machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::context::Context;
use crate::config::finding::{Mistake, Place, code};
use crate::config::{Config, Place as Where};

/// Refuses gateways that listen on the same port, and warns of services that could not run on one machine.
pub(super) fn listeners(context: &mut Context<'_, '_>, config: &Config) {
    let mut taken: Vec<(SocketAddr, String)> = Vec::new();
    for (key, located) in context.mesh.gateways.clone() {
        let Some(gateway) = config.gateways.get(key.text()) else { continue };
        let Some(at) = located.value.as_ref().and_then(|written| written.listen.as_ref()).map(|listen| listen.at)
        else {
            continue;
        };
        if let Some((_, other)) = taken.iter().find(|(address, _)| overlap(*address, gateway.listen)) {
            let message = format!("the gateway `{other}` listens there already");
            context.error(at, Mistake::new(code::PORT_TAKEN, message).expected("another port"));
        }
        taken.push((gateway.listen, key.text().to_owned()));
    }
    let mut ports: BTreeMap<u16, String> = BTreeMap::new();
    for (key, located) in context.mesh.services.clone() {
        let Some(Where::Mesh(workload)) = config.services.get(key.text()).map(|service| &service.place) else {
            continue;
        };
        let scalar = located.value.as_ref().and_then(|written| written.port.as_ref());
        let (Some(port), Some(scalar)) = (workload.port, scalar) else { continue };
        let instances: u32 = workload.groups.iter().map(|group| u32::from(group.instances)).sum();
        if instances > 1 {
            warn(context, scalar.at, format!("{instances} instances cannot all listen on port {port} of one machine"));
        }
        let loopback = SocketAddr::from(([127, 0, 0, 1], port));
        if let Some((_, gateway)) = taken.iter().find(|(address, _)| overlap(*address, loopback)) {
            warn(context, scalar.at, format!("on one machine the gateway `{gateway}` listens on port {port} too"));
        }
        if let Some(other) = ports.get(&port) {
            warn(context, scalar.at, format!("on one machine the service `{other}` listens on port {port} too"));
        }
        ports.entry(port).or_insert_with(|| key.text().to_owned());
    }
}

fn warn(context: &mut Context<'_, '_>, at: Place, message: String) {
    let mistake = Mistake::new(code::PORT_TAKEN, message);
    context.warning(at, mistake.expected("no `port`, so that each gets a free one in PORT; or one machine for each"));
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_host = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_host
}
