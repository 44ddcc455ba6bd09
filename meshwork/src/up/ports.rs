//! Ports: what is declared must be free; what is not declared is picked once and kept.
//!
//! An instance has the same ports all its life, over restarts of itself and of `up` in the same folder: others may know where it was
//! and have nobody to tell them that it moved, and a person has written its address down. Only a port that someone else has taken
//! meanwhile is replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::name::Name;
use runtime::net::{Listener, Share};
use storage::disk::real::RealDisk;
use storage::kept;

use super::plan::{Part, Planned};

/// An address that the mesh file declares and someone else has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address} is in use: {who} cannot listen there; {remedy}")]
pub struct Taken {
    /// The address.
    pub address: SocketAddr,
    /// Who would listen there.
    pub who: String,
    /// By what setting it moves.
    pub remedy: String,
}

/// Looks whether what the gateways and applications are to listen on is free. `port_flag`: how the first gateway is moved on
/// the command line, where it can be.
pub(crate) fn check<'a>(planned: impl IntoIterator<Item = &'a Planned>, port_flag: Option<&str>) -> Vec<Taken> {
    let flag = port_flag.map(|flag| format!(" or {flag}")).unwrap_or_default();
    let mut taken = Vec::new();
    for planned in planned {
        let (address, who, remedy) = match &planned.part {
            Part::Gateway { name, listen } => {
                let remedy = format!("move it with `gateways.{name}.listen` in the mesh file{flag}");
                (*listen, format!("the gateway `{name}`"), remedy)
            }
            Part::Service(service) => {
                // What `up` does not start is there already, or comes from elsewhere.
                let (Some(port), Some(_)) = (service.port, &service.command) else { continue };
                let remedy = format!("move it with `services.{}.port` in the mesh file", service.name);
                (loopback(port), format!("the application of `{}`", planned.instance), remedy)
            }
            Part::ControlPlane | Part::Broker => continue,
        };
        if address.port() != 0 && is_taken(address) {
            taken.push(Taken { address, who, remedy });
        }
    }
    taken
}

/// A process that is being started elsewhere holds copies of this one's sockets, until it has become another program: what looks taken is
/// looked at again, so often and after so long.
const LOOKS_MAX: u32 = 5;
const LOOK_PAUSE: Duration = Duration::from_millis(10);

fn is_taken(address: SocketAddr) -> bool {
    // Anything else that keeps one from listening there is told by the role itself, with its own words.
    let looks_taken =
        || Listener::bind(address, Share::Alone).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    for _ in 1..LOOKS_MAX {
        if !looks_taken() {
            return false;
        }
        std::thread::park_timeout(LOOK_PAUSE);
    }
    looks_taken()
}

/// What a port is for. The words are those of the ready file.
pub(crate) type Purpose = &'static str;

/// Where the roles reach the control plane.
pub(crate) const CONTROL: Purpose = "control";
/// The control plane's admin API.
pub(crate) const ADMIN: Purpose = "admin";
/// Where an application reaches its sidecar, and whoever asks a role how it is.
pub(crate) const OUTBOUND: Purpose = "outbound";
/// Where a role without an application says how it is, where that is a listener of its own.
pub(crate) const STATUS: Purpose = "status";
/// Where the mesh reaches an instance.
pub(crate) const INBOUND: Purpose = "inbound";
/// Where a gateway listens whose mesh file leaves the port open.
pub(crate) const GATEWAY: Purpose = "gateway";
/// Where an application listens.
pub(crate) const APPLICATION: Purpose = "application";

/// The file in the mesh's folder in which the ports are kept.
const FILE: &str = "ports.json";
/// Longest file of ports, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The ports of all instances.
#[derive(Debug)]
pub(crate) struct Ports {
    file: PathBuf,
    // A lock for a look, or for a change before a start.
    state: Mutex<State>,
}

type Kept = BTreeMap<Name, BTreeMap<String, u16>>;

#[derive(Debug, Default)]
struct State {
    kept: Kept,
    /// Listened on until their instance is started, so that none is picked twice and nobody comes in between.
    held: BTreeMap<Name, Vec<Listener>>,
    /// Never picked.
    declared: BTreeSet<u16>,
    /// Not written down yet.
    changed: bool,
}

impl Ports {
    /// Those of an earlier run in the folder `root`, if there was one.
    pub(crate) fn open(root: &std::path::Path) -> Self {
        let file = root.join(FILE);
        let read = || -> Result<Kept, String> {
            let bytes = kept::read(&RealDisk, &file, FILE_BYTES_MAX).map_err(|error| error.to_string())?;
            bytes.map_or_else(|| Ok(Kept::default()), |bytes| serde_json::from_slice(&bytes).map_err(|e| e.to_string()))
        };
        let kept = read().unwrap_or_else(|error| {
            tracing::warn!(file = %file.display(), %error, "the kept ports cannot be read; others are picked");
            Kept::default()
        });
        Self { file, state: Mutex::new(State { kept, ..State::default() }) }
    }

