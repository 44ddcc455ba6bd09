//! The connections of one lane to one endpoint, and the requests that wait for one.
//!
//! A request takes a connection that stands ([`Pool::take`]) or waits in a queue for one ([`Pool::wait`]). While requests wait, the pool
//! dials. A dial belongs to the pool and not to a request: it goes on when the request that it was begun for is gone.
//!
//! Stale keep-alive is the mesh error that is reported most (a server closes an idle connection just as a request is written
//! to it), so idle connections are given up before any peer does, and the most recently used one is used first.

mod waiting;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hyper::client::conn::http1;
use model::config::Protocol;
use policy::time::Tick;

use super::dial::{self, Dialler, NewConnection, Unreachable};
use super::exchange::Connection;
use super::http2::{Client, STREAMS_MAX};
use crate::body::RequestBody;
pub(crate) use waiting::Waiting;
use waiting::{Queue, Waiter};

/// Idle HTTP/1.1 connections that are kept for one endpoint by one lane.
const IDLE_MAX: usize = 256;
/// How long one is kept: below the idle time of every common server (Node.js has the shortest, 5 s), as Linkerd does.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// HTTP/1.1 connections to one endpoint from one lane: a bound for a runaway, far above what an application is asked at a time. A
/// WebSocket holds one for as long as it stands.
const CONNECTIONS_MAX: usize = 8_192;
/// HTTP/1.1 connections to one endpoint that one lane makes at a time. A burst of requests shares what comes of them.
const DIALS_MAX: usize = 32;
/// HTTP/2 connections to one endpoint from one lane.
const SHARED_MAX: usize = 32;
/// Requests of one lane that wait for a connection to one endpoint.
const WAITING_MAX: usize = 1_024;
/// How long no further HTTP/2 connection is tried after one could not be made, while others to the endpoint stand.
const DIAL_PAUSE: Duration = Duration::from_secs(1);

/// See the module. Lock order: none; nothing is called, dropped or awaited under the lock that could take it again.
pub(crate) struct Pool {
    me: Weak<Self>,
    dialler: Arc<Dialler>,
    // A lock that no other lane takes: the data path's futures must be `Send`, so a cell would not do.
    state: Mutex<State>,
    /// Requests that wait, so that who makes room need not lock to see that nobody wants it.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    /// HTTP/1.1 connections that carry a request or a tunnel.
    busy: usize,
    shared: Vec<Shared>,
    http1: Queue,
    http2: Queue,
    /// No HTTP/2 connection is made before, while another stands.
    dial_again: Tick,
}

struct Idle {
    sender: http1::SendRequest<RequestBody>,
    since: Tick,
}

struct Shared {
    client: Client,
    /// `None` before its first request.
    used: Option<Tick>,
    since: Tick,
}

/// An HTTP/1.1 connection's place among those that are in use. Dropping it makes room for another connection.
pub(crate) struct Place(Option<Arc<Pool>>);

/// Why a request waits although the endpoint is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("{0} requests wait for a connection to it, which is the bound; run more instances of it")]
    Queue(usize),
    #[error("{0} connections to it are in use, which is the bound; run more instances of it")]
    Connections(usize),
    #[error(
        "{connections} connections to it each carry the {streams} requests that it takes at a time (its SETTINGS_MAX_CONCURRENT_STREAMS); \
         raise that there, or run more instances of it"
    )]
    Streams { connections: usize, streams: u32 },
    #[error("{0} connections to it each carry {STREAMS_MAX} requests, which is the bound; run more instances of it")]
    Shared(usize),
}

/// What comes of waiting.
type Granted = Result<Connection, Arc<Unreachable>>;

