//! What was observed on the edges of the declared graph since the start, for reports and the dashboard.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use model::name::Name;
use serde::{Deserialize, Serialize};

use crate::metrics::Tally;

/// What one data plane has seen go out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Who called.
    pub subject: String,
    /// The edges, by the service that was called.
    pub edges: Vec<Edge>,
}

/// One edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The service that was called.
    pub service: Name,
    /// Requests that ended.
    pub calls: u64,
    /// Those of them that failed: 5xx, a gRPC status that blames the server, no whole answer, or none.
    pub failures: u64,
    /// Attempts beyond the first.
    pub retries: u64,
}

/// The tallies by service; they outlive snapshots.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    // A lock that is taken when a snapshot is applied and when someone looks, never by a request.
    by_service: Mutex<BTreeMap<Name, Arc<Tally>>>,
}

impl Tallies {
    pub(crate) fn of(&self, service: &Name) -> Arc<Tally> {
        let mut tallies = self.by_service.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.entry(service.clone()).or_default().clone()
    }

    pub(crate) fn edges(&self) -> Vec<Edge> {
        let tallies = self.by_service.lock().unwrap_or_else(PoisonError::into_inner);
        let edge = |(service, tally): (&Name, &Arc<Tally>)| Edge {
            service: service.clone(),
            calls: tally.calls.load(Ordering::Relaxed),
            failures: tally.failures.load(Ordering::Relaxed),
            retries: tally.retries.load(Ordering::Relaxed),
        };
        tallies.iter().map(edge).collect()
    }
}
