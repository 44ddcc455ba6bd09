//! The configuration of a mesh, as proven: every name points somewhere, every bound is set, every default is filled in.
//!
//! Only [`check()`] makes one, out of a [`document`]; nothing else in Meshwork accepts settings that were not checked.

pub mod check;
pub mod document;
mod enclosed;
pub mod finding;
mod graph;
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::Name;

pub use check::{Checked, check, check_all, check_enclosed};
pub use enclosed::{Enclosed, Enclosures, enclosed};
pub use finding::{Finding, Severity, render};
pub use schema::schema;

/// The name under which applications reach the broker; no service may take it.
pub const BROKER: &str = "broker";
/// The name under which an application reaches its own sidecar; no service may take it.
pub const SIDECAR: &str = "sidecar";

/// A whole mesh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The mesh's name, which is its SPIFFE trust domain.
    pub mesh: Name,
    /// The services, inside and outside of the mesh.
    pub services: BTreeMap<Name, Service>,
    /// The doors for clients from outside.
    pub gateways: BTreeMap<Name, Gateway>,
    /// The routes of each service in the order in which they are tried. A service without one has [`Route::plain`].
    pub routes: BTreeMap<Name, Vec<Route>>,
    /// The queues. A name is either a queue's or a topic's.
    pub queues: BTreeMap<Name, Queue>,
    /// The topics.
    pub topics: BTreeMap<Name, Topic>,
    /// The broker's own settings.
    pub broker: Broker,
}

/// A service: something that is called by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// What it speaks. Declared, never guessed.
    pub protocol: Protocol,
    /// Inside of the mesh, or outside.
    pub place: Place,
    /// The services it calls.
    pub calls: BTreeSet<Name>,
    /// The queues and topics it sends to.
    pub publishes: BTreeSet<Name>,
    /// The queues and topics it is served from.
    pub consumes: Vec<Consumption>,
    /// What its own sidecar holds its callers to.
    pub inbound: Inbound,
    /// How its endpoints are taken out of rotation.
    pub breaker: Breaker,
}

/// What a service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 to the application.
    Http,
    /// gRPC: HTTP/2 with prior knowledge to the application.
    Grpc,
}

/// Where a service's endpoints are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Beside a sidecar each.
    Mesh(Workload),
    /// Reached as it is, never with a mesh identity.
    External(External),
}

/// What runs inside of the mesh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Where the application listens on loopback. `None`: `up` picks a free port and tells the application in `PORT`.
    pub port: Option<u16>,
    /// What is run, in groups; at least one. A service without `subsets` has the one group whose `name` is `None`.
    pub groups: Vec<Group>,
    /// How the sidecar asks the application whether it can serve. `None`: a TCP connect counts.
    pub health: Health,
}

/// A group of like instances: a subset, such as a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The subset's name, by which routes pick it.
    pub name: Option<Name>,
    /// What `up` runs: words as a shell would split them. `None` where something else runs it.
    pub command: Option<Vec<String>>,
    /// Added to the application's environment.
    pub env: BTreeMap<String, String>,
    /// How many `up` starts. From 1 to 64; 1.
    pub instances: u16,
}

/// How a sidecar asks its application whether it can serve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// A GET of this path must answer 2xx. `None`: the port must accept a connection.
    pub path: Option<String>,
    /// From one question to the next. 1 s.
    pub interval: Duration,
    /// How long one answer may take. 1 s.
    pub timeout: Duration,
}

/// A service outside of the mesh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct External {
    /// `host:port`, at least one.
    pub addresses: Vec<String>,
    /// TLS to it, verified against the machine's roots under this server name; `None`: plain text.
    pub tls: Option<ExternalTls>,
}

/// TLS to a service outside of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalTls {
    /// The server name to ask for and to verify.
    pub name: String,
    /// Trusted roots in PEM instead of the machine's: their text, since who dials reads no files.
    pub roots: Option<String>,
}

/// A queue or topic that a service is served from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Consumption {
    /// The queue or topic.
    pub source: Source,
    /// The path of the application to which messages are pushed; `None`: the application leases them itself (queues only).
    pub path: Option<String>,
    /// Deliveries at a time to the whole service, from 1 to 1,024. 8; for an ordered topic it is that many keys at a time.
    pub concurrency: u16,
}

/// Where messages come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Each message goes to one consumer.
    Queue(Name),
    /// Each subscription gets every message.
    Topic(Name),
}

/// What a service's own sidecar holds its callers to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inbound {
    /// Largest request body in bytes. 64 MiB. A longer one: 413.
    pub body_bytes_max: u64,
    /// Requests in progress at a time. 1,024. One more: 503 with `Retry-After`.
    pub concurrent_max: u32,
}

/// When an endpoint's breaker opens and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breaker {
    /// Failures in a row that open it, from 1. 5.
    pub consecutive_failures: u32,
    /// How long it stays open the first time; each time in a row doubles it. 1 s.
    pub open: Duration,
    /// The longest it stays open. 30 s.
    pub open_max: Duration,
    /// Which share of a service's endpoints may be left alone at a time, from 0.0 to 1.0, rounded down: less than 1.0 always
    /// leaves one. 0.5.
    pub max_ejected: f64,
}

/// A door for clients from outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gateway {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Which requests go to which service; the first that matches.
    pub backends: Vec<GatewayBackend>,
    /// Largest request body in bytes. 64 MiB.
    pub body_bytes_max: u64,
}

