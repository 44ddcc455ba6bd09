//! Services as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::messaging::Consumption;
use super::scalar::{
    Address, Command, Enclosure, EnvName, EnvValue, Host, NameText, PathText, Percent, Scalar, Size, Time, Whole, Word,
};
use super::{Entries, Located};
use crate::config::Protocol;

/// Largest body that a bound can be set to: 1 TiB.
const BODY_BYTES_MAX: u64 = 1 << 40;
/// A day, in milliseconds.
const DAY: u64 = 86_400_000;

/// Something that is called by name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// What `up` runs: words as a shell splits them, run without a shell. Absent where something else runs it.
    pub command: Option<Scalar<Command>>,
    /// Where the application listens on loopback, from 1 to 65,535. Absent: `up` picks a free port and tells it in `PORT`.
    pub port: Option<Scalar<Whole<1, 65_535>>>,
    /// What it speaks: `http` (HTTP/1.1 and WebSocket) or `grpc` (HTTP/2 with prior knowledge). Default: `http`.
    pub protocol: Option<Scalar<Word<Protocol>>>,
    /// How many `up` starts, from 1 to 64. Default: 1. With `subsets`: of each that does not say.
    pub instances: Option<Scalar<Whole<1, 64>>>,
    /// Groups of like instances by name, such as versions; routes pick them. Absent: all instances are alike.
    pub subsets: Option<Located<Entries<NameText, Located<Subset>>>>,
    /// Added to the application's environment.
    pub env: Option<Located<Entries<EnvName, Scalar<EnvValue>>>>,
    /// How the sidecar asks the application whether it can serve.
    pub health: Option<Located<Health>>,
    /// The services it calls. What is not here is refused.
    pub calls: Option<Located<Vec<Scalar<NameText>>>>,
    /// The queues and topics it sends to.
    pub publishes: Option<Located<Vec<Scalar<NameText>>>>,
    /// The queues and topics it is served from.
    pub consumes: Option<Located<Vec<Located<Consumption>>>>,
    /// What its own sidecar holds its callers to.
    pub inbound: Option<Located<Inbound>>,
    /// When one of its endpoints is taken out of rotation.
    pub breaker: Option<Located<Breaker>>,
    /// It is outside of the mesh: reached as it is, never with a mesh identity.
    pub external: Option<Located<External>>,
}

/// A group of like instances of a service.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subset {
    /// How many `up` starts, from 1 to 64. Default: the service's.
    pub instances: Option<Scalar<Whole<1, 64>>>,
    /// What `up` runs. Default: the service's.
    pub command: Option<Scalar<Command>>,
    /// Added to the service's, and stronger.
    pub env: Option<Located<Entries<EnvName, Scalar<EnvValue>>>>,
}

/// How a sidecar asks its application whether it can serve.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// A GET of this path must answer 2xx. Absent: the port must accept a connection.
    pub path: Option<Scalar<PathText>>,
    /// From one question to the next, from 10ms to 1h. Default: 1s.
    pub interval: Option<Scalar<Time<10, 3_600_000>>>,
    /// How long one answer may take, from 1ms to 1m. Default: 1s.
    pub timeout: Option<Scalar<Time<1, 60_000>>>,
}

/// What a sidecar holds the callers of its application to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inbound {
    /// Largest request body. Default: 64MiB. A longer one: 413.
    pub body_max: Option<Scalar<Size<0, BODY_BYTES_MAX>>>,
    /// Requests in progress at a time, from 1 to 1,000,000. Default: 1,024. One more: 503 with `Retry-After`.
    pub concurrent_max: Option<Scalar<Whole<1, 1_000_000>>>,
}

/// When an endpoint's breaker opens, and for how long.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// Failures in a row that open it, from 1 to 1,000,000. Default: 5.
    pub consecutive_failures: Option<Scalar<Whole<1, 1_000_000>>>,
    /// How long it stays open the first time; each time in a row doubles it. From 1ms to 1d. Default: 1s.
    pub open: Option<Scalar<Time<1, DAY>>>,
    /// The longest it stays open, from 1ms to 1d; not less than `open`. Default: 30s.
    pub open_max: Option<Scalar<Time<1, DAY>>>,
    /// Which share of the endpoints may be left alone at a time, rounded down; where more breakers are open, all endpoints are
    /// asked. Less than 100% always leaves one, 0% leaves none alone. Default: 50%.
    pub max_ejected: Option<Scalar<Percent>>,
}

/// Where a service outside of the mesh is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// `host:port`, at least one.
    #[schemars(required)]
    pub addresses: Option<Located<Vec<Scalar<Address>>>>,
    /// TLS to it. Absent: plain text.
    pub tls: Option<Located<ExternalTls>>,
}

/// TLS to a service outside of the mesh.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalTls {
    /// The server name to ask for and to verify.
    #[schemars(required)]
    pub name: Option<Scalar<Host>>,
    /// Trusted roots: a file of them in PEM, from the mesh file's folder, or the PEM itself. Default: the machine's.
    pub roots: Option<Scalar<Enclosure>>,
}
