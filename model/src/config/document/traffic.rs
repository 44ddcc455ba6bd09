//! Gateways and routes as written, in the words of the Kubernetes Gateway API where it has one.

use schemars::JsonSchema;
use serde::Deserialize;

use super::scalar::{
    Flag, HeaderName, HeaderValue, Host, Listen, Method, NameText, PathText, Percent, RetryCondition, Scalar, Size,
    Time, Whole,
};
use super::{Entries, Located};

/// Largest body that a bound can be set to: 1 TiB.
const BODY_BYTES_MAX: u64 = 1 << 40;
/// A day, in milliseconds.
const DAY: u64 = 86_400_000;

/// A door for clients from outside.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// Where it listens: `127.0.0.1:8080`. Port 0 takes any free one.
    #[schemars(required)]
    pub listen: Option<Scalar<Listen>>,
    /// Largest request body. Default: 64MiB. A longer one: 413.
    pub body_max: Option<Scalar<Size<0, BODY_BYTES_MAX>>>,
    /// Which requests go to which service, at least one; the first that matches.
    #[schemars(required)]
    pub backends: Option<Located<Vec<Located<GatewayBackend>>>>,
}

/// What a gateway lets through to one service.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewayBackend {
    /// The service.
    #[schemars(required)]
    pub service: Option<Scalar<NameText>>,
    /// Host names without port. Absent: every host.
    pub hosts: Option<Located<Vec<Scalar<Host>>>>,
    /// Any of these. Absent: every request.
    pub matches: Option<Located<Vec<Located<Match>>>>,
}

/// What happens to those requests of a service that match.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Whose requests.
    #[schemars(required)]
    pub service: Option<Scalar<NameText>>,
    /// Its name in metrics, logs and refusals. Default: `route-1` for a service's first, and so on.
    pub name: Option<Scalar<NameText>>,
    /// Any of these. Absent: every request.
    pub matches: Option<Located<Vec<Located<Match>>>>,
    /// Where they go, by weight. Absent: the service itself.
    pub backends: Option<Located<Vec<Located<Backend>>>>,
    /// How long they may take.
    pub timeouts: Option<Located<Timeouts>>,
    /// What is tried again.
    pub retry: Option<Located<Retry>>,
}

/// A condition on a request; all of its parts must hold.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// The path.
    pub path: Option<Located<PathMatch>>,
    /// The method, in upper case.
    pub method: Option<Scalar<Method>>,
    /// Header name → exact value; any line of a repeated header may match.
    pub headers: Option<Located<Entries<HeaderName, Scalar<HeaderValue>>>>,
}

/// How a path is matched: one of the two.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct PathMatch {
    /// The whole path.
    pub exact: Option<Scalar<PathText>>,
    /// By whole segments: `/a` holds `/a` and `/a/b`, never `/ab`.
    pub prefix: Option<Scalar<PathText>>,
}

/// A share of a route's traffic.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// The service it goes to.
    #[schemars(required)]
    pub service: Option<Scalar<NameText>>,
    /// Only the instances of this subset. Absent: all.
    pub subset: Option<Scalar<NameText>>,
    /// Its share among the weights of the route, from 0 to 1,000,000. Default: 1.
    pub weight: Option<Scalar<Whole<0, 1_000_000>>>,
}

/// How long a request may take. Up to the head of its response an endpoint has `request` and `attempt`, from when the whole request was
/// sent to it; bodies have `idle`, and nothing else ends one that has begun.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// With all attempts, up to 1d. Default: 15s. `0s`: without bound.
    pub request: Option<Scalar<Time<0, DAY>>>,
    /// One attempt; not longer than `request`. Absent or `0s`: the request's.
    pub attempt: Option<Scalar<Time<0, DAY>>>,
    /// How long nothing of the request's or the response's body may move, looked at once a second. A gRPC stream on which nobody
    /// has anything to say is not idle. Up to 1d. Default: 5m. `0s`: without bound.
    pub idle: Option<Scalar<Time<0, DAY>>>,
}

/// What is tried again, and how often.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Attempts beyond the first, from 0 to 10. Default: 2.
    pub attempts: Option<Scalar<Whole<0, 10>>>,
    /// The conditions. Default: `connect-failure` and `reset-before-processing`, which are safe for every method.
    pub on: Option<Located<Vec<Scalar<RetryCondition>>>>,
    /// Retries as a share of requests, over ten seconds; ten a second are always free. Default: 20%.
    pub budget: Option<Scalar<Percent>>,
    /// Wait before the first retry; it doubles, with full jitter. From 0ms to 1m. Default: 25ms.
    pub backoff: Option<Scalar<Time<0, 60_000>>>,
    /// Retry on every condition also what is not idempotent, such as POST (RFC 9110 §9.2.2). Default: false.
    pub non_idempotent: Option<Scalar<Flag>>,
}
