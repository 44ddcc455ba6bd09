//! Questions to the declared graph: who may reach whom, who sends what, and in which order services start.
//!
//! An edge of the graph is a permission; cutting out what one sidecar is told is left to `control`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Config, Place, Source};
use crate::identity::Subject;
use crate::name::Name;

impl Source {
    /// The name of the queue or topic.
    #[must_use]
    pub fn name(&self) -> &Name {
        match self {
            Self::Queue(name) | Self::Topic(name) => name,
        }
    }
}

impl Config {
    /// The services to which requests for `service` go: the backends of its routes that have a weight, each once.
    #[must_use]
    pub fn backends_of(&self, service: &Name) -> BTreeSet<Name> {
        let Some(routes) = self.routes.get(service) else {
            // Without a route a service has the plain one, to itself.
            return self.services.get_key_value(service).map(|(name, _)| name.clone()).into_iter().collect();
        };
        let backends = routes.iter().flat_map(|route| &route.backends);
        backends.filter(|backend| backend.weight > 0).map(|backend| backend.service.clone()).collect()
    }

    /// The services that get requests because `service` calls: the backends of all that it calls.
    #[must_use]
    pub fn reached_from(&self, service: &Name) -> BTreeSet<Name> {
        let calls = self.services.get(service).into_iter().flat_map(|service| &service.calls);
        calls.flat_map(|called| self.backends_of(called)).collect()
    }

    /// Who may send requests to the instances of `service`: whoever names it, or a service with a route that leads to it.
    ///
    /// These are the services that call, the gateways with such a backend, and the broker where it pushes messages.
    #[must_use]
    pub fn callers_of(&self, service: &Name) -> BTreeSet<Subject> {
        let names: Vec<&Name> = self.services.keys().filter(|name| self.backends_of(name).contains(service)).collect();
        let mut callers = BTreeSet::new();
        for (name, caller) in &self.services {
            if names.iter().any(|called| caller.calls.contains(*called)) {
                callers.insert(Subject::Service(name.clone()));
            }
        }
        for (name, gateway) in &self.gateways {
            if gateway.backends.iter().any(|backend| names.contains(&&backend.service)) {
                callers.insert(Subject::Gateway(name.clone()));
            }
        }
        let is_pushed =
            |name: &&Name| self.services[*name].consumes.iter().any(|consumption| consumption.path.is_some());
        if names.iter().any(is_pushed) {
            callers.insert(Subject::Broker);
        }
        callers
    }

    /// Who may publish to the queue or topic `destination`.
    #[must_use]
    pub fn publishers_of(&self, destination: &Name) -> BTreeSet<Subject> {
        let publishers = self.services.iter().filter(|(_, service)| service.publishes.contains(destination));
        publishers.map(|(name, _)| Subject::Service(name.clone())).collect()
    }

    /// The services inside of the mesh in waves: each stands behind all that it reaches by calls.
    ///
    /// A checked configuration has no cycle; if there were one, its services would be the last wave.
    #[must_use]
    pub fn start_order(&self) -> Vec<Vec<Name>> {
        let (mut waves, circling) = self.waves();
        if !circling.is_empty() {
            waves.push(circling);
        }
        waves
    }

    /// The waves, and the services that have none: those in a circle of calls, and those that call into one.
    pub(super) fn waves(&self) -> (Vec<Vec<Name>>, Vec<Name>) {
        let inside =
            |name: &Name| self.services.get(name).is_some_and(|service| matches!(service.place, Place::Mesh(_)));
        let mut callers: BTreeMap<Name, Vec<&Name>> = BTreeMap::new();
        // For each service, how many of those that it reaches have not started.
        let mut awaited: BTreeMap<&Name, usize> = BTreeMap::new();
        for name in self.services.keys().filter(|name| inside(name)) {
            let callees: Vec<_> = self.reached_from(name).into_iter().filter(|callee| inside(callee)).collect();
            awaited.insert(name, callees.len());
            for callee in callees {
                callers.entry(callee).or_default().push(name);
            }
        }
        let mut waves = Vec::new();
        let free = awaited.iter().filter(|(_, left)| **left == 0);
        let mut wave: Vec<Name> = free.map(|(name, _)| (*name).clone()).collect();
        while !wave.is_empty() {
            let mut next = BTreeSet::new();
            for started in &wave {
                awaited.remove(started);
                for caller in callers.get(started).into_iter().flatten() {
                    let left = awaited.entry(caller).or_default();
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        next.insert((*caller).clone());
                    }
                }
            }
            waves.push(std::mem::replace(&mut wave, next.into_iter().collect()));
        }
        (waves, awaited.into_keys().cloned().collect())
    }
}
