//! One instance, from its first start to its end: it is brought back when it ends by itself, less and less eagerly, and for ever.

use std::sync::Arc;
use std::time::Duration;

use model::name::Name;
use model::unit;
use nix::sys::signal::Signal;
use runtime::clock;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::event::{Events, State};
use super::folder::Folder;
use super::instance::millis;
use super::leftover;
use super::process::{self, Invocation, Lines, Process};
use crate::role::ready::Ready;

/// Wait before the first restart; it doubles.
const RESTART_AFTER: Duration = Duration::from_millis(100);
/// The longest wait before a restart.
const RESTART_AFTER_MAX: Duration = Duration::from_secs(30);
/// An instance that carried traffic for so long starts to count anew.
const STEADY_AFTER: Duration = Duration::from_secs(60);
/// How often it is looked whether an instance is ready.
const READY_POLL: Duration = Duration::from_millis(20);

/// How an instance stands, with its numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing {
    pub(crate) state: State,
    /// Since when, in milliseconds since 1970.
    pub(crate) since_ms: u64,
    /// What the process of now has told; `None` while it is not ready.
    pub(crate) ready: Option<Ready>,
    pub(crate) pid: Option<u32>,
    /// How often it was started.
    pub(crate) starts: u32,
    /// How it ended the last time that it ended by itself, and when, in milliseconds since 1970.
    pub(crate) last_end: Option<(String, u64)>,
}

/// What an instance is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// End, and stay so.
    Stop,
    /// Be killed with SIGKILL, and come back after `hold`.
    Kill { hold: Duration },
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// From a start to being ready. `None`: for ever, since something else starts the application.
    pub(crate) come_up: Option<Duration>,
    /// From SIGTERM to SIGKILL.
    pub(crate) stop: Duration,
}

/// Makes the invocation anew for each start: a restart has a fresh token.
pub(crate) type Prepare = Arc<dyn Fn() -> anyhow::Result<Invocation> + Send + Sync>;

/// What supervises one instance.
pub(crate) struct Supervisor {
    pub(crate) instance: Name,
    pub(crate) prepare: Prepare,
    pub(crate) folder: Arc<Folder>,
    pub(crate) lines: Lines,
    pub(crate) bounds: Bounds,
    /// Whether one that does not come up the first time is not tried again.
    pub(crate) gives_up: bool,
    pub(crate) events: Events,
    /// Notified when it is in another state.
    pub(crate) changed: Arc<Notify>,
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) orders: mpsc::Receiver<Order>,
}

/// How one life of a process ended.
enum End {
    Told,
    Killed { hold: Duration },
    ByItself { why: String, steady: bool },
}

impl Standing {
    pub(crate) fn waiting() -> Self {
        let since_ms = clock::wall_ms();
        Self { state: State::Waiting, since_ms, ready: None, pid: None, starts: 0, last_end: None }
    }
}

impl Supervisor {
    /// Runs until the instance was told to end, or does not even come up once.
    pub(crate) async fn run(mut self) {
        let mut restarts = Restarts::default();
        let mut came_up = false;
        loop {
            let wait = match self.life(&mut came_up).await {
                End::Told => return self.turn(State::Stopped),
                End::Killed { hold } => {
                    self.turn(State::Killed);
                    hold
                }
                End::ByItself { why, steady } => {
                    self.standing.send_modify(|standing| standing.last_end = Some((why.clone(), clock::wall_ms())));
                    if self.gives_up && !came_up {
                        return self.turn(State::Failed { why });
                    }
                    let after = restarts.next(steady);
                    self.turn(State::Restarting { why, after_ms: millis(after) });
                    after
                }
            };
            if self.told_to_stop_within(wait).await {
                return self.turn(State::Stopped);
            }
        }
    }

    /// One process, from its start to its end.
    async fn life(&mut self, came_up: &mut bool) -> End {
        let mut process = match self.start() {
            Ok(process) => process,
            Err(error) => return End::ByItself { why: format!("{error:#}"), steady: false },
        };
        self.turn_with(State::Starting, None, Some(process.pid));
        let ready = tokio::select! {
            ready = until_ready(&self.folder, &self.instance, process.pid) => ready,
            status = process.ended() => return End::ByItself { why: why(status), steady: false },
            order = self.orders.recv() => return self.obey(order, process).await,
            after = too_late(self.bounds.come_up) => {
                kill(&mut process).await;
                let why = format!("it was not ready after {}", unit::write_duration(after));
                return End::ByItself { why, steady: false };
            }
        };
        let since = Instant::now();
        *came_up = true;
        self.turn_with(State::Ready, Some(ready), Some(process.pid));
        tokio::select! {
            status = process.ended() => End::ByItself { why: why(status), steady: since.elapsed() >= STEADY_AFTER },
            order = self.orders.recv() => self.obey(order, process).await,
        }
    }

