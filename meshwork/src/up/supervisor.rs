//! One instance, from its first start to its end: it is brought back when it ends by itself, less and less eagerly, and not for ever.

use std::sync::Arc;
use std::time::Duration;

use model::name::Name;
use model::unit;
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::event::{Event, State};
use super::folder::Folder;
use super::process::{self, Invocation, Lines, Process};
use crate::role::ready::Ready;

/// Wait before the first restart; it doubles.
const RESTART_AFTER: Duration = Duration::from_millis(200);
/// The longest wait before a restart.
const RESTART_AFTER_MAX: Duration = Duration::from_secs(10);
/// Restarts in a row; one more and it is given up.
const RESTARTS_MAX: u32 = 10;
/// An instance that carried traffic for so long starts to count anew.
const STEADY_AFTER: Duration = Duration::from_secs(30);
/// How often it is looked whether an instance is ready.
const READY_POLL: Duration = Duration::from_millis(20);

/// How an instance stands, with its numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing {
    pub(crate) state: State,
    /// What the process of now has told; `None` while it is not ready.
    pub(crate) ready: Option<Ready>,
    pub(crate) pid: Option<u32>,
    /// How often it was started.
    pub(crate) starts: u32,
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
    pub(crate) events: mpsc::Sender<Event>,
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
        Self { state: State::Waiting, ready: None, pid: None, starts: 0 }
    }
}

impl Supervisor {
    /// Runs until the instance was told to end or is given up.
    pub(crate) async fn run(mut self) {
        let mut restarts = Restarts::default();
        let mut came_up = false;
        loop {
            let end = self.life(&mut came_up).await;
            let wait = match end {
                End::Told => return self.turn(State::Stopped).await,
                End::Killed { hold } => {
                    self.turn(State::Killed).await;
                    hold
                }
                End::ByItself { why, steady } => match restarts.next(steady).filter(|_| came_up) {
                    None => return self.turn(State::Failed { why }).await,
                    Some(after) => {
                        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                        self.turn(State::Restarting { why, after_ms }).await;
                        after
                    }
                },
            };
            if self.told_to_stop_within(wait).await {
                return self.turn(State::Stopped).await;
            }
        }
    }

    /// One process, from its start to its end.
    async fn life(&mut self, came_up: &mut bool) -> End {
        let mut process = match self.start() {
            Ok(process) => process,
            Err(error) => return End::ByItself { why: format!("{error:#}"), steady: false },
        };
        self.turn_with(State::Starting, None, Some(process.pid)).await;
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
        self.turn_with(State::Ready, Some(ready), Some(process.pid)).await;
        tokio::select! {
            status = process.ended() => End::ByItself { why: why(status), steady: since.elapsed() >= STEADY_AFTER },
            order = self.orders.recv() => self.obey(order, process).await,
        }
    }

    fn start(&self) -> anyhow::Result<Process> {
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
                self.turn_with(State::Stopping, None, Some(process.pid)).await;
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

    async fn turn(&self, state: State) {
        self.turn_with(state, None, None).await;
    }

    async fn turn_with(&self, state: State, ready: Option<Ready>, pid: Option<u32>) {
        self.standing.send_modify(|standing| {
            standing.state = state.clone();
            standing.ready = ready;
            standing.pid = pid;
        });
        // Whoever listened may have gone.
        let _ = self.events.send(Event::State { instance: self.instance.clone(), state }).await;
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
    /// The wait before the next one; `None`: not again.
    fn next(&mut self, steady: bool) -> Option<Duration> {
        if steady {
            self.in_a_row = 0;
        }
        if self.in_a_row >= RESTARTS_MAX {
            return None;
        }
        let after = RESTART_AFTER.saturating_mul(1 << self.in_a_row).min(RESTART_AFTER_MAX);
        self.in_a_row += 1;
        Some(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_come_less_and_less_and_end() {
        let mut restarts = Restarts::default();
        let waits: Vec<u128> = (0..8).filter_map(|_| restarts.next(false)).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert_eq!(restarts.next(true), Some(RESTART_AFTER));
        let given_up = (0..20).find(|_| restarts.next(false).is_none());
        assert_eq!(given_up, Some(9));
    }
}