impl Pool {
    pub(crate) fn new(dialler: Arc<Dialler>) -> Arc<Self> {
        let (state, waiting) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new_cyclic(|me| Self { me: me.clone(), dialler, state, waiting })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that can take a request now, unless others have waited for one before.
    pub(crate) fn take(&self, protocol: Protocol, now: Tick) -> Option<Connection> {
        let mut state = self.lock();
        if !state.queue(protocol).is_empty() {
            return None;
        }
        match protocol {
            Protocol::Http => self.take_http1(&mut state, now),
            Protocol::Grpc => state.take_http2(now),
        }
    }

    fn take_http1(&self, state: &mut State, now: Tick) -> Option<Connection> {
        while let Some(entry) = state.idle.pop() {
            if entry.sender.is_ready() && now.since(entry.since) < IDLE_TIMEOUT {
                state.busy += 1;
                let place = Place(self.me.upgrade());
                return Some(Connection::Http1 { sender: entry.sender, reused: true, place });
            }
            // Closed, past its time, or (hardly ever) not done with its last answer: a new one is the surer way.
        }
        None
    }

    /// A place in the queue for a connection; those who came first are served first.
    ///
    /// # Errors
    /// When as many as may wait do.
    pub(crate) fn wait(self: &Arc<Self>, protocol: Protocol) -> Result<Waiting, Full> {
        let mut state = self.lock();
        let queue = state.queue(protocol);
        if queue.len() >= WAITING_MAX {
            return Err(Full::Queue(WAITING_MAX));
        }
        let (ticket, granted) = queue.join();
        self.go_on(state);
        Ok(Waiting::new(self.clone(), protocol, ticket, granted))
    }

    /// Why those who wait do so, when it is not for a dial.
    pub(crate) fn full(&self, protocol: Protocol) -> Option<Full> {
        let mut state = self.lock();
        match protocol {
            Protocol::Http => {
                (state.busy + state.http1.dials >= CONNECTIONS_MAX).then_some(Full::Connections(CONNECTIONS_MAX))
            }
            Protocol::Grpc if state.http2.dials > 0 || !state.lives(protocol) => None,
            Protocol::Grpc => {
                let connections = state.shared.len();
                let streams = state.shared.iter().map(|entry| entry.client.streams_max()).min().unwrap_or(0);
                let theirs = streams < STREAMS_MAX;
                Some(if theirs { Full::Streams { connections, streams } } else { Full::Shared(connections) })
            }
        }
    }

    /// Room may have become free, on an HTTP/2 connection or for a further one.
    pub(crate) fn freed(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.go_on(self.lock());
        }
    }

    /// Keeps an HTTP/1.1 connection whose answer has ended, or hands it to the first who waits for one.
    pub(crate) fn give_back(&self, sender: http1::SendRequest<RequestBody>, mut place: Place, now: Tick) {
        if sender.is_closed() {
            return;
        }
        let mut state = self.lock();
        if state.http1.is_empty() {
            state.busy = state.busy.saturating_sub(1);
            if state.idle.len() < IDLE_MAX {
                state.idle.push(Idle { sender, since: now });
            }
            drop(state);
            place.0 = None;
        } else if sender.is_ready() {
            self.hand_out(state, Connection::Http1 { sender, reused: true, place }, now);
        } else {
            drop(state);
            let (pool, mut sender) = (self.me.upgrade(), sender);
            spawn(async move {
                // It is done with its answer in a moment, or closes then, as it said.
                if let (Some(pool), Ok(())) = (pool, sender.ready().await) {
                    pool.give_back(sender, place, pool.dialler.now());
                }
            });
        }
    }

    /// Hands an HTTP/1.1 connection to the first who waits, or keeps it.
    fn hand_out(&self, mut state: MutexGuard<'_, State>, mut connection: Connection, now: Tick) {
        while let Some(waiter) = state.http1.pop() {
            match waiter.granted.send(Ok(connection)) {
                Ok(()) => return self.go_on(state),
                // Who waited has left just now.
                Err(Ok(back)) => connection = back,
                Err(Err(_)) => return self.go_on(state),
            }
        }
        self.go_on(state);
        if let Connection::Http1 { sender, place, .. } = connection {
            self.give_back(sender, place, now);
        }
    }

    /// Serves those who wait with what there is, and dials for the rest.
    fn go_on(&self, mut state: MutexGuard<'_, State>) {
        let unwanted = state.serve_http2(self.dialler.now());
        for protocol in [Protocol::Http, Protocol::Grpc] {
            while state.wants_dial(protocol, self.dialler.now()) {
                let queue = state.queue(protocol);
                let (Some(pool), begun) = (self.me.upgrade(), queue.next) else { break };
                let dialling = async move {
                    let result = dial::dial(&pool.dialler, protocol, &pool.me).await;
                    pool.dialled(protocol, begun, result);
                };
                if !spawn(dialling) {
                    break;
                }
                queue.dials += 1;
            }
        }
        self.waiting.store(state.http1.len() + state.http2.len(), Ordering::SeqCst);
        drop(state);
        drop(unwanted);
    }

    /// A dial has come to its end. `begun`: who has waited when it began has a lower ticket.
    fn dialled(&self, protocol: Protocol, begun: u64, result: Result<NewConnection, Unreachable>) {
        let now = self.dialler.now();
        let mut state = self.lock();
        state.queue(protocol).dials -= 1;
        match result {
            Ok(NewConnection::Http1(sender)) => {
                state.busy += 1;
                let place = Place(self.me.upgrade());
                self.hand_out(state, Connection::Http1 { sender, reused: false, place }, now);
            }
            Ok(NewConnection::Http2(client)) => {
                state.shared.push(Shared { client, used: None, since: now });
                self.go_on(state);
            }
            Err(error) => {
                let concerned = state.concerned(protocol, begun, now);
                self.go_on(state);
                // It is one failure, however many have waited: the first tells the breaker of it.
                let found = Arc::new(error);
                let others = Arc::new(Unreachable::FoundByAnother(found.clone()));
                for (place, waiter) in concerned.into_iter().enumerate() {
                    let error = if place == 0 { &found } else { &others };
                    let _gone = waiter.granted.send(Err(error.clone()));
                }
            }
        }
    }

