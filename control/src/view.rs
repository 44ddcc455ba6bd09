//! What an operator is shown of the registry and of the roles, as plain data.

use std::net::SocketAddr;

use model::config::{Config, HIDDEN, Place};
use model::name::Name;
use serde::{Deserialize, Serialize};

use crate::hub::Hub;
use crate::sidecars::{Numbers, Rejected};

/// An instance that the registry knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Who it is: `service/orders`.
    pub subject: String,
    /// Its name.
    pub instance: Name,
    /// The subset it belongs to.
    pub subset: Option<Name>,
    /// Where the mesh reaches it.
    pub address: Option<SocketAddr>,
    /// Whether others are told of it.
    pub live: bool,
    /// Its application answers.
    pub healthy: bool,
    /// It is about to end.
    pub draining: bool,
    /// It lived before the control plane's restart, and has not connected since. Earlier releases do not say it.
    #[serde(default)]
    pub presumed: bool,
}

/// A role that has a stream, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    /// Who it is: `service/orders`.
    pub subject: String,
    /// Its name.
    pub instance: Name,
    /// The latest snapshot that was sent to it.
    pub sent: Option<Numbers>,
    /// What it runs on, as it said.
    pub applied: Option<Numbers>,
    /// What it rejected, until it takes up a later one.
    pub rejected: Option<Rejected>,
    /// Whether it runs on the latest, and that is of the revision in force.
    pub converged: bool,
}

/// A configuration without what applications are given in their environment, which is often a password.
#[must_use]
pub(crate) fn shown(config: &Config) -> Config {
    let mut shown = config.clone();
    for service in shown.services.values_mut() {
        let Place::Mesh(workload) = &mut service.place else { continue };
        for value in workload.groups.iter_mut().flat_map(|group| group.env.values_mut()) {
            HIDDEN.clone_into(value);
        }
    }
    shown
}

/// The instances, by subject and name.
#[must_use]
pub(crate) fn registry(hub: &Hub) -> Vec<Instance> {
    hub.view(|_, registry, _| {
        let shown = registry.instances().map(|(subject, name, instance)| Instance {
            subject: subject.to_string(),
            instance: name.clone(),
            subset: instance.subset.clone(),
            address: instance.address,
            live: instance.is_live(),
            healthy: instance.healthy,
            draining: instance.draining,
            presumed: instance.presumed,
        });
        shown.collect()
    })
}

/// The roles that have a stream, by subject and name.
#[must_use]
pub(crate) fn sidecars(hub: &Hub) -> Vec<Sidecar> {
    hub.view(|revision, registry, sidecars| {
        let shown = registry.instances().filter_map(|(subject, name, _)| {
            let progress = sidecars.of(subject, name)?;
            Some(Sidecar {
                subject: subject.to_string(),
                instance: name.clone(),
                sent: progress.sent(),
                applied: progress.applied,
                rejected: progress.rejected.clone(),
                converged: progress.has_converged(revision.number),
            })
        });
        shown.collect()
    })
}
