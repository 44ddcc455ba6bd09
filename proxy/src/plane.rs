//! The data plane as its role holds it: started with options, given snapshots, stopped in the role's order.

mod doors;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{Request, Response};
use model::identity::Subject;
use model::name::Name;
use model::snapshot::Snapshot;
use policy::host::Authority;
use policy::time::Tick;
use runtime::drain::Drain;
use runtime::http::{Body, BoxFuture, Handler, SharedHandler};
use runtime::identity::Identity;
use runtime::lanes::Lanes;
use runtime::metrics::Metrics;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access_log::{AccessLog, Writer};
use crate::edge::{Arrival, Direction};
use crate::metrics::{Meters, Tally};
use crate::observed::{Edge, Observed, Tallies};
use crate::table::{self, Rejected, Table};
use crate::upstream::{Dial, Dialler};
use doors::Doors;

/// What a data plane is started with.
pub struct Options {
    /// The mesh's name.
    pub mesh: Name,
    /// Whose data plane it is.
    pub subject: Subject,
    /// The instance's name.
    pub instance: Name,
    /// What it proves to the mesh. `None`: instances inside of the mesh cannot be reached, and there is no inbound door.
    pub identity: Option<Identity>,
    /// Where the data path runs.
    pub lanes: Arc<Lanes>,
    /// Where it counts.
    pub metrics: Metrics,
    /// Where requests are logged.
    pub access_log: AccessLog,
    /// Where the application reaches its sidecar: plain HTTP/1.1 and HTTP/2 with prior knowledge, on loopback.
    pub outbound: Option<SocketAddr>,
    /// Where an operator reads health, metrics and status of a data plane that has no application to go out for, on loopback. It
    /// leads nowhere else.
    pub status: Option<SocketAddr>,
    /// Where the mesh reaches the application.
    pub inbound: Option<Inbound>,
    /// Takes the place of the address in a gateway's snapshot.
    pub gateway: Option<SocketAddr>,
    /// The role's drain waits for connections. It is the last word: when it is requested, every door closes.
    pub drain: Drain,
}

/// The door for the mesh.
pub struct Inbound {
    /// Where it listens: mutual TLS, HTTP/1.1 and HTTP/2.
    pub listen: SocketAddr,
    /// Who answers.
    pub target: Target,
}

/// Who answers what comes from the mesh.
pub enum Target {
    /// The application, at its address on loopback.
    Application(SocketAddr),
    /// A part of this process.
    Handler(SharedHandler),
}

/// Why a data plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on; the text names it.
    #[error("{door}: {source}")]
    Listen {
        /// Which door.
        door: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Whoever reaches it is taken for the application, or for an operator, without being asked who it is.
    #[error("{door}: {address} is not on loopback, where it would be reached by this machine alone")]
    InTheOpen {
        /// Which door.
        door: &'static str,
        /// Where it was to be.
        address: SocketAddr,
    },
    /// Mutual TLS needs an identity.
    #[error("inbound: there is no identity to show to the mesh")]
    NoIdentity,
}

/// A running data plane. Dropping it closes its doors.
pub struct DataPlane {
    plane: Arc<Plane>,
    doors: Doors,
}

