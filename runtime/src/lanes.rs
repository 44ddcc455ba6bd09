//! The door to threads.
//!
//! The data path runs on **core lanes**: one single-threaded runtime per core, each with listeners and connection pools of its
//! own, so that a request never crosses threads. What blocks on a disk runs on a **disk lane**: one thread that takes
//! batches from a bounded queue. In the simulation, and in tests that ask for it, both run inline on the caller's runtime.

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;

/// The core lanes. Dropping them stops their runtimes.
#[derive(Debug)]
pub struct Lanes {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Threads(Vec<Lane>),
    Inline,
}

#[derive(Debug)]
struct Lane {
    handle: tokio::runtime::Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Lanes {
    /// Starts `count` threads, each with a single-threaded runtime.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(count: usize, name: &str) -> io::Result<Self> {
        let lanes = (0..count.max(1)).map(|index| start_lane(format!("{name}-{index}"))).collect::<io::Result<_>>()?;
        Ok(Self { kind: Kind::Threads(lanes) })
    }

    /// One lane that is the caller's own runtime: for the simulation and for small tests.
    #[must_use]
    pub fn inline() -> Self {
        Self { kind: Kind::Inline }
    }

    /// How many lanes there are.
    #[must_use]
    pub fn count(&self) -> usize {
        match &self.kind {
            Kind::Threads(lanes) => lanes.len(),
            Kind::Inline => 1,
        }
    }

    /// Runs a task on every lane; `task` gets the lane's index and is called on the lane's own thread.
    ///
    /// The handles resolve when the tasks end.
    pub fn run<F, T>(&self, task: F) -> Vec<tokio::task::JoinHandle<()>>
    where
        F: Fn(usize) -> T + Send + Sync + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        match &self.kind {
            Kind::Inline => vec![tokio::spawn(task(0))],
            Kind::Threads(lanes) => {
                let task = Arc::new(task);
                lanes.iter().enumerate().map(|(index, lane)| on_lane(lane, index, task.clone())).collect()
            }
        }
    }
}

fn on_lane<F, T>(lane: &Lane, index: usize, task: Arc<F>) -> tokio::task::JoinHandle<()>
where
    F: Fn(usize) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    lane.handle.spawn(async move { task(index).await })
}

fn start_lane(name: String) -> io::Result<Lane> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        // Either a word or the sender's end stops the lane.
        let _ = runtime.block_on(stopped);
        runtime.shutdown_background();
    })?;
    Ok(Lane { handle, stop: Some(stop), thread: Some(thread) })
}

impl Drop for Lane {
    fn drop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else { return };
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("a core lane ended in a panic");
        }
    }
}

/// Where a disk lane's work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On a thread of its own.
    Thread,
    /// On the caller's runtime, between its other tasks: for the simulation.
    Inline,
}

/// Starts a disk lane: `work` is handed all that has gathered in the queue, at most `batch_max` items, and blocks as it needs to.
///
/// The lane ends when every sender is gone and the queue is empty. `bound` items may wait; senders beyond that wait too.
///
/// # Errors
/// When the operating system gives no thread.
pub fn disk_lane<T, W>(
    name: &str,
    place: Place,
    bound: usize,
    batch_max: usize,
    mut work: W,
) -> io::Result<mpsc::Sender<T>>
where
    T: Send + 'static,
    W: FnMut(&mut Vec<T>) + Send + 'static,
{
    let (sender, mut queue) = mpsc::channel(bound);
    match place {
        Place::Inline => {
            tokio::spawn(async move {
                let mut batch = Vec::with_capacity(batch_max);
                while queue.recv_many(&mut batch, batch_max).await > 0 {
                    work(&mut batch);
                    batch.clear();
                }
            });
        }
        Place::Thread => {
            #[expect(clippy::disallowed_methods, reason = "this is the door")]
            std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                let mut batch = Vec::with_capacity(batch_max);
                while queue.blocking_recv_many(&mut batch, batch_max) > 0 {
                    work(&mut batch);
                    batch.clear();
                }
            })?;
        }
    }
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_lane_runs_its_task_on_its_own_thread() {
        let lanes = Lanes::start(2, "test").unwrap();
        let (sender, mut seen) = mpsc::channel(2);
        for handle in lanes.run(move |index| {
            let sender = sender.clone();
            async move { sender.send((index, std::thread::current().id())).await.unwrap() }
        }) {
            handle.await.unwrap();
        }
        let (first, second) = (seen.recv().await.unwrap(), seen.recv().await.unwrap());
        assert_ne!(first.0, second.0);
        assert_ne!(first.1, second.1);
    }

    #[tokio::test]
    async fn a_disk_lane_takes_what_has_gathered() {
        for place in [Place::Thread, Place::Inline] {
            let (done, mut results) = mpsc::unbounded_channel();
            let (gathered, gate) = std::sync::mpsc::channel::<()>();
            let work = move |batch: &mut Vec<u32>| {
                // Until the sender below is gone: the first batch is at work while the others gather.
                let _ = gate.recv();
                done.send(std::mem::take(batch)).unwrap();
            };
            let lane = disk_lane("test", place, 16, 8, work).unwrap();
            for item in 0..10 {
                lane.send(item).await.unwrap();
            }
            drop((lane, gathered));
            let all = async {
                let mut batches = Vec::new();
                while let Some(batch) = results.recv().await {
                    batches.push(batch);
                }
                batches
            };
            let batches = tokio::time::timeout(std::time::Duration::from_secs(60), all).await.expect("an end");
            assert!(batches.iter().all(|batch| batch.len() <= 8), "{batches:?}");
            // One that came first and alone, eight, and the last.
            assert!(batches.len() <= 3, "{place:?}: {batches:?}");
            assert_eq!(batches.concat(), (0..10).collect::<Vec<_>>());
        }
    }
}
