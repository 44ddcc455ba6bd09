//! The mesh as a whole: prepared, started in waves, watched, and ended in the other order.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use control::token::Secret;
use futures_util::StreamExt as _;
use futures_util::future::{join_all, try_join_all};
use model::config::Config;
use model::name::Name;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::WatchStream;

use super::error::Error;
use super::event::{Event, State};
use super::folder::{CONTROL_PLANE, Folder, Running, RunningInstance};
use super::invocation::{self, Common, Particular};
use super::plan::{self, Part, Planned};
use super::process::{Invocation, Lines};
use super::supervisor::{Bounds, Order, Prepare, Standing, Supervisor};
use super::tokens::{TOKEN_LIFE, Tokens};
use super::{leftover, ports, program};

/// Orders that wait for one supervisor.
const ORDERS_MAX: usize = 8;

/// How a mesh is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The mesh, proven.
    pub config: Config,
    /// The mesh file, which the control plane reads again; absolute.
    pub file: PathBuf,
    /// The mesh's folder.
    pub data: PathBuf,
    /// The meshwork executable.
    pub program: PathBuf,
    /// Where commands are looked for before PATH; applications run in the first.
    pub folders: Vec<PathBuf>,
    /// Gateways that listen elsewhere than the mesh file says.
    pub listen: BTreeMap<Name, SocketAddr>,
    /// How a gateway is moved on the caller's command line, for the message when its port is taken.
    pub port_flag: Option<String>,
    /// What the roles log.
    pub log_level: String,
    /// Whether each request is logged.
    pub access_log: bool,
    /// Lanes of each role that carries traffic.
    pub lanes: u16,
    /// From the start of an instance to its being ready.
    pub come_up: Duration,
    /// From SIGTERM to SIGKILL.
    pub stop: Duration,
}

/// How an instance stands.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its service, or its role.
    pub label: String,
    /// Its service's name, where it is an instance of one.
    pub service: Option<Name>,
    /// Its name.
    pub instance: Name,
    /// Its state.
    pub state: State,
    /// Its process; of an application, its sidecar's.
    pub pid: Option<u32>,
    /// How often it was started.
    pub starts: u32,
    /// Where it listens, by purpose: what its ready file says, and `application`.
    pub addresses: BTreeMap<String, SocketAddr>,
}

/// A mesh of processes on this machine.
pub struct Mesh {
    shared: Arc<Shared>,
    waves: Vec<Vec<Instance>>,
}

/// One instance as the mesh sees it.
struct Instance {
    planned: Planned,
    standing: watch::Receiver<Standing>,
    orders: mpsc::Sender<Order>,
    lines: Lines,
    /// Taken when it is started.
    supervisor: Mutex<Option<Supervisor>>,
}

/// What the start of any instance needs.
struct Shared {
    common: Common,
    folder: Arc<Folder>,
    secret: Secret,
    listen: BTreeMap<Name, SocketAddr>,
    /// Where applications listen.
    // A lock for a look, or for a change before a start.
    ports: Mutex<BTreeMap<Name, u16>>,
    programs: BTreeMap<Name, PathBuf>,
    /// Where the control plane is; set when it was first ready, so that it comes back to the same place.
    control: OnceLock<SocketAddr>,
    admin: OnceLock<SocketAddr>,
}