    /// Forgets the instances that are not planned any more, and takes down which ports are declared.
    pub(crate) fn plan(&self, planned: &[&Planned]) {
        let mut state = self.lock();
        state.kept.retain(|instance, _| planned.iter().any(|planned| planned.instance == *instance));
        state.declared = planned.iter().filter_map(|planned| declared(planned)).collect();
    }

    /// Sees to it that an instance has all its ports before it is started for the first time, and holds them until [`Ports::take`].
    ///
    /// # Errors
    /// When no port is free.
    pub(crate) fn reserve(&self, planned: &Planned) -> io::Result<()> {
        let mut state = self.lock();
        let mut held = Vec::new();
        for purpose in purposes(planned) {
            let before = state.of(&planned.instance, purpose);
            let (port, listener) = match before.map(|port| Listener::bind(loopback(port), Share::Alone)) {
                Some(Ok(listener)) => (before.unwrap_or_default(), listener),
                _ => pick(&state.declared)?,
            };
            if let Some(before) = before.filter(|before| *before != port) {
                moved(planned, purpose, before, port);
            }
            state.set(&planned.instance, purpose, port);
            held.push(listener);
        }
        if let (Part::Service(_), Some(port)) = (&planned.part, declared(planned)) {
            state.set(&planned.instance, APPLICATION, port);
        }
        state.held.insert(planned.instance.clone(), held);
        Ok(())
    }

    /// The ports of an instance that is started now.
    ///
    /// # Errors
    /// When someone else has a port that cannot be another one: a declared one, or the control plane's, which all others know.
    pub(crate) fn take(&self, planned: &Planned) -> io::Result<()> {
        let mut state = self.lock();
        // What was listened on here until now nobody else has.
        let held = state.held.remove(&planned.instance).is_some();
        for purpose in purposes(planned).into_iter().filter(|_| !held) {
            let port = match state.of(&planned.instance, purpose) {
                Some(port) if !is_taken(loopback(port)) => continue,
                Some(port) if planned.part == Part::ControlPlane => return Err(in_use(port)),
                port => port,
            };
            let (fresh, _) = pick(&state.declared)?;
            if let Some(port) = port {
                moved(planned, purpose, port, fresh);
            }
            state.set(&planned.instance, purpose, fresh);
        }
        match declared(planned) {
            // Something that `up` does not start is there already.
            Some(port) if starts_application(planned) && is_taken(loopback(port)) => Err(in_use(port)),
            _ => Ok(()),
        }
    }

    /// Writes the ports down for the next run, where they are others than before.
    ///
    /// # Errors
    /// When the disk says no.
    pub(crate) fn write(&self) -> io::Result<()> {
        let mut state = self.lock();
        if state.changed {
            kept::write(&RealDisk, &self.file, &serde_json::to_vec(&state.kept)?)?;
            state.changed = false;
        }
        Ok(())
    }

    /// Where an instance listens for a purpose.
    pub(crate) fn address(&self, instance: &Name, purpose: Purpose) -> Option<SocketAddr> {
        self.lock().of(instance, purpose).map(loopback)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn of(&self, instance: &Name, purpose: Purpose) -> Option<u16> {
        self.kept.get(instance)?.get(purpose).copied()
    }

    fn set(&mut self, instance: &Name, purpose: Purpose, port: u16) {
        let before = self.kept.entry(instance.clone()).or_default().insert(purpose.to_owned(), port);
        self.changed |= before != Some(port);
    }
}

fn moved(planned: &Planned, purpose: Purpose, from: u16, to: u16) {
    tracing::warn!(instance = %planned.instance, purpose, from, to, "someone else has taken a port; the instance moves");
}

fn in_use(port: u16) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, format!("{} is in use by another process", loopback(port)))
}

/// What an instance needs a port for that nobody declares.
fn purposes(planned: &Planned) -> Vec<Purpose> {
    match &planned.part {
        Part::ControlPlane => vec![CONTROL, ADMIN],
        Part::Broker => vec![OUTBOUND, INBOUND],
        Part::Gateway { listen, .. } if listen.port() == 0 => vec![OUTBOUND, GATEWAY],
        Part::Gateway { .. } => vec![OUTBOUND],
        Part::Service(service) if service.port.is_none() => vec![OUTBOUND, INBOUND, APPLICATION],
        Part::Service(_) => vec![OUTBOUND, INBOUND],
    }
}

