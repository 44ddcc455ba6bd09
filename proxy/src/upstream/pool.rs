//! The connections of one lane to one endpoint that are kept for later requests.
//!
//! Stale keep-alive is the mesh error that is reported most (a server closes an idle connection just as a request is written
//! to it), so idle connections are given up before any peer does, and the most recently used one is used first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1;
use policy::time::Tick;

use super::dial::{Fresh, Unreachable};
use super::exchange::Connection;
use super::http2::Client;
use crate::body::Sent;

/// Idle HTTP/1.1 connections that are kept for one endpoint by one lane.
const IDLE_MAX: usize = 256;
/// How long one is kept: below the idle time of every common server (Node.js has the shortest, 5 s), as Linkerd does.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Requests at a time on one HTTP/2 connection before another one is opened (RFC 9113 §6.5.2 recommends no limit below 100).
const STREAMS_MAX: u32 = 100;
/// HTTP/2 connections to one endpoint from one lane.
const SHARED_MAX: usize = 16;

/// See the module.
#[derive(Default)]
pub(crate) struct Pool {
    // Locks that no other lane takes: the data path's futures must be `Send`, so a cell would not do.
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Vec<Shared>>,
    /// Held while an HTTP/2 connection is made, so that a burst of requests makes one and not one each, and a burst to an
    /// endpoint that is away finds that out once; what was found last, and when, stands in it.
    pub(crate) dialling: tokio::sync::Mutex<Option<(Tick, Arc<Unreachable>)>>,
}

struct Idle {
    sender: http1::SendRequest<Sent>,
    since: Tick,
}

struct Shared {
    client: Client,
    used: Tick,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// An idle HTTP/1.1 connection that can take a request now.
    pub(crate) fn take_http1(&self, now: Tick) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        while let Some(entry) = idle.pop() {
            if entry.sender.is_ready() && now.since(entry.since) < IDLE_TIMEOUT {
                return Some(Connection::Http1 { sender: entry.sender, reused: true });
            }
            // Closed, past its time, or (hardly ever) not done with its last answer: a new one is the surer way.
        }
        None
    }

    /// A shared HTTP/2 connection with room.
    pub(crate) fn take_http2(&self, now: Tick) -> Option<Connection> {
        let mut shared = lock(&self.shared);
        shared.retain(|entry| !entry.client.is_closed());
        let full = shared.len() >= SHARED_MAX;
        let entry = shared.iter_mut().min_by_key(|entry| entry.client.streams())?;
        if entry.client.streams() >= STREAMS_MAX && !full {
            return None;
        }
        entry.used = now;
        Some(Connection::Http2 { claim: entry.client.claim(), reused: true })
    }

    /// Takes up a fresh connection: an HTTP/2 one is shared from now on, an HTTP/1.1 one is the caller's until it gives it back.
    pub(crate) fn admit(&self, fresh: Fresh, now: Tick) -> Connection {
        match fresh {
            Fresh::Http1(sender) => Connection::Http1 { sender, reused: false },
            Fresh::Http2(client) => {
                let claim = client.claim();
                lock(&self.shared).push(Shared { client, used: now });
                Connection::Http2 { claim, reused: false }
            }
        }
    }

    /// Keeps an HTTP/1.1 connection whose answer has ended.
    pub(crate) fn give_back(&self, sender: http1::SendRequest<Sent>, now: Tick) {
        if sender.is_closed() {
            return;
        }
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE_MAX {
            idle.push(Idle { sender, since: now });
        }
    }

    /// Closes what has been idle for too long. HTTP/2 connections have pings and stay ten times as long.
    pub(crate) fn sweep(&self, now: Tick) {
        lock(&self.idle).retain(|entry| !entry.sender.is_closed() && now.since(entry.since) < IDLE_TIMEOUT);
        lock(&self.shared).retain(|entry| {
            let busy = entry.client.streams() > 0;
            !entry.client.is_closed() && (busy || now.since(entry.used) < IDLE_TIMEOUT * 10)
        });
    }

    /// Connections that stand in the pool now.
    pub(crate) fn len(&self) -> usize {
        lock(&self.idle).len() + lock(&self.shared).len()
    }
}
