//! The doors of a data plane: opened on every lane, found by direction, closed in the role's order.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Error, Options, Plane};
use crate::edge::{DRAIN_TIMEOUT, Direction, Door, accept_loop, open};

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Doors(Arc<Inner>);

struct Inner {
    // A lock that is taken when a door opens or closes and once a second by each lane.
    open: Mutex<BTreeMap<&'static str, Opened>>,
    gateway: watch::Sender<Gateway>,
    gateway_override: Option<SocketAddr>,
    drain: runtime::drain::Drain,
    abandoned: CancellationToken,
}

#[derive(Clone)]
struct Opened {
    door: Arc<Door>,
    /// What was asked for, and what it is.
    asked: SocketAddr,
    address: SocketAddr,
}

/// The gateway's door opens with a snapshot, not with the start.
#[derive(Debug, Clone)]
enum Gateway {
    Closed,
    Opening(SocketAddr),
    Open(SocketAddr),
    Failed(io::ErrorKind, String),
}

impl Doors {
    pub(super) async fn open(plane: &Arc<Plane>, options: &Options) -> Result<Self, Error> {
        let doors = Self(Arc::new(Inner {
            open: Mutex::default(),
            gateway: watch::Sender::new(Gateway::Closed),
            gateway_override: options.gateway,
            drain: options.drain.clone(),
            abandoned: CancellationToken::new(),
        }));
        let asked = [
            (Direction::Outbound, options.outbound),
            (Direction::Status, options.status),
            (Direction::Inbound, options.inbound.as_ref().map(|inbound| inbound.listen)),
            (Direction::Gateway, options.gateway),
        ];
        for (direction, address) in asked {
            if let Some(address) = address {
                let opened = doors.open_one(plane, direction, address).await;
                let opened = opened.map_err(|source| Error::Listen { door: direction.name(), source })?;
                if direction == Direction::Gateway {
                    doors.0.gateway.send_replace(Gateway::Open(opened));
                }
            }
        }
        Ok(doors)
    }

    /// Opens a door on every lane. Where port 0 was asked for, the first lane chooses and the others follow.
    async fn open_one(&self, plane: &Arc<Plane>, direction: Direction, asked: SocketAddr) -> io::Result<SocketAddr> {
        let lanes = plane.lanes.count();
        let door = Arc::new(Door::new(direction, lanes, self.0.drain.clone()));
        let chosen = Arc::new(watch::Sender::new(Chosen::NotYet));
        let (report, mut reports) = mpsc::channel(lanes);
        let (opened, on_plane) = (door.clone(), plane.clone());
        plane.lanes.run(move |lane| {
            let (plane, door, chosen, report) = (on_plane.clone(), opened.clone(), chosen.clone(), report.clone());
            async move {
                let address = if lane == 0 { Some(asked) } else { follow(&chosen).await };
                let Some(address) = address else { return };
                let listener = match open(address, lane, lanes).await.and_then(|l| Ok((l.local_addr()?, l))) {
                    Ok((address, listener)) => {
                        chosen.send_replace(Chosen::Address(address));
                        // Full never: there is room for each lane's one report.
                        let _ = report.try_send(Ok(address));
                        listener
                    }
                    Err(error) => {
                        chosen.send_replace(Chosen::None);
                        let _ = report.try_send(Err(error));
                        return;
                    }
                };
                drop((chosen, report));
                accept_loop(plane, lane, door, listener).await;
            }
        });
        let mut address = asked;
        for _ in 0..lanes {
            match reports.recv().await {
                Some(Ok(one)) => address = one,
                Some(Err(error)) => {
                    door.close(DRAIN_TIMEOUT).await;
                    return Err(error);
                }
                None => break,
            }
        }
        self.lock().insert(direction.name(), Opened { door, asked, address });
        Ok(address)
    }

    /// Opens the gateway's door, or moves it; the old one finishes what is in progress.
    pub(super) fn listen_as_gateway(&self, plane: &Arc<Plane>, listen: SocketAddr) {
        if self.0.gateway_override.is_some() {
            return;
        }
        let same = |asked: &SocketAddr| *asked == listen;
        if self.lock().get(Direction::Gateway.name()).is_some_and(|opened| same(&opened.asked)) {
            return;
        }
        if matches!(&*self.0.gateway.borrow(), Gateway::Opening(asked) if same(asked)) {
            return;
        }
        self.0.gateway.send_replace(Gateway::Opening(listen));
        let (doors, plane) = (self.clone(), plane.clone());
        tokio::spawn(async move {
            let before = doors.lock().get(Direction::Gateway.name()).cloned();
            let outcome = match doors.open_one(&plane, Direction::Gateway, listen).await {
                Ok(address) => Gateway::Open(address),
                Err(error) => {
                    tracing::error!(%error, "the gateway cannot listen; `listen` of the gateway in the mesh file moves it");
                    Gateway::Failed(error.kind(), error.to_string())
                }
            };
            let moved = matches!(outcome, Gateway::Open(_));
            doors.0.gateway.send_replace(outcome);
            if let (true, Some(before)) = (moved, before) {
                before.door.close(DRAIN_TIMEOUT).await;
            }
        });
    }

    pub(super) async fn gateway_opened(&self) -> Result<SocketAddr, Error> {
        let mut watched = self.0.gateway.subscribe();
        loop {
            match &*watched.borrow_and_update() {
                Gateway::Open(address) => return Ok(*address),
                Gateway::Failed(kind, why) => {
                    let source = io::Error::new(*kind, why.clone());
                    return Err(Error::Listen { door: Direction::Gateway.name(), source });
                }
                Gateway::Closed | Gateway::Opening(_) => {}
            }
            if watched.changed().await.is_err() {
                let source = io::Error::new(io::ErrorKind::NotConnected, "the data plane has ended");
                return Err(Error::Listen { door: Direction::Gateway.name(), source });
            }
        }
    }

    pub(super) fn address(&self, direction: Direction) -> Option<SocketAddr> {
        self.lock().get(direction.name()).map(|opened| opened.address)
    }

    /// Once a second, for one lane.
    pub(super) fn tick(&self, lane: usize) {
        for opened in self.lock().values() {
            opened.door.registries[lane].tick();
        }
    }

    pub(super) async fn close(&self, direction: Direction, bound: Duration) {
        let opened = self.lock().get(direction.name()).cloned();
        if let Some(opened) = opened {
            opened.door.close(bound).await;
        }
    }

    pub(super) async fn close_all(&self) {
        let close = |direction| self.close(direction, DRAIN_TIMEOUT);
        let (inward, outward) = ([Direction::Inbound, Direction::Gateway], [Direction::Outbound, Direction::Status]);
        let ([a, b], [c, d]) = (inward.map(close), outward.map(close));
        tokio::join!(a, b, c, d);
    }

    /// The owner is gone: nobody waits any more.
    pub(super) fn abandon(&self) {
        self.0.abandoned.cancel();
        for opened in self.lock().values() {
            opened.door.abandon();
        }
    }

    pub(super) async fn abandoned(&self) {
        self.0.abandoned.cancelled().await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Opened>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the first lane found.
#[derive(Debug, Clone, Copy)]
enum Chosen {
    NotYet,
    Address(SocketAddr),
    None,
}

async fn follow(chosen: &watch::Sender<Chosen>) -> Option<SocketAddr> {
    let mut watched = chosen.subscribe();
    let chosen = watched.wait_for(|chosen| !matches!(chosen, Chosen::NotYet)).await.ok()?;
    if let Chosen::Address(address) = *chosen { Some(address) } else { None }
}
