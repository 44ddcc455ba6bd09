//! What a lane knows of each of its connections, and how it tells one to end.
//!
//! One tick a second for a whole lane takes the place of a timer for each connection and request: a connection that is late
//! with a head, idle for too long, or asked to drain is told so by a flag and a wake-up.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::task::AtomicWaker;

use crate::progress::{self, Progress};

/// Ticks (seconds) that a request's head may take from its first byte; then 408. (Envoy leaves this off by default; slowloris
/// lives of it.)
const HEAD_TICKS_MAX: u32 = 10;
/// Ticks (seconds) that a connection may stand without a request. Longer than any pool of ours keeps one.
const IDLE_TICKS_MAX: u32 = 75;

/// Ticks (seconds) that an idle HTTP/1.1 connection stays open once its door is closed: longer than a peer's pool keeps one, so
/// that it is the peer who closes, and no request meets a connection that is just going away.
const LAME_DUCK_TICKS: u32 = 4;
/// Ticks (seconds) after which a draining connection without a request is cut off: one that never finished its HTTP/2 handshake,
/// or whose client does not read, would stay for ever.
const GOODBYE_TICKS_MAX: u32 = 15;
/// Ticks (seconds) that a tunnel may stand without a byte in either direction; then both of its ends are closed. (Envoy: 5 min;
/// HAProxy has no default.)
pub(crate) const TUNNEL_IDLE_TICKS_MAX: u32 = 600;
/// Ticks (seconds) that a tunnel may stand once its door is closed: less than [`super::accept::DRAIN_TIMEOUT`], so that the
/// connection around it is still there to carry its end. Where a door is given less than that, its tunnels are cut off.
const TUNNEL_DRAIN_TICKS_MAX: u32 = 8;
/// Requests of one connection that its client may take back before they were answered, if those are more than half of all; then
/// the connection is told to end, and at twice as many it is cut off. The library counts only streams that it has not yet handed
/// over. (CVE-2023-44487; Envoy: 500, more than half, taken back within a second.)
const TAKEN_BACK_MAX: u32 = 500;
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

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    /// Bytes outside of a request are a head that has begun.
    Http1,
    /// HTTP/2: control frames come at any time.
    Http2,
    /// Both ends have agreed on something else.
    Tunnel,
}

/// One connection as its lane sees it.
#[derive(Debug, Default)]
pub(crate) struct Control {
    order: AtomicU8,
    speech: AtomicU8,
    in_flight: AtomicU32,
    // All requests so far; wraps around.
    begun: AtomicU32,
    taken_back: AtomicU32,
    // Bytes came while no request was in progress: a head has begun.
    head_begun: AtomicBool,
    ticks: AtomicU32,
    drain_ticks: AtomicU32,
    // The requests whose bodies are on their way. A lock that is taken when a request comes and ends, and once a second.
    followed: Mutex<Vec<Weak<Progress>>>,
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

    fn speech(&self) -> Speech {
        match self.speech.load(Ordering::Relaxed) {
            0 => Speech::Http1,
            1 => Speech::Http2,
            _ => Speech::Tunnel,
        }
    }

    /// The connection speaks HTTP/2.
    pub(crate) fn becomes_http2(&self) {
        self.speech.store(Speech::Http2 as u8, Ordering::Relaxed);
    }

    /// A tunnel begins on the connection: it is all that HTTP/1.1 has place for, and one stream of HTTP/2.
    pub(crate) fn carries_tunnel(&self) {
        if self.speech() == Speech::Http1 {
            self.becomes_tunnel();
        }
    }

    /// What goes through the connection from now on is not HTTP.
    pub(crate) fn becomes_tunnel(&self) {
        self.speech.store(Speech::Tunnel as u8, Ordering::Relaxed);
        self.ticks.store(0, Ordering::Relaxed);
    }

