//! Doors: where connections come in, and how a door is closed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use runtime::drain::Drain;
use runtime::net::{Listener, Share, Stream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Direction, serve};
use super::control::{Control, Order, Registry};
use crate::plane::Plane;

/// How long a listener rests when the machine gives it no connection (out of descriptors, most often).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long requests in progress may go on once their door is closed, where nobody says how long.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(11);
/// How long connections that were told to end may take to do so, or a quarter of the whole where that is shorter.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// A way in: its listeners, one for each lane, and the connections that came through them.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) direction: Direction,
    pub(crate) registries: Vec<Registry>,
    closing: CancellationToken,
    tracker: TaskTracker,
    drain: Drain,
}

impl Door {
    pub(crate) fn new(direction: Direction, lanes: usize, drain: Drain) -> Self {
        let registries = (0..lanes).map(|_| Registry::default()).collect();
        Self { direction, registries, closing: CancellationToken::new(), tracker: TaskTracker::new(), drain }
    }

    /// A place for one more connection; `None` when there are as many as there may be.
    pub(crate) fn enter(&self, lane: usize) -> Option<Arc<Control>> {
        let control = self.registries[lane].add()?;
        // One that comes when all the others were told already is told here.
        if self.closing.is_cancelled() {
            control.tell(Order::Drain);
        }
        Some(control)
    }

    /// Runs a connection's task so that closing the door waits for it, and the role's drain too.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.drain.track(self.tracker.track_future(task)));
    }

    /// Takes no more connections, lets requests in progress finish, and cuts off what does not, all within `bound`.
    pub(crate) async fn close(&self, bound: Duration) {
        let kill = KILL_TIMEOUT.min(bound / 4);
        self.closing.cancel();
        self.tracker.close();
        self.tell(Order::Drain);
        if tokio::time::timeout(bound - kill, self.tracker.wait()).await.is_err() {
            tracing::warn!(door = ?self.direction, left = self.tracker.len(), "requests were still running and are cut off");
            self.tell(Order::Kill);
            let _ = tokio::time::timeout(kill, self.tracker.wait()).await;
        }
    }

    /// Takes no more connections and ends the ones there are, without waiting.
    pub(crate) fn abandon(&self) {
        self.closing.cancel();
        self.tell(Order::Kill);
    }

    fn tell(&self, order: Order) {
        for registry in &self.registries {
            registry.tell(order);
        }
    }
}

/// Opens the listener of one of `lanes` lanes; the first is opened before the others.
pub(crate) async fn open(address: SocketAddr, lane: usize, lanes: usize) -> io::Result<Listener> {
    let share = match lane {
        _ if lanes == 1 => Share::Alone,
        0 => Share::FirstLane,
        _ => Share::NextLane,
    };
    Listener::open(address, share).await
}

/// Accepts connections until the door is closed.
pub(crate) async fn accept_loop(plane: Arc<Plane>, lane: usize, door: Arc<Door>, listener: Listener) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = door.closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => admit(&plane, lane, &door, stream, from),
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(plane: &Arc<Plane>, lane: usize, door: &Arc<Door>, stream: Stream, from: SocketAddr) {
    // Dropping the stream is the refusal: there is no request yet that could be answered.
    let Some(control) = door.enter(lane) else { return };
    let task = serve(plane.clone(), lane, door.clone(), stream, from, control);
    door.spawn(task);
}
