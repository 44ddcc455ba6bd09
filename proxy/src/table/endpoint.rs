//! One endpoint and the state about it that outlives a snapshot.

use std::sync::Arc;

use http::HeaderValue;
use hyper::client::conn::http1;
use model::config;
use model::name::Name;
use policy::balance::Load;
use policy::breaker::{Breaker, Change, Permit, Standing};
use policy::classify::Outcome;
use policy::time::Tick;

use crate::body::Sent;
use crate::upstream::{Connection, Dial, Pool, Stream};

/// One endpoint of a service. Each lane has its own connections to it and its own view of its load; the breaker is shared, since
/// it is one endpoint that fails, whichever lane finds out.
pub(crate) struct Endpoint {
    /// The instance's name, or `host:port` outside of the mesh.
    pub(crate) name: String,
    pub(crate) subset: Option<Name>,
    pub(crate) dial: Dial,
    /// What `Host` becomes; `None`: it stays. It follows from where it is dialled.
    pub(crate) host: Option<HeaderValue>,
    pub(crate) breaker: Breaker,
    /// One for each lane, and one for calls from inside of this process.
    slots: Box<[Slot]>,
}

struct Slot {
    load: Load,
    pool: Pool,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).field("dial", &self.dial).finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(crate) fn new(
        name: String,
        subset: Option<Name>,
        dial: Dial,
        host: Option<HeaderValue>,
        breaker: &config::Breaker,
        slots: usize,
        now: Tick,
    ) -> Self {
        let slots = (0..slots).map(|_| Slot { load: Load::new(now), pool: Pool::default() }).collect();
        Self { name, subset, dial, host, breaker: Breaker::new(breaker), slots }
    }

    /// Whether this is the endpoint that is described, so that it may be kept.
    pub(crate) fn is(&self, name: &str, subset: Option<&Name>, dial: &Dial, breaker: &config::Breaker) -> bool {
        let same_place = self.name == name && self.subset.as_ref() == subset && self.dial == *dial;
        same_place && self.breaker.settings() == breaker
    }

    pub(crate) fn load(&self, slot: usize) -> &Load {
        &self.slots[slot].load
    }

    pub(crate) fn pool(&self, slot: usize) -> &Pool {
        &self.slots[slot].pool
    }

    /// Connections that stand, over all lanes.
    pub(crate) fn connections(&self) -> usize {
        self.slots.iter().map(|slot| slot.pool.len()).sum()
    }

    /// The breaker's state as metrics and the status show it.
    pub(crate) fn breaker_state(&self, now: Tick) -> (i64, &'static str) {
        match self.breaker.standing(now) {
            Standing::Closed => (0, "closed"),
            Standing::HalfOpen | Standing::Due => (1, "half-open"),
            Standing::Open { .. } => (2, "open"),
        }
    }

    /// Tells the breaker what an attempt has shown.
    pub(crate) fn settle(&self, permit: Permit, outcome: Outcome, random: u64, now: Tick) {
        match permit.settle(outcome, random, now) {
            Some(Change::Opened { until, by }) => {
                let open_ms = until.since(now).as_millis();
                tracing::warn!(endpoint = %self.name, %by, open_ms, "a breaker opened");
            }
            Some(Change::Closed) => tracing::info!(endpoint = %self.name, "a breaker closed"),
            None => {}
        }
    }
}

/// What an answer in progress holds of its endpoint: the connection, and the breaker's permit where the answer's head did not
/// settle it.
pub(crate) struct Lease {
    endpoint: Arc<Endpoint>,
    slot: usize,
    held: Held,
    permit: Option<Permit>,
}

enum Held {
    Http1(http1::SendRequest<Sent>),
    #[expect(dead_code, reason = "held for its drop, which makes room on the connection")]
    Http2(Stream),
}

impl Lease {
    pub(crate) fn new(endpoint: Arc<Endpoint>, slot: usize, connection: Connection, permit: Option<Permit>) -> Self {
        let held = match connection {
            Connection::Http1 { sender, .. } => Held::Http1(sender),
            Connection::Http2 { claim, .. } => Held::Http2(claim.into_stream()),
        };
        Self { endpoint, slot, held, permit }
    }

    /// Tells the breaker what the answer has shown, where that is still open.
    pub(crate) fn settle(&mut self, outcome: Outcome, random: u64, now: Tick) {
        if let Some(permit) = self.permit.take() {
            self.endpoint.settle(permit, outcome, random, now);
        }
    }

    /// Whether the breaker waits for this answer alone.
    pub(crate) fn is_probe(&self) -> bool {
        self.permit.as_ref().is_some_and(Permit::is_probe)
    }

    /// The answer has come in whole: its connection can carry another.
    pub(crate) fn give_back(self, now: Tick) {
        if let Held::Http1(sender) = self.held {
            self.endpoint.pool(self.slot).give_back(sender, now);
        }
    }
}