    /// Bytes came in.
    pub(crate) fn read(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0 {
            let begins = !self.head_begun.swap(true, Ordering::Relaxed);
            match self.speech() {
                // How long the connection was idle before is not the head's time.
                Speech::Http1 if begins => self.ticks.store(0, Ordering::Relaxed),
                Speech::Tunnel => self.ticks.store(0, Ordering::Relaxed),
                Speech::Http1 | Speech::Http2 => {}
            }
        }
    }

    /// Bytes go out while the number of requests is still `answered`, which have all been answered. Says whether these bytes are
    /// the HTTP library's own: on HTTP/1.1 nobody else has anything to say then.
    pub(crate) fn is_unasked(&self, answered: u32) -> bool {
        if self.begun.load(Ordering::Relaxed) != answered {
            return false;
        }
        match self.speech() {
            Speech::Http1 => true,
            Speech::Http2 => false,
            Speech::Tunnel => {
                self.ticks.store(0, Ordering::Relaxed);
                false
            }
        }
    }

    /// The number of requests so far, when all of them have been answered.
    pub(crate) fn answered(&self) -> Option<u32> {
        (self.in_flight.load(Ordering::Relaxed) == 0).then(|| self.begun.load(Ordering::Relaxed))
    }

    /// A request's head is there.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.head_begun.store(false, Ordering::Relaxed);
        InFlight(self.clone())
    }

    /// Whether an HTTP/1.1 connection that drains may be closed behind what is in progress: an answer can say so to the client,
    /// and after the lame-duck time nobody needs to be told.
    pub(crate) fn may_close(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0 || self.drain_ticks.load(Ordering::Relaxed) >= LAME_DUCK_TICKS
    }

    /// Counts ticks against a request's bodies until the last one is gone, which may be after its answer.
    pub(crate) fn follow(&self, progress: Weak<Progress>) {
        self.followed().push(progress);
    }

    /// The request's bodies are gone.
    pub(crate) fn forget(&self, progress: &Progress) {
        let mut followed = self.followed();
        if let Some(index) = followed.iter().position(|entry| progress::is_of(entry, progress)) {
            followed.swap_remove(index);
        }
    }

    fn followed(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Progress>>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what nobody reads or writes any more. Says whether there are bodies on their way.
    fn tick_bodies(&self) -> bool {
        // The last holder of one of them may let it go meanwhile, which takes the lock.
        let followed: Vec<Arc<Progress>> = self.followed().iter().filter_map(Weak::upgrade).collect();
        for progress in followed.iter().filter(|progress| progress.tick()) {
            progress.end();
            if self.speech() != Speech::Http2 {
                self.tell(Order::Kill);
            }
        }
        !followed.is_empty()
    }

    fn tick(&self) {
        let has_bodies = self.tick_bodies();
        let in_flight = self.in_flight.load(Ordering::Relaxed) > 0;
        let speech = self.speech();
        if self.order() == Order::Drain {
            let drained = self.drain_ticks.fetch_add(1, Ordering::Relaxed) + 1;
            let ticks_max = if speech == Speech::Tunnel { TUNNEL_DRAIN_TICKS_MAX } else { GOODBYE_TICKS_MAX };
            if drained == LAME_DUCK_TICKS {
                self.waker.wake();
            } else if drained > ticks_max && !in_flight {
                self.tell(Order::Kill);
            }
        }
        if has_bodies && !in_flight && speech == Speech::Http1 {
            // An answer came before the end of its request: what is read is that request's body, not a head.
            self.head_begun.store(false, Ordering::Relaxed);
        }
        if in_flight || has_bodies {
            self.ticks.store(0, Ordering::Relaxed);
            return;
        }
        let ticks = self.ticks.fetch_add(1, Ordering::Relaxed) + 1;
        match speech {
            Speech::Tunnel if ticks > TUNNEL_IDLE_TICKS_MAX => self.tell(Order::Kill),
            Speech::Http1 if self.head_begun.load(Ordering::Relaxed) => {
                if ticks > HEAD_TICKS_MAX {
                    self.tell(Order::Late);
                }
            }
            Speech::Http1 | Speech::Http2 if ticks > IDLE_TICKS_MAX => self.tell(Order::Drain),
            Speech::Http1 | Speech::Http2 | Speech::Tunnel => {}
        }
    }
}