/// What requests see of it.
pub(crate) struct Plane {
    pub(crate) mesh: Name,
    pub(crate) subject: Subject,
    pub(crate) instance: Name,
    pub(crate) identity: Option<Identity>,
    pub(crate) target: Option<Target>,
    pub(crate) metrics: Metrics,
    pub(crate) meters: Meters,
    pub(crate) access_log: Writer,
    pub(crate) table: ArcSwapOption<Table>,
    tallies: Tallies,
    lanes: Arc<Lanes>,
    /// The origin of all ticks.
    pub(crate) origin: Instant,
    // One generator for each slot; a lock that nobody contends, since the data path's futures must be `Send`.
    random: Vec<Mutex<fastrand::Rng>>,
    // Taken once a second to write the endpoints' gauges, and to put a table in force and forget the gauges of those that it does
    // not have: a writer that still reads the table before would bring them back.
    gauges: Mutex<()>,
    ended: CancellationToken,
    /// Where the outbound listener is, once it is open.
    outbound: OnceLock<SocketAddr>,
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plane")
            .field("subject", &self.subject)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl Plane {
    fn new(options: &mut Options) -> Self {
        let slots = options.lanes.count() + 1;
        let random = (0..slots).map(|_| Mutex::new(fastrand::Rng::with_seed(runtime::random::seed()))).collect();
        // The target is the pipeline's; the address stays the doors'.
        let target = options.inbound.as_mut().map(|inbound| {
            let nobody = Target::Application(inbound.listen);
            std::mem::replace(&mut inbound.target, nobody)
        });
        Self {
            mesh: options.mesh.clone(),
            subject: options.subject.clone(),
            instance: options.instance.clone(),
            identity: options.identity.clone(),
            target,
            metrics: options.metrics.clone(),
            meters: Meters::new(&options.metrics),
            access_log: Writer::start(options.access_log),
            table: ArcSwapOption::empty(),
            tallies: Tallies::default(),
            lanes: options.lanes.clone(),
            origin: Instant::now(),
            random,
            gauges: Mutex::default(),
            ended: CancellationToken::new(),
            outbound: OnceLock::new(),
        }
    }

    pub(crate) fn now(&self) -> Tick {
        Tick::since_origin(self.origin.elapsed())
    }

    /// A tick as timers want it.
    pub(crate) fn instant(&self, tick: Tick) -> Instant {
        self.origin + Duration::from_nanos(tick.as_nanos())
    }

    /// What it takes to connect to an endpoint.
    pub(crate) fn dialler(&self, dial: Dial) -> Dialler {
        Dialler { dial, identity: self.identity.clone(), origin: self.origin }
    }

    /// The number of slots that per-lane state has: one for each lane, and one for calls from inside of this process.
    pub(crate) fn slots(&self) -> usize {
        self.random.len()
    }

    pub(crate) fn random(&self, slot: usize) -> u64 {
        self.random[slot].lock().unwrap_or_else(PoisonError::into_inner).u64(..)
    }

    /// Who answers from inside of this process in an application's place.
    pub(crate) fn handler(&self) -> Option<&SharedHandler> {
        match &self.target {
            Some(Target::Handler(handler)) => Some(handler),
            _ => None,
        }
    }

    /// Whether an authority is that of the outbound listener itself, on loopback: whoever asks it plainly, without a proxy setting,
    /// asks about this data plane.
    pub(crate) fn is_own(&self, authority: &Authority<'_>) -> bool {
        let loopback = || authority.host.parse::<IpAddr>().map_or(authority.host == "localhost", |ip| ip.is_loopback());
        self.outbound.get().is_some_and(|own| authority.port == Some(own.port())) && loopback()
    }

    pub(crate) fn edges(&self) -> Vec<Edge> {
        self.tallies.edges()
    }

    pub(crate) fn tally(&self, service: &Name) -> Arc<Tally> {
        self.tallies.of(service)
    }

    /// Once a second, for one slot: connections that were idle for too long are closed.
    fn sweep(&self, slot: usize) {
        let (Some(table), now) = (self.table.load_full(), self.now()) else { return };
        let services = table.services.values().chain(table.application.as_ref());
        for endpoint in services.flat_map(|service| &service.endpoints) {
            endpoint.pool(slot).sweep(now);
        }
    }

    /// Puts a table in force. Metrics of endpoints that are gone go too, or their number would have no bound: only once nobody
    /// finds them in the table any more, or they would be there again at once and for ever.
    fn put(&self, before: Option<&Table>, after: Arc<Table>) {
        let _gauging = self.lock_gauges();
        self.table.store(Some(after.clone()));
        for (name, service) in before.iter().flat_map(|table| &table.services) {
            let stays = |endpoint: &str| {
                after.services.get(name).is_some_and(|service| service.endpoints.iter().any(|e| e.name == endpoint))
            };
            for endpoint in service.endpoints.iter().filter(|endpoint| !stays(&endpoint.name)) {
                self.meters.forget_endpoint(name.as_str(), &endpoint.name);
            }
        }
    }

    fn lock_gauges(&self) -> MutexGuard<'_, ()> {
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once a second, for all slots: gauges that are read off rather than kept.
    fn gauge(&self) {
        let _gauging = self.lock_gauges();
        let (Some(table), now) = (self.table.load_full(), self.now()) else { return };
        for (name, service) in &table.services {
            for endpoint in &service.endpoints {
                let state = endpoint.breaker_state(now).0;
                self.meters.endpoint(name.as_str(), &endpoint.name, state, endpoint.connections());
            }
        }
    }
}

impl DataPlane {
    /// Starts: on return every door of the options is open, and requests are answered 503 until there is a snapshot.
    ///
    /// # Errors
    /// When an address cannot be listened on, the outbound or the status door is to be reached from other machines, or an inbound
    /// door is asked for without an identity.
    pub async fn start(mut options: Options) -> Result<Self, Error> {
        for (direction, address) in [(Direction::Outbound, options.outbound), (Direction::Status, options.status)] {
            if let Some(address) = address.filter(|address| !address.ip().to_canonical().is_loopback()) {
                return Err(Error::InTheOpen { door: direction.name(), address });
            }
        }
        if options.inbound.is_some() && options.identity.is_none() {
            return Err(Error::NoIdentity);
        }
        let plane = Arc::new(Plane::new(&mut options));
        let doors = Doors::open(&plane, &options).await?;
        if let Some(address) = doors.address(Direction::Outbound) {
            // It is opened once.
            let _ = plane.outbound.set(address);
        }
        start_ticks(&plane, &doors);
        end_with(options.drain, &doors);
        Ok(Self { plane, doors })
    }

