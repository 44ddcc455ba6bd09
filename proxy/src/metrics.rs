//! What the data plane counts. Handles are looked up when a snapshot is applied, so that a request costs a few atomic additions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use runtime::metrics::Metrics;

use crate::edge::Direction;

/// Upper bounds of the latency buckets, in seconds; from what loopback takes to what a caller waits.
const BUCKETS_S: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    direction: &'static str,
    service: String,
    route: String,
    status_class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    direction: &'static str,
    service: String,
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RetryLabels {
    service: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    direction: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    service: String,
    endpoint: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: &'static str,
}

/// All of the data plane's metrics.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    requests: Family<RequestLabels, Counter>,
    duration: Family<RouteLabels, Histogram>,
    retries: Family<RetryLabels, Counter>,
    refusals: Family<RefusalLabels, Counter>,
    breaker_state: Family<EndpointLabels, Gauge>,
    connections: Family<EndpointLabels, Gauge>,
    /// Requests in progress, by [`Direction`].
    pub(crate) in_flight: [Gauge; 4],
}

/// The status classes, by index; `none` is for requests whose client left before an answer.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The handles of one route in one direction.
#[derive(Debug)]
pub(crate) struct RouteMeters {
    classes: [Counter; 6],
    duration: Histogram,
    /// Shared by all routes of a service.
    pub(crate) tally: Arc<Tally>,
}

/// What was observed on one edge of the graph since the start.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) calls: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) retries: AtomicU64,
}

impl Meters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let duration = Family::<RouteLabels, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS_S));
        let in_flight = Family::<DirectionLabels, Gauge>::default();
        let gauge =
            |direction: Direction| in_flight.get_or_create(&DirectionLabels { direction: direction.name() }).clone();
        let meters = Self {
            requests: Family::default(),
            duration,
            retries: Family::default(),
            refusals: Family::default(),
            breaker_state: Family::default(),
            connections: Family::default(),
            in_flight: [Direction::Outbound, Direction::Inbound, Direction::Gateway, Direction::Status].map(gauge),
        };
        metrics.register(|registry| {
            registry.register("requests", "Requests that ended", meters.requests.clone());
            let help = "From a request's head to its answer's last byte";
            registry.register("request_duration_seconds", help, meters.duration.clone());
            registry.register("retries", "Attempts beyond a request's first", meters.retries.clone());
            registry.register("refusals", "Requests answered in an application's stead", meters.refusals.clone());
            let help = "0: closed, 1: half-open, 2: open";
            registry.register("breaker_state", help, meters.breaker_state.clone());
            registry.register("upstream_idle_connections", "Connections kept for later", meters.connections.clone());
            registry.register("requests_in_flight", "Requests in progress", in_flight);
        });
        meters
    }

    pub(crate) fn route(&self, direction: Direction, service: &str, route: &str, tally: Arc<Tally>) -> RouteMeters {
        let direction = direction.name();
        let labels = |status_class| RequestLabels {
            direction,
            service: service.to_owned(),
            route: route.to_owned(),
            status_class,
        };
        let classes = CLASSES.map(|class| self.requests.get_or_create(&labels(class)).clone());
        let labels = RouteLabels { direction, service: service.to_owned(), route: route.to_owned() };
        RouteMeters { classes, duration: self.duration.get_or_create(&labels).clone(), tally }
    }

    pub(crate) fn refused(&self, direction: Direction, reason: &'static str) {
        self.refusals.get_or_create(&RefusalLabels { direction: direction.name(), reason }).inc();
    }

    pub(crate) fn retried(&self, service: &str, reason: &'static str) {
        self.retries.get_or_create(&RetryLabels { service: service.to_owned(), reason }).inc();
    }

    pub(crate) fn endpoint(&self, service: &str, endpoint: &str, breaker_state: i64, connections: usize) {
        let labels = EndpointLabels { service: service.to_owned(), endpoint: endpoint.to_owned() };
        self.breaker_state.get_or_create(&labels).set(breaker_state);
        self.connections.get_or_create(&labels).set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    pub(crate) fn forget_endpoint(&self, service: &str, endpoint: &str) {
        let labels = EndpointLabels { service: service.to_owned(), endpoint: endpoint.to_owned() };
        self.breaker_state.remove(&labels);
        self.connections.remove(&labels);
    }

    pub(crate) fn in_flight(&self, direction: Direction) -> &Gauge {
        &self.in_flight[direction as usize]
    }
}

impl RouteMeters {
    /// Counts a request that ended; `status` `None`: its client left before an answer.
    pub(crate) fn ended(&self, status: Option<u16>, failed: bool, seconds: f64) {
        let class = status.map_or(0, |status| usize::from(status / 100).min(CLASSES.len() - 1));
        self.classes[class].inc();
        self.duration.observe(seconds);
        self.tally.calls.fetch_add(1, Ordering::Relaxed);
        if failed {
            self.tally.failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}
