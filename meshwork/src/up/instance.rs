//! One instance as the mesh sees it: what is planned, how it stands, and what it can be told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::name::Name;
use tokio::sync::{mpsc, watch};

use super::error::Error;
use super::event::State;
use super::folder::{Asked, RunningInstance};
use super::launch::Launch;
use super::plan::{Part, Planned};
use super::ports::APPLICATION;
use super::process::Lines;
use super::program::NotFound;
use super::supervisor::{Bounds, Order, Standing, Supervisor};

/// Orders that wait for one supervisor.
const ORDERS_MAX: usize = 8;

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

/// An instance. It is started once with [`Instance::launch`], and ends for good with [`Instance::stop`]; whoever wants it otherwise
/// stops it and makes another of the same name, which has the same ports.
pub(crate) struct Instance {
    pub(crate) planned: Planned,
    launch: Arc<Launch>,
    standing: watch::Receiver<Standing>,
    orders: mpsc::Sender<Order>,
    lines: Lines,
    /// Taken when it is started.
    supervisor: Mutex<Option<Supervisor>>,
}

impl Instance {
    /// Makes it with its ports and starts nothing yet. `gives_up`: one that does not come up the first time is not tried again.
    ///
    /// # Errors
    /// When its program is not there.
    pub(crate) fn new(planned: Planned, launch: &Arc<Launch>, gives_up: bool) -> Result<Self, NotFound> {
        let program = launch.program(&planned)?;
        let (standing_in, standing) = watch::channel(Standing::waiting());
        let (orders, orders_out) = mpsc::channel(ORDERS_MAX);
        let lines = Lines::new(planned.instance.clone(), launch.events.clone());
        let (starting, prepared) = (launch.clone(), planned.clone());
        let supervisor = Supervisor {
            instance: planned.instance.clone(),
            prepare: Arc::new(move || starting.invocation(&prepared, program.as_ref())),
            folder: launch.folder.clone(),
            lines: lines.clone(),
            bounds: Bounds { come_up: launch.bounds.come_up.filter(|_| is_ours(&planned)), ..launch.bounds },
            gives_up,
            events: launch.events.clone(),
            changed: launch.changed.clone(),
            standing: standing_in,
            orders: orders_out,
        };
        Ok(Self { planned, launch: launch.clone(), standing, orders, lines, supervisor: Mutex::new(Some(supervisor)) })
    }

    /// Starts it, once. For as long as it is supervised, the token in its file holds.
    pub(crate) fn launch(&self) {
        let supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (Some(supervisor), tokens) = (supervisor, self.launch.tokens(&self.planned)) else { return };
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

    /// Resolves when it carries traffic; at once where that depends on what someone else starts.
    ///
    /// # Errors
    /// When it does not come up, also where it is tried again.
    pub(crate) async fn came_up(&self) -> Result<(), Error> {
        if !is_ours(&self.planned) {
            return Ok(());
        }
        let mut standing = self.standing.clone();
        let is_settled = |state: &State| matches!(state, State::Ready | State::Restarting { .. }) || state.is_over();
        let settled = standing.wait_for(|standing| is_settled(&standing.state)).await;
        let why = match settled.as_deref() {
            Ok(Standing { state: State::Ready, .. }) => return Ok(()),
            Ok(Standing { state: State::Failed { why } | State::Restarting { why, .. }, .. }) => why.clone(),
            _ => "it was told to end".to_owned(),
        };
        let instance = self.planned.instance.clone();
        Err(Error::Instance { instance, why, awaited: self.awaited(), last_lines: self.lines.last() })
    }

    /// What makes the instance ready, where it is an application's.
    fn awaited(&self) -> Option<String> {
        let Part::Service(service) = &self.planned.part else { return None };
        let address = self.launch.ports.address(&self.planned.instance, APPLICATION)?;
        Some(match &service.health.path {
            Some(path) => format!("a GET of http://{address}{path} must answer 2xx"),
            None => format!("{address} must accept a connection"),
        })
    }

    /// Ends it for good, within the bound of the mesh, and resolves when nothing of it runs any more.
    pub(crate) async fn stop(&self) {
        // What was never started is not started any more.
        drop(self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take());
        let mut standing = self.standing.clone();
        // An error means that its supervisor is gone, and its process with it.
        if self.orders.send(Order::Stop).await.is_ok() {
            let _ = standing.wait_for(|standing| standing.state.is_over()).await;
        }
    }

    /// Kills it with SIGKILL; it comes back after `hold`. Answers whether there is anything to kill.
    pub(crate) async fn kill(&self, hold: Duration) -> bool {
        self.orders.send(Order::Kill { hold }).await.is_ok()
    }

    /// Waits until it has been started more than `starts` times and is ready.
    pub(crate) async fn ready_after(&self, starts: u32) {
        let mut standing = self.standing.clone();
        // An error means that it is over, which the caller sees in the reports.
        let _ = standing.wait_for(|standing| standing.starts > starts && standing.state == State::Ready).await;
    }

    /// Whether it carries traffic, as far as that depends on nothing that someone else starts.
    pub(crate) fn is_ready(&self) -> bool {
        !is_ours(&self.planned) || self.standing.borrow().state == State::Ready
    }

    /// Why it does not run though nobody told it to end.
    pub(crate) fn failure(&self) -> Option<String> {
        let standing = self.standing.borrow();
        let end = standing.last_end.as_ref().map(|(why, _)| why.clone());
        match &standing.state {
            State::Restarting { .. } | State::Failed { .. } => end,
            // It comes up again and again, and never stays.
            State::Starting if standing.starts > 1 => end,
            _ => None,
        }
    }

    pub(crate) fn report(&self) -> Report {
        let standing = self.standing.borrow().clone();
        let service = match &self.planned.part {
            Part::Service(service) => Some(service.name.clone()),
            _ => None,
        };
        Report {
            label: self.planned.label(),
            service,
            instance: self.planned.instance.clone(),
            addresses: self.addresses(&standing),
            state: standing.state,
            pid: standing.pid,
            starts: standing.starts,
        }
    }

    /// What is written down of it for `meshwork status`.
    pub(crate) fn running(&self) -> RunningInstance {
        let standing = self.standing.borrow().clone();
        let health = match &self.planned.part {
            Part::Service(service) => {
                Some(Asked { path: service.health.path.clone(), timeout_ms: millis(service.health.timeout) })
            }
            _ => None,
        };
        let next_start_ms = match &standing.state {
            State::Restarting { after_ms, .. } => Some(standing.since_ms.saturating_add(*after_ms)),
            _ => None,
        };
        let (last_end, last_end_ms) = standing.last_end.clone().unzip();
        RunningInstance {
            service: self.planned.label(),
            instance: self.planned.instance.clone(),
            state: standing.state.word().to_owned(),
            since_ms: standing.since_ms,
            pid: standing.pid,
            starts: standing.starts,
            last_end,
            last_end_ms,
            next_start_ms,
            health,
            addresses: self.addresses(&standing),
        }
    }

    fn addresses(&self, standing: &Standing) -> BTreeMap<String, SocketAddr> {
        let mut addresses = standing.ready.as_ref().map(|ready| ready.addresses.clone()).unwrap_or_default();
        if let Some(address) = self.launch.ports.address(&self.planned.instance, APPLICATION) {
            addresses.insert(APPLICATION.to_owned(), address);
        }
        addresses
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether its readiness depends on nothing that someone else starts.
pub(crate) fn is_ours(planned: &Planned) -> bool {
    !matches!(&planned.part, Part::Service(service) if service.command.is_none())
}