fn declared(planned: &Planned) -> Option<u16> {
    match &planned.part {
        Part::Service(service) => service.port,
        Part::Gateway { listen, .. } => Some(listen.port()).filter(|port| *port != 0),
        Part::ControlPlane | Part::Broker => None,
    }
}

fn starts_application(planned: &Planned) -> bool {
    matches!(&planned.part, Part::Service(service) if service.command.is_some())
}

/// A port that is free now, and that the system gives to nobody who does not ask for it.
///
/// # Errors
/// When there is none.
pub(crate) fn free() -> io::Result<u16> {
    pick(&BTreeSet::new()).map(|(port, _)| port)
}

/// Below where the system takes ports from for connections and for listeners that ask for any (32768 on, ip(7)): between the
/// picking and the listening, or while an instance is away, no connection must come to it.
const PICKED: std::ops::Range<u16> = 20_000..32_000;

fn pick(declared: &BTreeSet<u16>) -> io::Result<(u16, Listener)> {
    let mut random = fastrand::Rng::with_seed(runtime::random::seed());
    let start = random.u16(PICKED);
    for port in (start..PICKED.end).chain(PICKED.start..start).filter(|port| !declared.contains(port)) {
        match Listener::bind(loopback(port), Share::Alone) {
            Ok(listener) => return Ok((port, listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free"))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(listen: SocketAddr) -> Vec<Planned> {
        let text = format!(
            "mesh: a\nservices: {{b: {{protocol: http, instances: 2}}}}\ngateways: {{public: {{listen: {listen}, backends: [{{service: b}}]}}}}\n"
        );
        let config = model::config::check("mesh.yaml", &text).unwrap().config;
        super::super::plan::waves(&config).unwrap().into_iter().flatten().collect()
    }

    /// All that the instances have been given.
    fn given(ports: &Ports, plan: &[Planned]) -> Vec<u16> {
        let mut given = Vec::new();
        for planned in plan {
            given.extend(purposes(planned).into_iter().filter_map(|purpose| ports.address(&planned.instance, purpose)));
        }
        given.into_iter().map(|address| address.port()).collect()
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_setting_that_moves_it() {
        let other = Listener::bind(loopback(0), Share::Alone).unwrap();
        let address = other.local_addr().unwrap();
        let taken = check(&plan(address), Some("--port"));
        assert_eq!(
            taken[0].to_string(),
            format!(
                "{address} is in use: the gateway `public` cannot listen there; move it with `gateways.public.listen` in \
                 the mesh file or --port"
            )
        );
    }

    #[tokio::test]
    async fn an_instance_keeps_its_ports_and_no_port_is_picked_twice() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(loopback(0));
        let ports = Ports::open(root.path());
        plan.iter().for_each(|planned| ports.reserve(planned).unwrap());
        let first = given(&ports, &plan);
        let different: std::collections::BTreeSet<_> = first.iter().collect();
        // Two of the control plane, three of each instance, two of the gateway.
        assert_eq!((first.len(), different.len()), (10, 10));
        for _ in 0..2 {
            plan.iter().for_each(|planned| ports.take(planned).unwrap());
            assert_eq!(given(&ports, &plan), first);
        }
        ports.write().unwrap();
        let next = Ports::open(root.path());
        plan.iter().for_each(|planned| next.reserve(planned).unwrap());
        assert_eq!(given(&next, &plan), first);
    }

    #[tokio::test]
    async fn a_port_that_someone_else_took_is_replaced_but_not_where_others_know_it() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(loopback(0));
        let ports = Ports::open(root.path());
        for planned in &plan {
            ports.reserve(planned).unwrap();
            ports.take(planned).unwrap();
        }
        let instance = plan.iter().find(|planned| planned.instance.as_str() == "b-0").unwrap();
        let before = ports.address(&instance.instance, INBOUND).unwrap();
        let _stranger = Listener::bind(before, Share::Alone).unwrap();
        ports.take(instance).unwrap();
        assert_ne!(ports.address(&instance.instance, INBOUND), Some(before));
        let control_plane = &plan[0];
        let address = ports.address(&control_plane.instance, CONTROL).unwrap();
        let stranger = Listener::bind(address, Share::Alone).unwrap();
        let why = ports.take(control_plane).unwrap_err().to_string();
        assert_eq!(why, format!("{address} is in use by another process"));
        drop(stranger);
        ports.take(control_plane).unwrap();
    }

    #[tokio::test]
    async fn a_file_of_ports_that_is_damaged_costs_nothing_but_the_ports() {
        let root = tempfile::tempdir().unwrap();
        storage::disk::replace(&RealDisk, &root.path().join(FILE), b"{\"b-0\":").unwrap();
        let ports = Ports::open(root.path());
        ports.reserve(&plan(loopback(0))[0]).unwrap();
    }
}
