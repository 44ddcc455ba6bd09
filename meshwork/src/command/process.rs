//! The shared runtime of a process and the signals that end it.
//!
//! The data path has lanes of its own; here run the control plane's stream, the broker's API and what else is not hot.
//!
//! SIGTERM and SIGINT ask for the end; a second one of them ends the process at once. SIGHUP means one of two things. The kernel sends it
//! when the terminal is closed in which the process was started; then it ends like with SIGTERM. An operator sends it to have a file read
//! again; then it ends nothing. A process that was started with SIGHUP ignored, as `nohup` does, ignores it.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use runtime::drain::{self, Drain};
use storage::disk::{Disk as _, OpenMode, real::RealDisk};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Threads of the shared runtime.
const WORKERS_MAX: usize = 2;
/// What a shell says of a program that SIGINT ended.
const SECOND_SIGNAL_CODE: i32 = 130;
/// How long what was logged last may take to be written at the end.
pub(super) const LAST_LOGS: Duration = Duration::from_millis(500);
/// Longest `/proc/self/status`, in bytes.
const STATUS_BYTES_MAX: usize = 1 << 13;

/// How often an operator has sent SIGHUP.
pub(crate) type HangUps = watch::Receiver<u64>;

/// Runs `task` to its end. It is told to end by SIGTERM or SIGINT, or when its terminal is closed.
pub(crate) fn block_on<F, T>(task: impl FnOnce(Drain) -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    block_on_reloading(|stop, _| task(stop))
}

/// The same for a task that has something to read again when an operator sends SIGHUP.
pub(crate) fn block_on_reloading<F, T>(task: impl FnOnce(Drain, HangUps) -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let outcome = runtime.block_on(async {
        let (ending, stop) = drain::channel();
        let (reload, hang_ups) = watch::channel(0);
        let signals = Signals::listen(reload)?;
        tokio::spawn(signals.end(ending));
        task(stop, hang_ups).await
    });
    // What is still running was given its time by the role; it does not keep the process.
    runtime.shutdown_background();
    outcome
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None`: it was ignored when the process was started, and stays so.
    hang_up: Option<Signal>,
    /// Whether the process was started from a terminal.
    from_terminal: bool,
    reload: watch::Sender<u64>,
}

impl Signals {
    fn listen(reload: watch::Sender<u64>) -> std::io::Result<Self> {
        let hang_up = if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up,
            from_terminal: has_terminal(),
            reload,
        })
    }

    /// Resolves with the next one that asks for the end.
    async fn next(&mut self) {
        loop {
            let hung_up = async {
                match &mut self.hang_up {
                    Some(hang_up) => drop(hang_up.recv().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                () = hung_up => {}
            }
            if self.from_terminal && !has_terminal() {
                return;
            }
            tracing::info!("SIGHUP was heard");
            self.reload.send_modify(|count| *count += 1);
        }
    }

    async fn end(mut self, ending: drain::Signal) {
        self.next().await;
        // Nothing was spawned on this drain, so there is nothing to wait for: the role waits for its own.
        let _ = ending.drain(Duration::ZERO).await;
        self.next().await;
        runtime::log::flush(LAST_LOGS);
        std::process::exit(SECOND_SIGNAL_CODE);
    }
}

/// Whether this process has a terminal that can end it (tty(4)).
fn has_terminal() -> bool {
    RealDisk.open(Path::new("/dev/tty"), OpenMode::Read).is_ok()
}

/// Whether SIGHUP is ignored now, as `nohup` leaves it.
fn ignores_hang_up() -> bool {
    let mut buffer = vec![0; STATUS_BYTES_MAX];
    let file = RealDisk.open(Path::new("/proc/self/status"), OpenMode::Read);
    let length = file.and_then(|file| file.read_at(&mut buffer, 0)).unwrap_or(0);
    ignored(&String::from_utf8_lossy(&buffer[..length]))
}

/// The signals that a process ignores stand in `SigIgn`, the first of them, SIGHUP, in the lowest bit (proc(5)).
fn ignored(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_hang_up_is_the_lowest_bit() {
        assert!(ignored("Name:\tmeshwork\nSigIgn:\t0000000000001001\n"));
        assert!(!ignored("Name:\tmeshwork\nSigIgn:\t0000000000001000\n"));
        assert!(!ignored(""));
    }
}
