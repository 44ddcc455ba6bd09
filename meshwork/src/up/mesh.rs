//! The mesh as a whole: prepared, started in waves, watched, and ended in the other order.
//!
//! An instance can also be added and taken out while the others run: [`Mesh::add`], [`Mesh::remove`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use model::config::Config;
use model::name::Name;
use tokio::sync::Notify;

use super::error::Error;
use super::event::Events;
use super::folder::{CONTROL_PLANE, Folder, Running};
use super::instance::{Instance, Report};
use super::invocation::Common;
use super::launch::Launch;
use super::leftover;
use super::plan::{self, Part, Planned};
use super::ports::{self, Ports};
use super::supervisor::Bounds;
use crate::operator::Operator;

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
    /// How long certificates hold.
    pub certificate_life: Duration,
}

/// A mesh of processes on this machine.
pub struct Mesh {
    launch: Arc<Launch>,
    // A lock for a look, or to add and remove an instance; nobody waits for anything while holding it.
    waves: Mutex<Vec<Vec<Arc<Instance>>>>,
}

impl Mesh {
    /// Finds out whether the mesh can be started, and starts nothing yet. What happens from then on comes as `events`.
    ///
    /// # Errors
    /// When ports are taken, programs are not there, or the folder cannot be used.
    pub fn prepare(options: Options, events: Events) -> Result<Self, Error> {
        let mut waves = plan::waves(&options.config)?;
        move_gateways(&mut waves, &options.listen);
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
        let launch = Arc::new(Launch {
            secret: folder.make_secret().map_err(Error::Prepare)?,
            ports: Ports::open(folder.root()),
            common: common(&options, &folder),
            folder: Arc::new(folder),
            listen: options.listen,
            folders: options.folders,
            bounds: Bounds { come_up: Some(options.come_up), stop: options.stop },
            events,
            changed: Arc::new(Notify::new()),
        });
        let planned: Vec<&Planned> = waves.iter().flatten().collect();
        launch.ports.plan(&planned);
        let taken = ports::check(planned, options.port_flag.as_deref());
        let mesh = Self { launch, waves: Mutex::default() };
        let mut missing = Vec::new();
        for (wave, planned) in
            waves.into_iter().enumerate().flat_map(|(wave, all)| all.into_iter().map(move |one| (wave, one)))
        {
            match mesh.add(planned, wave, true) {
                Err(Error::Programs(programs)) => missing.extend(programs),
                outcome => drop(outcome?),
            }
        }
        match (missing.is_empty(), taken.is_empty()) {
            (false, _) => Err(Error::Programs(missing)),
            (_, false) => Err(Error::Taken(taken)),
            _ => Ok(mesh),
        }
    }

    /// Adds an instance to a wave, with the ports that it had if there was one of that name before, and starts it not yet: that is
    /// [`Instance::launch`]. One that `gives_up` is not tried again when it does not come up the first time.
    ///
    /// # Errors
    /// When its program is not there, or no port is free.
    pub(crate) fn add(&self, planned: Planned, wave: usize, gives_up: bool) -> Result<Arc<Instance>, Error> {
        let name = planned.instance.clone();
        self.launch.ports.reserve(&planned).map_err(|error| Error::Prepare(error.into()))?;
        let instance = Instance::new(planned, &self.launch, gives_up);
        let instance = Arc::new(instance.map_err(|error| Error::Programs(vec![(name, error)]))?);
        let mut waves = self.lock();
        if waves.len() <= wave {
            waves.resize_with(wave + 1, Vec::new);
        }
        waves[wave].push(instance.clone());
        Ok(instance)
    }

    /// Ends an instance and takes it out; resolves when nothing of it runs any more. It may be added again then.
    pub(crate) async fn remove(&self, instance: &Name) {
        let Some(found) = self.find(instance.as_str()) else { return };
        found.stop().await;
        for wave in self.lock().iter_mut() {
            wave.retain(|other| !Arc::ptr_eq(other, &found));
        }
        self.launch.changed.notify_one();
    }