/// What a gateway lets through to one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatewayBackend {
    /// The service.
    pub service: Name,
    /// Any of these; empty: every request.
    pub matches: Vec<Match>,
    /// Host names, without port; empty: every host.
    pub hosts: Vec<String>,
}

/// What happens to the requests of a service that match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Its name in metrics, logs and refusals.
    pub name: String,
    /// Any of these; empty: every request.
    pub matches: Vec<Match>,
    /// Where it goes, by weight; at least one with a weight above 0.
    pub backends: Vec<Backend>,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// What is tried again.
    pub retry: Retry,
}

/// All of its parts must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// The path.
    pub path: Option<PathMatch>,
    /// The method, as written, in upper case.
    pub method: Option<String>,
    /// Header name in lower case → exact value; any line of a repeated header may match.
    pub headers: BTreeMap<String, String>,
}

/// How a path is matched. Paths are normalised before (RFC 3986 §6.2.2, and merged slashes).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// By whole segments: `/a` holds `/a` and `/a/b`, never `/ab` (Gateway API `PathPrefix`).
    Prefix(String),
}

/// A share of a route's traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// The service it goes to.
    pub service: Name,
    /// Only the endpoints of this subset.
    pub subset: Option<Name>,
    /// Its share among the weights of the route, from 0 to 1,000,000. 1.
    pub weight: u32,
}

/// How long a request may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// The whole, with all attempts, up to the response's head. `None`: no bound of its own. 15 s by default; streams are not cut.
    pub request: Option<Duration>,
    /// One attempt, up to the response's head. `None`: the whole's.
    pub attempt: Option<Duration>,
}

/// What is tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    /// Attempts beyond the first, from 0 to 10. 2.
    pub attempts: u32,
    /// The conditions. `connect-failure` and `reset-before-processing` by default, which are safe for every method.
    pub on: BTreeSet<RetryOn>,
    /// Retries as a share of requests (0.0 to 1.0), over ten seconds, with a floor of ten retries a second. 0.2.
    pub budget: f64,
    /// Wait before the first retry; it doubles, with full jitter. 25 ms.
    pub backoff: Duration,
    /// Retry on `on` also for methods that are not idempotent (RFC 9110 §9.2.2). `false`.
    pub non_idempotent: bool,
}

/// A condition for a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// No connection: the request was never sent. Safe for every method.
    ConnectFailure,
    /// HTTP/2 REFUSED_STREAM, a stream above GOAWAY's last, or a reused connection that closed before any byte of the answer.
    ResetBeforeProcessing,
    /// The connection broke, or the attempt timed out, before the response's head.
    Reset,
    /// This status.
    Status(u16),
    /// This gRPC status, in headers or in the trailers of an answer without messages.
    Grpc(u8),
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// How it delivers.
    pub delivery: Delivery,
    /// How long dead letters are kept. 14 d.
    pub dead_letter_keep: Duration,
    /// Largest number of messages that wait. 1,000,000. One more: 429.
    pub messages_max: u64,
    /// What a publish waits for.
    pub durability: Durability,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Topic {
    /// The attribute of the event's data that is its key when the event has no `partitionkey`.
    pub key: Option<String>,
    /// How long events are kept. 7 d.
    pub keep: Duration,
    /// How its subscriptions deliver.
    pub delivery: Delivery,
    /// What a publish waits for.
    pub durability: Durability,
}

/// How messages are delivered until they are settled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// Attempts in all before the dead letters, from 1 to 1,000. 20.
    pub attempts: u32,
    /// Wait before the second attempt. 200 ms.
    pub backoff_initial: Duration,
    /// The longest wait. 1 m.
    pub backoff_max: Duration,
    /// How long a lease holds before the message is delivered again. 30 s.
    pub ack_timeout: Duration,
}

/// What is true when a publish or an acknowledgement is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// On the disk: synced.
    #[default]
    Sync,
    /// With the operating system: survives the process, not the machine.
    Os,
}

/// The broker's own settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Broker {
    /// Where messages are kept.
    pub engine: Engine,
    /// Largest message in bytes. 1 MiB. A longer one: 413.
    pub message_bytes_max: u64,
}

/// Where messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// In the broker's own log on its own disk: one machine.
    Embedded,
}

impl Route {
    /// What a service without a route has: everything to itself, with the defaults.
    #[must_use]
    pub fn plain(service: &Name) -> Self {
        Self {
            name: "default".to_owned(),
            matches: Vec::new(),
            backends: vec![Backend { service: service.clone(), subset: None, weight: 1 }],
            timeouts: Timeouts::default(),
            retry: Retry::default(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { request: Some(Duration::from_secs(15)), attempt: None }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 2,
            on: BTreeSet::from([RetryOn::ConnectFailure, RetryOn::ResetBeforeProcessing]),
            budget: 0.2,
            backoff: Duration::from_millis(25),
            non_idempotent: false,
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        let (open, open_max) = (Duration::from_secs(1), Duration::from_secs(30));
        Self { consecutive_failures: 5, open, open_max, max_ejected: 0.5 }
    }
}

impl Default for Inbound {
    fn default() -> Self {
        Self { body_bytes_max: 64 << 20, concurrent_max: 1_024 }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self { path: None, interval: Duration::from_secs(1), timeout: Duration::from_secs(1) }
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            attempts: 20,
            backoff_initial: Duration::from_millis(200),
            backoff_max: Duration::from_secs(60),
            ack_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self { engine: Engine::Embedded, message_bytes_max: 1 << 20 }
    }
}