    /// Who waits has left.
    fn leave(&self, protocol: Protocol, ticket: u64) {
        let mut state = self.lock();
        state.queue(protocol).leave(ticket);
        self.waiting.store(state.http1.len() + state.http2.len(), Ordering::SeqCst);
    }

    /// Closes what has been idle for too long. HTTP/2 connections stay ten times as long.
    pub(crate) fn sweep(&self, now: Tick) {
        let mut state = self.lock();
        state.idle.retain(|entry| !entry.sender.is_closed() && now.since(entry.since) < IDLE_TIMEOUT);
        state.shared.retain(|entry| {
            let busy = entry.client.streams() > 0;
            let idle_since = entry.used.unwrap_or(entry.since);
            !entry.client.is_closed() && (busy || now.since(idle_since) < IDLE_TIMEOUT * 10)
        });
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.go_on(state);
        }
    }

    /// Connections that stand in the pool now.
    pub(crate) fn len(&self) -> usize {
        let state = self.lock();
        state.idle.len() + state.shared.len()
    }

    /// Requests that wait for a connection now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

impl State {
    fn queue(&mut self, protocol: Protocol) -> &mut Queue {
        match protocol {
            Protocol::Http => &mut self.http1,
            Protocol::Grpc => &mut self.http2,
        }
    }

    /// A place on the HTTP/2 connection that carries the fewest requests.
    fn take_http2(&mut self, now: Tick) -> Option<Connection> {
        self.shared.retain(|entry| !entry.client.is_closed());
        let roomy = self.shared.iter_mut().filter(|entry| entry.client.streams() < entry.client.streams_max());
        let entry = roomy.min_by_key(|entry| entry.client.streams())?;
        let reused = entry.used.replace(now).is_some();
        Some(Connection::Http2 { claim: entry.client.claim(), reused })
    }

    /// Gives those who wait what room there is. What nobody wanted after all is to be dropped once the lock is released.
    fn serve_http2(&mut self, now: Tick) -> Vec<Connection> {
        let mut unwanted = Vec::new();
        while !self.http2.is_empty() {
            let Some(connection) = self.take_http2(now) else { break };
            if let Some(waiter) = self.http2.pop()
                && let Err(Ok(connection)) = waiter.granted.send(Ok(connection))
            {
                unwanted.push(connection);
            }
        }
        unwanted
    }

    /// Whether a connection is to be made for those who wait.
    fn wants_dial(&mut self, protocol: Protocol, now: Tick) -> bool {
        match protocol {
            Protocol::Http => {
                let wanted = self.http1.len() > self.http1.dials && self.http1.dials < DIALS_MAX;
                wanted && self.busy + self.http1.dials < CONNECTIONS_MAX
            }
            Protocol::Grpc => {
                let wanted = !self.http2.is_empty() && self.http2.dials == 0 && self.shared.len() < SHARED_MAX;
                wanted && (now >= self.dial_again || !self.lives(protocol))
            }
        }
    }

    /// Whether connections to the endpoint stand that are not about to end.
    fn lives(&mut self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Http => self.busy > 0,
            Protocol::Grpc => self.shared.iter_mut().any(|entry| !entry.client.goes_away()),
        }
    }

    /// Whom a failed dial concerns, of those who have waited when it began; who came later gets a dial that began later.
    ///
    /// An endpoint to which nothing stands is away, for all of them. Otherwise an HTTP/1.1 dial was one request's, and those who wait
    /// for HTTP/2 have other connections to wait for.
    fn concerned(&mut self, protocol: Protocol, begun: u64, now: Tick) -> Vec<Waiter> {
        let lives = self.lives(protocol);
        let most = match protocol {
            Protocol::Http if lives => 1,
            Protocol::Grpc if lives => {
                self.dial_again = now.after(DIAL_PAUSE);
                0
            }
            _ => usize::MAX,
        };
        self.queue(protocol).pop_before(begun, most)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pool) = self.0.take() {
            let mut state = pool.lock();
            state.busy = state.busy.saturating_sub(1);
            pool.go_on(state);
        }
    }
}

/// Runs a task, unless the runtime is gone already; says whether it does.
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> bool {
    let runtime = tokio::runtime::Handle::try_current();
    runtime.map(|runtime| runtime.spawn(task)).is_ok()
}

#[cfg(test)]
mod tests;
