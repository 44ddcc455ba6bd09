//! The shared runtime of a process and the signals that end it.
//!
//! The data path has lanes of its own; here run the control plane's stream, the broker's API and what else is not hot.

use std::future::Future;

use runtime::drain::{self, Drain};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Threads of the shared runtime.
const WORKERS_MAX: usize = 2;
/// What a shell says of a program that SIGINT ended.
const SECOND_SIGNAL_CODE: i32 = 130;

/// Runs `task` to its end. It is told to end by SIGTERM, SIGINT or SIGHUP; a second one ends the process at once.
pub(crate) fn block_on<F, T>(task: impl FnOnce(Drain) -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let outcome = runtime.block_on(async {
        let (ending, stop) = drain::channel();
        let signals = Signals::listen()?;
        tokio::spawn(signals.end(ending));
        task(stop).await
    });
    // What is still running was given its time by the role; it does not keep the process.
    runtime.shutdown_background();
    outcome
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }

    async fn end(mut self, ending: drain::Signal) {
        self.next().await;
        // Nothing was spawned on this drain, so there is nothing to wait for: the role waits for its own.
        let _ = ending.drain(std::time::Duration::ZERO).await;
        self.next().await;
        std::process::exit(SECOND_SIGNAL_CODE);
    }
}