/// A request in progress on a connection, up to its answer's last byte.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Control>);

impl InFlight {
    /// The client has taken its request back, soon after it came.
    pub(crate) fn taken_back(&self) {
        let control = &self.0;
        let taken_back = control.taken_back.fetch_add(1, Ordering::Relaxed) + 1;
        if taken_back < TAKEN_BACK_MAX || taken_back < control.begun.load(Ordering::Relaxed) / 2 {
            return;
        }
        control.tell(if taken_back < TAKEN_BACK_MAX * 2 { Order::Drain } else { Order::Kill });
    }
}

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

    #[test]
    fn a_head_has_its_whole_time_however_long_the_connection_was_idle() {
        let registry = Registry::default();
        let control = registry.add().unwrap();
        for _ in 0..2 {
            drop(control.begin());
            (0..HEAD_TICKS_MAX * 6).for_each(|_| registry.tick());
            for _ in 0..HEAD_TICKS_MAX {
                // Each byte of it: only the first one begins the time.
                control.read();
                registry.tick();
                assert_eq!(control.order(), Order::Run);
            }
        }
        registry.tick();
        assert_eq!(control.order(), Order::Late);
    }

    #[test]
    fn what_does_not_go_when_it_is_told_to_is_cut_off() {
        let registry = Registry::default();
        let (idle, busy, tunnel) = (registry.add().unwrap(), registry.add().unwrap(), registry.add().unwrap());
        tunnel.becomes_tunnel();
        let _request = busy.begin();
        registry.tell(Order::Drain);
        for _ in 0..=TUNNEL_DRAIN_TICKS_MAX {
            registry.tick();
        }
        assert_eq!((idle.order(), busy.order(), tunnel.order()), (Order::Drain, Order::Drain, Order::Kill));
        for _ in 0..=GOODBYE_TICKS_MAX {
            registry.tick();
        }
        assert_eq!((idle.order(), busy.order()), (Order::Kill, Order::Drain));
    }

    #[test]
    fn a_client_that_takes_most_of_its_requests_back_is_told_to_go() {
        for (answered_each, last) in [(0, Order::Kill), (2, Order::Run)] {
            let control = Arc::new(Control::default());
            for number in 1..=TAKEN_BACK_MAX * 2 {
                control.begin().taken_back();
                (0..answered_each).for_each(|_| drop(control.begin()));
                assert!(number >= TAKEN_BACK_MAX || control.order() == Order::Run, "{number}");
            }
            assert_eq!(control.order(), last);
        }
    }

    #[test]
    fn a_tunnel_is_closed_when_nothing_goes_through_it_in_either_direction() {
        let registry = Registry::default();
        let (silent, reading, writing) = (registry.add().unwrap(), registry.add().unwrap(), registry.add().unwrap());
        for control in [&silent, &reading, &writing] {
            drop(control.begin());
            control.becomes_tunnel();
        }
        for _ in 0..=TUNNEL_IDLE_TICKS_MAX {
            reading.read();
            assert!(!writing.is_unasked(1));
            registry.tick();
        }
        assert_eq!((silent.order(), reading.order(), writing.order()), (Order::Kill, Order::Run, Order::Run));
    }

    #[test]
    fn what_is_said_while_nothing_was_asked_is_the_library_s_own() {
        let control = Arc::new(Control::default());
        assert!(control.is_unasked(control.answered().unwrap()));
        let request = control.begin();
        assert!(!control.is_unasked(0));
        assert_eq!(control.answered(), None);
        drop(request);
        assert!(!control.is_unasked(0), "the end of the answer may not have been written yet");
        assert!(control.is_unasked(control.answered().unwrap()));
        control.becomes_http2();
        assert!(!control.is_unasked(1));
    }
}
