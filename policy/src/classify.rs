//! What an answer says about the endpoint that gave it. Whether it is also worth a retry is left to [`crate::retry`].

/// What an attempt has shown about its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It answered as it should, also when the answer refuses the request: the fault is the caller's, or nobody's.
    Served,
    /// It is alive and says that it has enough to do (429, RESOURCE_EXHAUSTED, a full bulkhead). No breaker may open on it
    /// (envoy#25487), yet so fast an answer must not make it look attractive to the balancer.
    Overloaded,
    /// Its fault.
    Fault(Origin),
    /// Nothing: the attempt was cancelled, or never came to the endpoint.
    Unknown,
}

/// Where a fault was seen. They are told apart since they call for different repairs (Envoy `split_external_local_origin_errors`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// On our side: no connection, a reset, no answer in time.
    Local,
    /// In the endpoint's own answer: a 5xx, a gRPC status that blames the server.
    Upstream,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Local => "no connection, resets or timeouts",
            Self::Upstream => "answers that blame the server",
        })
    }
}

impl Outcome {
    /// No connection, a reset, no answer in time.
    pub const LOCAL_FAULT: Self = Self::Fault(Origin::Local);
    /// An answer that blames the server.
    pub const UPSTREAM_FAULT: Self = Self::Fault(Origin::Upstream);
}

/// What an HTTP status says. 5xx blames the endpoint (RFC 9110 §15.6), but not 501 and 505, which every endpoint of the
/// service would answer alike; 429 (RFC 6585 §4) says that it is overloaded.
///
/// A refusal that a peer sidecar made in its application's stead (`Proxy-Status`) is for the caller to tell: its full
/// bulkhead is [`Outcome::Overloaded`], not a fault.
#[must_use]
pub const fn http(status: u16) -> Outcome {
    match status {
        429 => Outcome::Overloaded,
        501 | 505 => Outcome::Served,
        500..=599 => Outcome::UPSTREAM_FAULT,
        _ => Outcome::Served,
    }
}

/// gRPC status codes (grpc/doc/statuscodes.md) by their numbers on the wire.
pub mod code {
    /// Fine.
    pub const OK: u8 = 0;
    /// The caller cancelled.
    pub const CANCELLED: u8 = 1;
    /// An error without a better word.
    pub const UNKNOWN: u8 = 2;
    /// The deadline passed.
    pub const DEADLINE_EXCEEDED: u8 = 4;
    /// No permission.
    pub const PERMISSION_DENIED: u8 = 7;
    /// A quota or a buffer is used up.
    pub const RESOURCE_EXHAUSTED: u8 = 8;
    /// No such method.
    pub const UNIMPLEMENTED: u8 = 12;
    /// A broken invariant.
    pub const INTERNAL: u8 = 13;
    /// Not there now.
    pub const UNAVAILABLE: u8 = 14;
    /// Data is lost or damaged.
    pub const DATA_LOSS: u8 = 15;
}

/// What a gRPC status says. The codes that Linkerd counts (DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS) blame the
/// endpoint, except PERMISSION_DENIED: where the default is to deny, it would let one caller without an edge open everyone's
/// breaker. CANCELLED says nothing, since the caller did it.
#[must_use]
pub const fn grpc(status: u8) -> Outcome {
    match status {
        code::DEADLINE_EXCEEDED | code::INTERNAL | code::UNAVAILABLE | code::DATA_LOSS => Outcome::UPSTREAM_FAULT,
        code::RESOURCE_EXHAUSTED => Outcome::Overloaded,
        code::CANCELLED => Outcome::Unknown,
        _ => Outcome::Served,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_server_s_faults_are_the_server_s() {
        for (status, outcome) in [
            (200, Outcome::Served),
            (302, Outcome::Served),
            (403, Outcome::Served),
            (404, Outcome::Served),
            (429, Outcome::Overloaded),
            (500, Outcome::UPSTREAM_FAULT),
            (501, Outcome::Served),
            (503, Outcome::UPSTREAM_FAULT),
            (505, Outcome::Served),
            (599, Outcome::UPSTREAM_FAULT),
            (600, Outcome::Served),
        ] {
            assert_eq!(http(status), outcome, "{status}");
        }
        for (status, outcome) in [
            (code::OK, Outcome::Served),
            (code::CANCELLED, Outcome::Unknown),
            (code::UNKNOWN, Outcome::Served),
            (code::DEADLINE_EXCEEDED, Outcome::UPSTREAM_FAULT),
            (code::PERMISSION_DENIED, Outcome::Served),
            (code::RESOURCE_EXHAUSTED, Outcome::Overloaded),
            (code::UNIMPLEMENTED, Outcome::Served),
            (code::INTERNAL, Outcome::UPSTREAM_FAULT),
            (code::UNAVAILABLE, Outcome::UPSTREAM_FAULT),
            (code::DATA_LOSS, Outcome::UPSTREAM_FAULT),
            (200, Outcome::Served),
        ] {
            assert_eq!(grpc(status), outcome, "{status}");
        }
    }
}
