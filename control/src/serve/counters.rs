//! The control plane's metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use runtime::metrics::Metrics;

/// What is counted; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters {
    /// The configuration in force.
    pub(crate) revision: Gauge,
    /// Roles that have a stream.
    pub(crate) streams: Gauge,
    /// Snapshots that were sent.
    pub(crate) snapshots: Counter,
    /// Snapshots that a role rejected.
    pub(crate) rejections: Counter,
    /// Certificates that were asked for, by how and with what outcome.
    pub(crate) certificates: Family<Issue, Counter>,
}

/// How a certificate was asked for, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Issue {
    kind: &'static str,
    outcome: &'static str,
}

impl Counters {
    /// Counters that `metrics` writes out.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let counters = Self::default();
        let Self { revision, streams, snapshots, rejections, certificates } = counters.clone();
        metrics.register(|registry| {
            registry.register("control_revision", "The configuration in force", revision);
            registry.register("control_streams", "Roles that have a stream", streams);
            registry.register("control_snapshots", "Snapshots sent to roles", snapshots);
            registry.register("control_rejections", "Snapshots that a role rejected", rejections);
            registry.register("control_certificates", "Certificates asked for, by kind and outcome", certificates);
        });
        counters
    }

    /// Counts a certificate; `kind` is `enrol` or `renew`.
    pub(crate) fn count_certificate(&self, kind: &'static str, signed: bool) {
        let outcome = if signed { "signed" } else { "refused" };
        self.certificates.get_or_create(&Issue { kind, outcome }).inc();
    }
}