impl Mesh {
    /// Finds out whether the mesh can be started, and starts nothing yet. What happens from then on comes as `events`, which must be
    /// read all the while: an instance whose lines nobody reads stands still.
    ///
    /// # Errors
    /// When ports are taken, programs are not there, or the folder cannot be used.
    pub fn prepare(options: Options, events: mpsc::Sender<Event>) -> Result<Self, Error> {
        let mut waves = plan::waves(&options.config)?;
        move_gateways(&mut waves, &options.listen);
        let programs = find_programs(&waves, &options.folders)?;
        // Before the ports: where the same mesh runs already it has them too, and that would be half of the story.
        let folder =
            Folder::take(&options.data).map_err(|error| Error::Folder { folder: options.data.clone(), error })?;
        let left = leftover::end_of(folder.root());
        if left > 0 {
            tracing::warn!(
                left,
                "an earlier run in this folder was killed and left processes behind; they were killed"
            );
        }
        folder.forget_instances().map_err(|error| Error::Prepare(error.into()))?;
        let taken = ports::check(&waves, options.port_flag.as_deref());
        if !taken.is_empty() {
            return Err(Error::Taken(taken));
        }
        let shared = Arc::new(Shared {
            secret: folder.make_secret().map_err(Error::Prepare)?,
            ports: Mutex::new(ports::assign(&waves).map_err(|error| Error::Prepare(error.into()))?),
            common: common(&options, &folder),
            folder: Arc::new(folder),
            listen: options.listen.clone(),
            programs,
            control: OnceLock::new(),
            admin: OnceLock::new(),
        });
        let bounds = Bounds { come_up: Some(options.come_up), stop: options.stop };
        let instance = |planned| Instance::new(planned, &shared, bounds, &events);
        let waves = waves.into_iter().map(|wave| wave.into_iter().map(instance).collect()).collect();
        Ok(Self { shared, waves })
    }

    /// Starts the waves one after the other, each when the one before carries traffic.
    ///
    /// # Errors
    /// With the first instance that does not come up, without a wait for the others of its wave; the caller ends the others with [`Mesh::stop`].
    pub async fn start(&self) -> Result<(), Error> {
        for wave in &self.waves {
            wave.iter().for_each(|instance| instance.launch(&self.shared));
            try_join_all(wave.iter().map(|instance| instance.came_up(&self.shared))).await?;
            self.learn();
            self.tell();
        }
        Ok(())
    }