    fn start(&self) -> anyhow::Result<Process> {
        if self.standing.borrow().starts > 0 {
            let left = leftover::end_of_instance(self.folder.root(), &self.instance);
            if left > 0 {
                tracing::warn!(instance = %self.instance, left, "it left processes behind when it ended; they were killed");
            }
        }
        self.folder.forget_ready(&self.instance)?;
        let invocation = (self.prepare)()?;
        let process = process::start(&invocation, &self.lines)
            .map_err(|error| anyhow::anyhow!("cannot start {}: {error}", invocation.program.display()))?;
        self.standing.send_modify(|standing| standing.starts += 1);
        Ok(process)
    }

    /// Does what it is told; without anyone to tell it, it ends.
    async fn obey(&self, order: Option<Order>, mut process: Process) -> End {
        match order {
            Some(Order::Kill { hold }) => {
                kill(&mut process).await;
                End::Killed { hold }
            }
            Some(Order::Stop) | None => {
                self.turn_with(State::Stopping, None, Some(process.pid));
                process.signal(Signal::SIGTERM);
                if tokio::time::timeout(self.bounds.stop, process.ended()).await.is_err() {
                    tracing::warn!(instance = %self.instance, "it did not end in time; it is killed");
                    kill(&mut process).await;
                }
                End::Told
            }
        }
    }

    /// Waits, and says whether it was told to end meanwhile.
    async fn told_to_stop_within(&mut self, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        loop {
            match tokio::time::timeout_at(end, self.orders.recv()).await {
                Err(_) => return false,
                Ok(Some(Order::Kill { .. })) => {}
                Ok(Some(Order::Stop) | None) => return true,
            }
        }
    }

    fn turn(&self, state: State) {
        self.turn_with(state, None, None);
    }

    fn turn_with(&self, state: State, ready: Option<Ready>, pid: Option<u32>) {
        // First the event, so that whoever waits for the state finds it said.
        self.events.state(&self.instance, state.clone());
        self.standing.send_modify(|standing| {
            standing.state = state;
            standing.since_ms = clock::wall_ms();
            standing.ready = ready;
            standing.pid = pid;
        });
        self.changed.notify_one();
    }
}

fn why(status: std::io::Result<std::process::ExitStatus>) -> String {
    status.map_or_else(|error| format!("it was lost: {error}"), process::describe)
}

async fn kill(process: &mut Process) {
    process.signal(Signal::SIGKILL);
    // Nothing survives SIGKILL; an error means that it was not there any more.
    let _ = process.ended().await;
}

async fn until_ready(folder: &Folder, instance: &Name, pid: u32) -> Ready {
    loop {
        if let Some(ready) = folder.ready(instance, pid) {
            return ready;
        }
        tokio::time::sleep(READY_POLL).await;
    }
}

async fn too_late(bound: Option<Duration>) -> Duration {
    match bound {
        Some(bound) => {
            tokio::time::sleep(bound).await;
            bound
        }
        None => std::future::pending().await,
    }
}

/// When an instance that ended by itself is started again.
#[derive(Debug, Default)]
struct Restarts {
    in_a_row: u32,
}

impl Restarts {
    /// The wait before the next one.
    fn next(&mut self, steady: bool) -> Duration {
        if steady {
            self.in_a_row = 0;
        }
        let doubled = 1_u32.checked_shl(self.in_a_row).unwrap_or(u32::MAX);
        self.in_a_row = self.in_a_row.saturating_add(1);
        RESTART_AFTER.saturating_mul(doubled).min(RESTART_AFTER_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_come_less_and_less_and_never_end() {
        let mut restarts = Restarts::default();
        let waits: Vec<u128> = (0..10).map(|_| restarts.next(false).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000]);
        assert!((0..1_000).all(|_| restarts.next(false) == RESTART_AFTER_MAX));
        assert_eq!(restarts.next(true), RESTART_AFTER);
        assert_eq!(restarts.next(false), RESTART_AFTER * 2);
    }
}
