//! What a lane knows of each of its connections, and how it tells one to end.
//!
//! One tick a second for a whole lane takes the place of a timer for each connection and request: a connection that is late
//! with a head, idle for too long, or asked to drain is told so by a flag and a wake-up.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::task::AtomicWaker;

/// Ticks (seconds) that a request's head may take from its first byte; then 408. (Envoy leaves this off by default; slowloris
/// lives of it.)
const HEAD_TICKS_MAX: u32 = 10;
/// Ticks (seconds) that a connection may stand without a request. Longer than any pool of ours keeps one.
const IDLE_TICKS_MAX: u32 = 75;

/// Ticks (seconds) that an idle HTTP/1.1 connection stays open once its door is closed: longer than a peer's pool keeps one, so
/// that it is the peer who closes, and no request meets a connection that is just going away.
const LAME_DUCK_TICKS: u32 = 4;
/// Connections of one lane through one door; those beyond are closed at once.
const CONNECTIONS_MAX: usize = 16_384;

/// What a connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Go on.
    Run,
    /// Finish what is in progress, take no more.
    Drain,
    /// The head did not come in time.
    Late,
    /// End now.
    Kill,
}

/// One connection as its lane sees it.
#[derive(Debug, Default)]
pub(crate) struct Control {
    order: AtomicU8,
    in_flight: AtomicU32,
    // Bytes came while no request was in progress: a head has begun.
    head_begun: AtomicBool,
    // HTTP/2: control frames come at any time, so bytes outside of a request are no head that has begun.
    framed: AtomicBool,
    ticks: AtomicU32,
    drain_ticks: AtomicU32,
    waker: AtomicWaker,
}

impl Control {
    pub(crate) fn order(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Run,
            1 => Order::Drain,
            2 => Order::Late,
            _ => Order::Kill,
        }
    }

    /// Tells the connection; a stronger order is not taken back.
    pub(crate) fn tell(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        self.waker.wake();
    }

    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// The connection speaks HTTP/2.
    pub(crate) fn is_framed(&self) {
        self.framed.store(true, Ordering::Relaxed);
    }

    /// Bytes came in.
    pub(crate) fn read(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0 {
            self.head_begun.store(true, Ordering::Relaxed);
        }
    }

    /// A request's head is there.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.head_begun.store(false, Ordering::Relaxed);
        InFlight(self.clone())
    }

    /// Whether an HTTP/1.1 connection that drains may be closed behind what is in progress: an answer can say so to the client,
    /// and after the lame-duck time nobody needs to be told.
    pub(crate) fn may_close(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0 || self.drain_ticks.load(Ordering::Relaxed) >= LAME_DUCK_TICKS
    }

    fn tick(&self) {
        if self.order() == Order::Drain && self.drain_ticks.fetch_add(1, Ordering::Relaxed) + 1 == LAME_DUCK_TICKS {
            self.waker.wake();
        }
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            self.ticks.store(0, Ordering::Relaxed);
            return;
        }
        let ticks = self.ticks.fetch_add(1, Ordering::Relaxed) + 1;
        if self.head_begun.load(Ordering::Relaxed) && !self.framed.load(Ordering::Relaxed) {
            if ticks > HEAD_TICKS_MAX {
                self.tell(Order::Late);
            }
        } else if ticks > IDLE_TICKS_MAX {
            self.tell(Order::Drain);
        }
    }
}

/// A request in progress on a connection, up to its answer's last byte.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Control>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.ticks.store(0, Ordering::Relaxed);
    }
}

/// The connections of one lane through one door.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    // A lock that is taken when a connection comes and once a second.
    connections: Mutex<Vec<Arc<Control>>>,
}

impl Registry {
    /// A new connection; `None` when there are as many as there may be.
    pub(crate) fn add(&self) -> Option<Arc<Control>> {
        let mut connections = self.lock();
        if connections.len() >= CONNECTIONS_MAX {
            // Those that ended since the last tick are still in the list.
            connections.retain(|control| Arc::strong_count(control) > 1);
        }
        if connections.len() >= CONNECTIONS_MAX {
            return None;
        }
        let control = Arc::new(Control::default());
        connections.push(control.clone());
        Some(control)
    }

    /// Once a second: forgets connections that are gone, judges the others.
    pub(crate) fn tick(&self) {
        let mut connections = self.lock();
        connections.retain(|control| Arc::strong_count(control) > 1);
        for control in connections.iter() {
            control.tick();
        }
    }

    /// Gives all of them the same order.
    pub(crate) fn tell(&self, order: Order) {
        for control in self.lock().iter() {
            control.tell(order);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Control>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_head_is_late_and_an_idle_connection_drains() {
        let registry = Registry::default();
        let (half, idle, busy) = (registry.add().unwrap(), registry.add().unwrap(), registry.add().unwrap());
        half.read();
        let _request = busy.begin();
        busy.read();
        for _ in 0..=HEAD_TICKS_MAX {
            registry.tick();
        }
        assert_eq!((half.order(), idle.order(), busy.order()), (Order::Late, Order::Run, Order::Run));
        for _ in 0..=IDLE_TICKS_MAX {
            registry.tick();
        }
        assert_eq!((idle.order(), busy.order()), (Order::Drain, Order::Run));
    }
}