    /// Starts the control plane alone, and resolves when it can be asked.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_control_plane(&self) -> Result<(), Error> {
        let Some(control_plane) = self.find(CONTROL_PLANE) else { return Ok(()) };
        control_plane.launch();
        control_plane.came_up().await
    }

    /// Its control plane, as an operator reaches it once it is started.
    ///
    /// # Errors
    /// Never: every control plane has a port for it.
    pub(crate) fn operator(&self) -> Result<Operator, Error> {
        let admin = self.launch.ports.address(&Name::new(CONTROL_PLANE)?, ports::ADMIN);
        let none = || Error::Prepare(anyhow::anyhow!("the control plane has no admin API"));
        admin.map(Operator::new).ok_or_else(none)
    }

    /// Tells whoever reads the events something about the mesh as a whole.
    pub(crate) fn says(&self, text: &str) {
        self.launch.events.mesh(text);
    }

    /// Where what happens is told, and its folder.
    pub(crate) fn launch(&self) -> &Launch {
        &self.launch
    }

    /// The plan of a configuration, with the gateways where they listen in this run.
    ///
    /// # Errors
    /// When a name is too long for its instances to have one.
    pub(crate) fn plan(&self, config: &Config) -> Result<Vec<Vec<Planned>>, Error> {
        let mut waves = plan::waves(config)?;
        move_gateways(&mut waves, &self.launch.listen);
        Ok(waves)
    }

    /// What was added, by waves.
    pub(crate) fn planned(&self) -> Vec<Vec<Planned>> {
        let planned = |wave: &Vec<Arc<Instance>>| wave.iter().map(|instance| instance.planned.clone()).collect();
        self.lock().iter().map(planned).collect()
    }

    /// Puts the instances in the order of another plan, by which they are ended; what is not in it is ended first.
    pub(crate) fn arrange(&self, plan: &[Vec<Planned>]) {
        let place = |instance: &Arc<Instance>| {
            let name = &instance.planned.instance;
            let planned = |wave: &Vec<Planned>| wave.iter().any(|planned| planned.instance == *name);
            plan.iter().position(planned).unwrap_or(plan.len())
        };
        let mut waves = self.lock();
        let mut fresh = vec![Vec::new(); plan.len() + 1];
        waves.drain(..).flatten().for_each(|instance| fresh[place(&instance)].push(instance));
        *waves = fresh;
    }

    /// Starts the waves one after the other, each when the one before carries traffic.
    ///
    /// # Errors
    /// With the first instance that does not come up, without a wait for the others of its wave; the caller ends the others with [`Mesh::stop`].
    pub async fn start(&self) -> Result<(), Error> {
        for wave in self.waves() {
            wave.iter().for_each(|instance| instance.launch());
            self.tell();
            try_join_all(wave.iter().map(|instance| instance.came_up())).await?;
            self.tell();
        }
        Ok(())
    }

    /// Keeps what is written down of the mesh up to date, for ever.
    pub async fn follow(&self) {
        loop {
            self.tell();
            self.launch.changed.notified().await;
        }
    }

    /// Ends everything that runs, the last wave first. Answers what did not run then though nobody had told it to end, and why.
    pub async fn stop(&self) -> Vec<(Name, String)> {
        let failure = |instance: Arc<Instance>| Some((instance.planned.instance.clone(), instance.failure()?));
        let failures = self.instances().into_iter().filter_map(failure).collect();
        for wave in self.waves().iter().rev() {
            join_all(wave.iter().map(|instance| instance.stop())).await;
            self.tell();
        }
        self.launch.folder.forget_running();
        failures
    }

    /// Kills an instance with SIGKILL, as a crash would; it comes back after `hold`. An application is killed with its sidecar.
    /// Answers whether there is such an instance.
    pub async fn kill(&self, instance: &str, hold: Duration) -> bool {
        match self.find(instance) {
            Some(found) => found.kill(hold).await,
            None => false,
        }
    }

    /// Waits until the instance has been started more than `starts` times and is ready.
    pub async fn ready_after(&self, instance: &str, starts: u32) {
        if let Some(found) = self.find(instance) {
            found.ready_after(starts).await;
        }
    }

    /// All instances, in the order in which they were started.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        self.instances().iter().map(|instance| instance.report()).collect()
    }

    /// Where a gateway listens; `None` while it is not ready.
    #[must_use]
    pub fn gateway_address(&self, name: &str) -> Option<SocketAddr> {
        let report = self.reports().into_iter().find(|report| report.instance.as_str() == format!("gateway-{name}"))?;
        report.addresses.get("gateway").copied()
    }

    /// Writes down what runs, for `meshwork status`.
    pub fn tell(&self) {
        let instances = self.instances().iter().map(|instance| instance.running()).collect();
        let pid = std::process::id();
        let mesh = self.launch.common.mesh.clone();
        let running = Running { pid, started: leftover::started(pid), mesh, instances };
        if let Err(error) = self.launch.folder.write_running(&running) {
            tracing::warn!(%error, "what runs could not be written down");
        }
    }

    pub(crate) fn find(&self, instance: &str) -> Option<Arc<Instance>> {
        self.instances().into_iter().find(|found| found.planned.instance.as_str() == instance)
    }

    /// All instances, in the order in which they were started.
    pub(crate) fn instances(&self) -> Vec<Arc<Instance>> {
        self.lock().iter().flatten().cloned().collect()
    }

    fn waves(&self) -> Vec<Vec<Arc<Instance>>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<Arc<Instance>>>> {
        self.waves.lock().unwrap_or_else(PoisonError::into_inner)
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
        certificate_life: options.certificate_life,
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