    /// Takes up a snapshot, whole or not at all. Endpoints that stay keep their connections, breakers and loads. A gateway's
    /// first snapshot opens its door; [`DataPlane::gateway_opened`] tells when.
    ///
    /// # Errors
    /// When the snapshot is for someone else, older than the one in force, or contradicts itself; the one before it stays.
    pub fn apply(&self, snapshot: Arc<Snapshot>) -> Result<(), Rejected> {
        let before = self.plane.table.load_full();
        let table = table::build(&self.plane, snapshot, before.as_deref())?;
        let listen = table.snapshot.gateway.as_ref().map(|gateway| gateway.listen);
        self.plane.put(before.as_deref(), Arc::new(table));
        if let Some(listen) = listen {
            self.doors.listen_as_gateway(&self.plane, listen);
        }
        Ok(())
    }

    /// Where the application reaches its sidecar.
    #[must_use]
    pub fn outbound_address(&self) -> Option<SocketAddr> {
        self.doors.address(Direction::Outbound)
    }

    /// Where an operator reads its status.
    #[must_use]
    pub fn status_address(&self) -> Option<SocketAddr> {
        self.doors.address(Direction::Status)
    }

    /// Where the mesh reaches the application.
    #[must_use]
    pub fn inbound_address(&self) -> Option<SocketAddr> {
        self.doors.address(Direction::Inbound)
    }

    /// Where clients from outside come in; `None` while the door is not open.
    #[must_use]
    pub fn gateway_address(&self) -> Option<SocketAddr> {
        self.doors.address(Direction::Gateway)
    }

    /// Waits until the gateway's door is open.
    ///
    /// # Errors
    /// When its address cannot be listened on.
    pub async fn gateway_opened(&self) -> Result<SocketAddr, Error> {
        self.doors.gateway_opened().await
    }

    /// The outbound pipeline for calls from inside of this process: a request for `http://<service>/<path>`.
    #[must_use]
    pub fn caller(&self) -> SharedHandler {
        let arrival = Arrival::inside(self.plane.clone(), self.plane.slots() - 1);
        Arc::new(Caller(Arc::new(arrival)))
    }

    /// Closes the doors for the mesh and for the outside: no more connections, what is in progress is finished, and cut off where it
    /// is not within `bound`. HTTP/1.1 clients are told `Connection: close`, HTTP/2 clients GOAWAY.
    pub async fn stop_inbound(&self, bound: Duration) {
        tokio::join!(self.doors.close(Direction::Inbound, bound), self.doors.close(Direction::Gateway, bound));
    }

    /// Closes the doors for the application and for operators, as [`DataPlane::stop_inbound`]; to be done once the application has
    /// ended.
    pub async fn stop_outbound(&self, bound: Duration) {
        tokio::join!(self.doors.close(Direction::Outbound, bound), self.doors.close(Direction::Status, bound));
    }

    /// What went out since the start.
    #[must_use]
    pub fn observed(&self) -> Observed {
        Observed { subject: self.plane.subject.to_string(), edges: self.plane.edges() }
    }

    /// The snapshot in force, its endpoints and how they stand, as JSON: what the host `sidecar` answers at `/v1/status`.
    #[must_use]
    pub fn status(&self) -> serde_json::Value {
        crate::status::status(&self.plane)
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.plane.ended.cancel();
        self.doors.abandon();
    }
}

struct Caller(Arc<Arrival>);

impl Handler for Caller {
    fn call(&self, request: Request<Body>) -> BoxFuture<Response<Body>> {
        let arrival = self.0.clone();
        Box::pin(async move {
            let Ok(response) = crate::request::handle(arrival, request).await;
            response.map(runtime::http::boxed)
        })
    }
}

/// One tick a second on each lane is all the time-keeping that connections need.
fn start_ticks(plane: &Arc<Plane>, doors: &Doors) {
    let (ticked, doors) = (plane.clone(), doors.clone());
    plane.lanes.run(move |lane| {
        let (plane, doors) = (ticked.clone(), doors.clone());
        async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    () = plane.ended.cancelled() => return,
                    _ = ticks.tick() => {}
                }
                doors.tick(lane);
                plane.sweep(lane);
                if lane == 0 {
                    plane.sweep(plane.slots() - 1);
                    plane.gauge();
                }
            }
        }
    });
}

fn end_with(drain: Drain, doors: &Doors) {
    let doors = doors.clone();
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = drain.requested() => doors.close_all().await,
            () = doors.abandoned() => {}
        }
    });
}
