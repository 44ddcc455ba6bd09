//! One endpoint and the state about it that outlives a snapshot.

use std::sync::Arc;

use http::HeaderValue;
use hyper::client::conn::http1;
use model::config;
use model::name::Name;
use policy::balance::Load;
use policy::breaker::{Breaker, Change, Permit, Standing};
use policy::classify::{self, Ending, Outcome};
use policy::time::Tick;
use runtime::http::BoxError;

use crate::body::RequestBody;
use crate::plane::Plane;
use crate::progress::Progress;
use crate::upstream::{Connection, Dial, Dialler, Place, Pool, Stream, ending};

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
    pool: Arc<Pool>,
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
        dialler: Dialler,
        host: Option<HeaderValue>,
        breaker: &config::Breaker,
        slots: usize,
        now: Tick,
    ) -> Self {
        let (dial, dialler) = (dialler.dial.clone(), Arc::new(dialler));
        let slot = |_| Slot { load: Load::new(now), pool: Pool::new(dialler.clone()) };
        Self { name, subset, dial, host, breaker: Breaker::new(breaker), slots: (0..slots).map(slot).collect() }
    }

    /// Whether this is the endpoint that is described, so that it may be kept.
    pub(crate) fn is(&self, name: &str, subset: Option<&Name>, dial: &Dial, breaker: &config::Breaker) -> bool {
        let same_place = self.name == name && self.subset.as_ref() == subset && self.dial == *dial;
        same_place && self.breaker.settings() == breaker
    }

    pub(crate) fn load(&self, slot: usize) -> &Load {
        &self.slots[slot].load
    }

    pub(crate) fn pool(&self, slot: usize) -> &Arc<Pool> {
        &self.slots[slot].pool
    }

    /// Connections that stand, over all lanes.
    pub(crate) fn connections(&self) -> usize {
        self.slots.iter().map(|slot| slot.pool.len()).sum()
    }

    /// Requests that wait for a connection, over all lanes.
    pub(crate) fn waiting(&self) -> usize {
        self.slots.iter().map(|slot| slot.pool.waiting()).sum()
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
    pub(crate) fn settle(&self, permit: Permit, outcome: Outcome, plane: &Plane, lane: usize, now: Tick) {
        // Only the time that a breaker stays open is drawn.
        let random = if matches!(outcome, Outcome::Fault(_)) { plane.random(lane) } else { 0 };
        self.changed(permit.settle(outcome, random, now), now);
    }

    fn changed(&self, change: Option<Change>, now: Tick) {
        match change {
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
    /// The request's body, which may still be on its way.
    request: Option<Arc<Progress>>,
}

enum Held {
    Http1(http1::SendRequest<RequestBody>, Place),
    /// Its drop makes room on the connection.
    Http2(Stream),
}

impl Lease {
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        slot: usize,
        connection: Connection,
        permit: Option<Permit>,
        request: Option<Arc<Progress>>,
    ) -> Self {
        let held = match connection {
            Connection::Http1 { sender, place, .. } => Held::Http1(sender, place),
            Connection::Http2 { claim, .. } => Held::Http2(claim.into_stream()),
        };
        Self { endpoint, slot, held, permit, request }
    }

    /// Tells breaker and load what the answer has shown behind its head, where that is still open.
    pub(crate) fn settle(&mut self, plane: &Plane, lane: usize, ending: Ending, now: Tick) {
        if let Some(permit) = self.permit.take() {
            let outcome = classify::outcome(ending);
            self.endpoint.load(self.slot).failed_late(outcome, now);
            self.endpoint.settle(permit, outcome, plane, lane, now);
        }
    }

    /// The answer's body has begun: a breaker that is not closed need not wait for its end.
    pub(crate) fn begun(&mut self, plane: &Plane) {
        if let Some(change) = self.permit.as_mut().and_then(Permit::begun) {
            self.endpoint.changed(Some(change), plane.now());
        }
    }

    /// How it ended when its body broke off.
    pub(crate) fn broke(&self, error: &BoxError) -> Ending {
        if self.request.as_ref().is_some_and(|request| request.is_broken_off() || request.is_too_long()) {
            return Ending::ClientBody;
        }
        ending::answer(error, || match &self.held {
            Held::Http1(..) => true,
            Held::Http2(stream) => stream.is_first_to_break(),
        })
    }

    /// The answer has come in whole: its connection can carry another.
    pub(crate) fn give_back(self, now: Tick) {
        if let Held::Http1(sender, place) = self.held {
            self.endpoint.pool(self.slot).give_back(sender, place, now);
        }
    }
}
