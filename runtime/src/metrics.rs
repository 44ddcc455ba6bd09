//! Metrics: one registry for each role, written out in the OpenMetrics text form that Prometheus reads.
//!
//! Names are `meshwork_<name>_<unit>[_total]`; labels come from bounded sets only: names of the mesh file, status classes, reasons.

use std::sync::{Arc, Mutex};

use prometheus_client::registry::Registry;

/// The media type of [`Metrics::encode`] (OpenMetrics 1.0 §"Overall structure").
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A role's registry; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    // A lock, since registration is rare and reading rarer; the metrics themselves are atomics that nobody locks.
    registry: Arc<Mutex<Registry>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { registry: Arc::new(Mutex::new(Registry::with_prefix("meshwork"))) }
    }
}

impl Metrics {
    /// Registers metrics.
    pub fn register(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    /// All metrics as OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &registry) {
            // Writing to a String cannot fail; an encoder of a metric of ours might.
            tracing::error!(%error, "a metric could not be written");
        }
        text
    }
}