    /// Keeps what is written down of the mesh up to date, for ever.
    pub async fn follow(&self) {
        let changes = self.waves.iter().flatten().map(|instance| WatchStream::from_changes(instance.standing.clone()));
        let mut changes = futures_util::stream::select_all(changes);
        loop {
            self.tell();
            if changes.next().await.is_none() {
                // All are over; the caller says when the mesh is.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Ends everything that runs, the last wave first.
    pub async fn stop(&self) {
        for wave in self.waves.iter().rev() {
            join_all(wave.iter().map(Instance::stop)).await;
            self.tell();
        }
        self.shared.folder.forget_running();
    }

    /// Kills an instance with SIGKILL, as a crash would; it comes back after `hold`. An application is killed with its sidecar.
    /// Answers whether there is such an instance.
    pub async fn kill(&self, instance: &str, hold: Duration) -> bool {
        match self.find(instance) {
            Some(found) => found.orders.send(Order::Kill { hold }).await.is_ok(),
            None => false,
        }
    }

    /// Waits until the instance has been started more than `starts` times and is ready.
    pub async fn ready_after(&self, instance: &str, starts: u32) {
        if let Some(found) = self.find(instance) {
            let mut standing = found.standing.clone();
            // An error means that it is over, which the caller sees in the reports.
            let _ = standing.wait_for(|standing| standing.starts > starts && standing.state == State::Ready).await;
        }
    }

    /// All instances, in the order in which they were started.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        self.waves.iter().flatten().map(|instance| instance.report(&self.shared)).collect()
    }

    /// Where a gateway listens; `None` while it is not ready.
    #[must_use]
    pub fn gateway_address(&self, name: &str) -> Option<SocketAddr> {
        let report = self.reports().into_iter().find(|report| report.instance.as_str() == format!("gateway-{name}"))?;
        report.addresses.get("gateway").copied()
    }

    /// Writes down what runs, for `meshwork status`.
    pub fn tell(&self) {
        let instances = self.reports().into_iter().map(|report| RunningInstance {
            service: report.label,
            instance: report.instance,
            state: report.state.word().to_owned(),
            pid: report.pid,
            starts: report.starts,
            addresses: report.addresses,
        });
        let running =
            Running { pid: std::process::id(), mesh: self.shared.common.mesh.clone(), instances: instances.collect() };
        if let Err(error) = self.shared.folder.write_running(&running) {
            tracing::warn!(%error, "what runs could not be written down");
        }
    }

    fn find(&self, instance: &str) -> Option<&Instance> {
        self.waves.iter().flatten().find(|found| found.planned.instance.as_str() == instance)
    }

    /// Takes down where the control plane is, once it is somewhere.
    fn learn(&self) {
        let ready = self.find(CONTROL_PLANE).and_then(|found| found.standing.borrow().ready.clone());
        for (name, place) in [("control", &self.shared.control), ("admin", &self.shared.admin)] {
            if let Some(address) = ready.as_ref().and_then(|ready| ready.addresses.get(name)) {
                // It is set once; a control plane that comes back is told to come to the same place.
                let _ = place.set(*address);
            }
        }
    }
}

impl Instance {
    fn new(planned: Planned, shared: &Arc<Shared>, bounds: Bounds, events: &mpsc::Sender<Event>) -> Self {
        let (standing_in, standing) = watch::channel(Standing::waiting());
        let (orders, orders_out) = mpsc::channel(ORDERS_MAX);
        let lines = Lines::new(planned.instance.clone(), events.clone());
        let supervisor = Supervisor {
            instance: planned.instance.clone(),
            prepare: prepare(planned.clone(), shared.clone()),
            folder: shared.folder.clone(),
            lines: lines.clone(),
            bounds: Bounds { come_up: bounds.come_up.filter(|_| is_ours(&planned)), ..bounds },
            events: events.clone(),
            standing: standing_in,
            orders: orders_out,
        };
        Self { planned, standing, orders, lines, supervisor: Mutex::new(Some(supervisor)) }
    }

    fn launch(&self, shared: &Shared) {
        let supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (Some(supervisor), tokens) = (supervisor, shared.tokens(&self.planned)) else { return };
        tokio::spawn(async move {
            let fresh = async {
                match tokens {
                    Some(tokens) => tokens.keep_fresh().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = supervisor.run() => {}
                never = fresh => match never {},
            }
        });
    }

    async fn came_up(&self, shared: &Shared) -> Result<(), Error> {
        if !is_ours(&self.planned) {
            return Ok(());
        }
        let mut standing = self.standing.clone();
        let settled = standing.wait_for(|standing| standing.state == State::Ready || standing.state.is_over()).await;
        let why = match settled.as_deref() {
            Ok(Standing { state: State::Ready, .. }) => return Ok(()),
            Ok(Standing { state: State::Failed { why }, .. }) => why.clone(),
            _ => "it was told to end".to_owned(),
        };
        let instance = self.planned.instance.clone();
        Err(Error::Instance { instance, why, awaited: self.awaited(shared), last_lines: self.lines.last() })
    }

    /// What makes the instance ready, where it is an application's.
    fn awaited(&self, shared: &Shared) -> Option<String> {
        let Part::Service(service) = &self.planned.part else { return None };
        let port = shared.lock_ports().get(&self.planned.instance).copied()?;
        Some(match &service.health.path {
            Some(path) => format!("a GET of http://127.0.0.1:{port}{path} must answer 2xx"),
            None => format!("127.0.0.1:{port} must accept a connection"),
        })
    }

    async fn stop(&self) {
        // What was never started is not started any more.
        drop(self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take());
        let mut standing = self.standing.clone();
        // An error means that its supervisor is gone, and its process with it.
        if self.orders.send(Order::Stop).await.is_ok() {
            let _ = standing.wait_for(|standing| standing.state.is_over()).await;
        }
    }

    fn report(&self, shared: &Shared) -> Report {
        let standing = self.standing.borrow().clone();
        let mut addresses = standing.ready.map(|ready| ready.addresses).unwrap_or_default();
        if let Some(port) = shared.lock_ports().get(&self.planned.instance) {
            addresses.insert("application".to_owned(), SocketAddr::from(([127, 0, 0, 1], *port)));
        }
        let service = match &self.planned.part {
            Part::Service(service) => Some(service.name.clone()),
            _ => None,
        };
        Report {
            label: self.planned.label(),
            service,
            instance: self.planned.instance.clone(),
            state: standing.state,
            pid: standing.pid,
            starts: standing.starts,
            addresses,
        }
    }
}

/// Whether its readiness depends on nothing that someone else starts.
fn is_ours(planned: &Planned) -> bool {
    !matches!(&planned.part, Part::Service(service) if service.command.is_none())
}

fn prepare(planned: Planned, shared: Arc<Shared>) -> Prepare {
    Arc::new(move || shared.invocation(&planned))
}

impl Shared {
    /// Who makes the tokens of an instance; the control plane needs none.
    fn tokens(&self, planned: &Planned) -> Option<Tokens> {
        let (secret, folder) = (self.secret.clone(), self.folder.clone());
        let (subject, instance) = (planned.subject(), planned.instance.clone());
        (planned.part != Part::ControlPlane).then(|| Tokens { secret, folder, subject, instance, life: TOKEN_LIFE })
    }

    fn invocation(&self, planned: &Planned) -> anyhow::Result<Invocation> {
        let instance = &planned.instance;
        if let Some(tokens) = self.tokens(planned) {
            tokens.write()?;
        }
        let listen = match &planned.part {
            Part::Gateway { name, .. } => self.listen.get(name).copied(),
            _ => None,
        };
        let particular = Particular {
            control: self.control.get().copied(),
            admin: self.admin.get().copied(),
            listen,
            port: self.port(planned)?,
            application: self.programs.get(instance).cloned(),
        };
        Ok(invocation::invocation(&self.common, &self.folder, planned, &particular))
    }

    /// The port of an application that is about to start: another one than before, where it was picked and someone has it now.
    fn port(&self, planned: &Planned) -> io::Result<Option<u16>> {
        let Part::Service(service) = &planned.part else { return Ok(None) };
        let mut ports = self.lock_ports();
        let port = ports.get(&planned.instance).copied();
        // An application that something else starts is already there.
        if service.command.is_none() || service.port.is_some() || port.is_some_and(ports::is_free) {
            return Ok(port);
        }
        let fresh = ports::free()?;
        ports.insert(planned.instance.clone(), fresh);
        Ok(Some(fresh))
    }

    fn lock_ports(&self) -> std::sync::MutexGuard<'_, BTreeMap<Name, u16>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn common(options: &Options, folder: &Folder) -> Common {
    Common {
        mesh: options.config.mesh.clone(),
        program: options.program.clone(),
        file: options.file.clone(),
        folder: options.folders.first().cloned().unwrap_or_else(|| folder.root().to_owned()),
        log_level: options.log_level.clone(),
        access_log: options.access_log,
        lanes: options.lanes,
        stop: options.stop,
    }
}

fn move_gateways(waves: &mut [Vec<Planned>], moved: &BTreeMap<Name, SocketAddr>) {
    for planned in waves.iter_mut().flatten() {
        if let Part::Gateway { name, listen } = &mut planned.part
            && let Some(address) = moved.get(name)
        {
            *listen = *address;
        }
    }
}

fn find_programs(waves: &[Vec<Planned>], folders: &[PathBuf]) -> Result<BTreeMap<Name, PathBuf>, Error> {
    let path = std::env::var_os("PATH");
    let (mut programs, mut missing) = (BTreeMap::new(), Vec::new());
    for planned in waves.iter().flatten() {
        let Part::Service(service) = &planned.part else { continue };
        let Some(word) = service.command.as_ref().and_then(|words| words.first()) else { continue };
        match program::find(word, folders, path.as_deref().map(OsStr::new)) {
            Ok(file) => drop(programs.insert(planned.instance.clone(), file)),
            Err(error) => missing.push((planned.instance.clone(), error)),
        }
    }
    if missing.is_empty() { Ok(programs) } else { Err(Error::Programs(missing)) }
}
