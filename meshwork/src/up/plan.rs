//! What is started, and in which order: a pure reading of the proven mesh.
//!
//! The control plane comes first, since nobody is a member without it; then the broker; then the services in waves, callees
//! before callers; then the gateways, which let clients in. The end goes the other way, so that whoever is still at work
//! finds what it calls.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use model::config::{Config, Health, Place};
use model::identity::Subject;
use model::name::{self, Name};

use super::folder::CONTROL_PLANE;

/// One process of the mesh; a sidecar counts with its application as one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Planned {
    /// Its name, unique in the mesh.
    pub(crate) instance: Name,
    /// What it is.
    pub(crate) part: Part,
}

/// What a process is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    ControlPlane,
    Broker,
    Gateway { name: Name, listen: SocketAddr },
    Service(Service),
}

/// An instance of a service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Service {
    pub(crate) name: Name,
    pub(crate) subset: Option<Name>,
    /// `None`: something else runs the application.
    pub(crate) command: Option<Vec<String>>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) health: Health,
    /// Where the application is told to listen, where the mesh file says so for this instance.
    pub(crate) port: Option<u16>,
}

impl Planned {
    /// Who it is in the mesh.
    pub(crate) fn subject(&self) -> Subject {
        match &self.part {
            Part::ControlPlane => Subject::ControlPlane,
            Part::Broker => Subject::Broker,
            Part::Gateway { name, .. } => Subject::Gateway(name.clone()),
            Part::Service(service) => Subject::Service(service.name.clone()),
        }
    }

    /// How it is called in a table: the service, or the role.
    pub(crate) fn label(&self) -> String {
        match &self.part {
            Part::ControlPlane => "control plane".to_owned(),
            Part::Broker => "broker".to_owned(),
            Part::Gateway { name, .. } => format!("gateway {name}"),
            Part::Service(Service { name, subset: Some(subset), .. }) => format!("{name} ({subset})"),
            Part::Service(service) => service.name.to_string(),
        }
    }
}

/// The waves in which the mesh is started; a wave begins when the one before it carries traffic.
pub(crate) fn waves(config: &Config) -> Result<Vec<Vec<Planned>>, name::Error> {
    let mut waves = vec![vec![Planned { instance: Name::new(CONTROL_PLANE)?, part: Part::ControlPlane }]];
    if !config.queues.is_empty() || !config.topics.is_empty() {
        waves.push(vec![Planned { instance: Name::new("broker")?, part: Part::Broker }]);
    }
    for services in config.start_order() {
        let mut wave = Vec::new();
        for service in &services {
            wave.extend(instances(config, service)?);
        }
        waves.push(wave);
    }
    let gateways = config.gateways.iter().map(|(name, gateway)| {
        let part = Part::Gateway { name: name.clone(), listen: gateway.listen };
        Ok(Planned { instance: Name::new(&format!("gateway-{name}"))?, part })
    });
    waves.push(gateways.collect::<Result<_, _>>()?);
    waves.retain(|wave| !wave.is_empty());
    Ok(waves)
}

/// The instances of a service: `orders-0`, or with subsets `payments-v1-0`.
fn instances(config: &Config, name: &Name) -> Result<Vec<Planned>, name::Error> {
    let Some(Place::Mesh(workload)) = config.services.get(name).map(|service| &service.place) else {
        return Ok(Vec::new());
    };
    let mut planned = Vec::new();
    for group in &workload.groups {
        let stem = group.name.as_ref().map_or_else(|| name.to_string(), |subset| format!("{name}-{subset}"));
        for index in 0..group.instances {
            let service = Service {
                name: name.clone(),
                subset: group.name.clone(),
                command: group.command.clone(),
                env: group.env.clone(),
                health: workload.health.clone(),
                port: workload.port.filter(|_| planned.is_empty()),
            };
            planned.push(Planned { instance: Name::new(&format!("{stem}-{index}"))?, part: Part::Service(service) });
        }
    }
    Ok(planned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESH: &str = "
mesh: shop
services:
  storefront: {protocol: http, command: run, calls: [orders, payments]}
  orders: {protocol: http, command: run, port: 8102, instances: 2, calls: [payments], publishes: [work]}
  payments:
    protocol: http
    subsets: {v1: {command: run one}, v2: {command: run two, env: {A: b}}}
  shipping: {protocol: http, command: run, consumes: [{queue: work, path: /work}]}
queues: {work: {}}
gateways: {public: {listen: 127.0.0.1:8080, backends: [{service: storefront}]}}
";

    fn plan(text: &str) -> Vec<Vec<String>> {
        let config = model::config::check("mesh.yaml", text).unwrap().config;
        let waves = waves(&config).unwrap();
        waves.iter().map(|wave| wave.iter().map(|planned| planned.instance.to_string()).collect()).collect()
    }

    #[test]
    fn callees_come_before_callers_and_the_doors_last() {
        assert_eq!(
            plan(MESH),
            [
                vec!["control-plane"],
                vec!["broker"],
                vec!["payments-v1-0", "payments-v2-0", "shipping-0"],
                vec!["orders-0", "orders-1"],
                vec!["storefront-0"],
                vec!["gateway-public"],
            ]
        );
    }

    #[test]
    fn a_mesh_that_sends_nothing_has_no_broker() {
        assert_eq!(plan("mesh: a\nservices: {b: {protocol: http}}\n"), [vec!["control-plane"], vec!["b-0"]]);
    }

    #[test]
    fn the_declared_port_is_the_first_instances() {
        let config = model::config::check("mesh.yaml", MESH).unwrap().config;
        let ports: Vec<Option<u16>> = instances(&config, &Name::new("orders").unwrap())
            .unwrap()
            .into_iter()
            .map(|planned| match planned.part {
                Part::Service(service) => service.port,
                _ => None,
            })
            .collect();
        assert_eq!(ports, [Some(8102), None]);
    }
}
