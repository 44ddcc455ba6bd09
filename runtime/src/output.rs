//! A stream for people or for whoever collects logs, such as standard output: written by a thread of its own behind a bounded queue, so
//! that a reader who does not read (a full pipe, a terminal that is held) holds up nothing but that thread.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::lanes::{self, Place};

/// Texts that wait to be written.
const WAITING_MAX: usize = 1_024;
/// Texts that are written before the stream is flushed.
const BATCH_MAX: usize = 64;
/// From one look to the next for room in a full queue, where nobody can be notified.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// The writers' end; cheap to clone. The thread ends when the last one has gone and all is written.
#[derive(Debug, Clone)]
pub struct Output {
    queue: mpsc::Sender<Item>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Texts that were not written, and of which nothing has been said yet.
    lost: AtomicU64,
    /// Nobody reads any more, and nobody will.
    gone: CancellationToken,
}

enum Item {
    Text(String),
    /// Called when all before it is written.
    Mark(Box<dyn FnOnce() + Send>),
}

impl Output {
    /// Starts the thread. `missing` says in the stream's own form that so many texts are missing where it stands.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(name: &str, mut to: impl Write + Send + 'static, missing: fn(u64) -> String) -> io::Result<Self> {
        let state = Arc::new(State::default());
        let writing = state.clone();
        let queue = lanes::disk_lane(name, Place::Thread, WAITING_MAX, BATCH_MAX, move |batch: &mut Vec<Item>| {
            write_all(&mut to, &writing, missing, batch);
        })?;
        Ok(Self { queue, state })
    }

    /// Writes `text`, after what waits already; waits for room. Once the reader has gone it does nothing.
    pub async fn write(&self, text: String) {
        tokio::select! {
            // The thread ends after the last sender.
            _ = self.queue.send(Item::Text(text)) => {}
            () = self.gone() => {}
        }
    }

    /// Writes `text` if there is room for it now; where there is none it is missing, which the stream will say.
    pub fn offer(&self, text: String) {
        if self.queue.try_send(Item::Text(text)).is_err() {
            self.state.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Resolves when the reader has gone for good: the pipe is broken.
    pub async fn gone(&self) {
        self.state.gone.cancelled().await;
    }

    /// Waits until all that was written before has come through, or the reader has gone.
    pub async fn written(&self) {
        let (sender, written) = oneshot::channel();
        let mark = Item::Mark(Box::new(move || {
            // Whoever waited may have given up.
            let _ = sender.send(());
        }));
        tokio::select! {
            _ = self.queue.send(mark) => drop(written.await),
            () = self.gone() => {}
        }
    }

    /// Waits on this thread until all that was written before has come through, at most `bound`; says whether it has.
    #[must_use]
    pub fn flush(&self, bound: Duration) -> bool {
        let end = Instant::now() + bound;
        let (sender, written) = std::sync::mpsc::sync_channel(1);
        // Whoever waited may have given up.
        let mut mark = Item::Mark(Box::new(move || {
            let _ = sender.try_send(());
        }));
        loop {
            mark = match self.queue.try_send(mark) {
                Ok(()) => return written.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok(),
                Err(TrySendError::Closed(_)) => return false,
                Err(TrySendError::Full(mark)) => mark,
            };
            if Instant::now() >= end {
                return false;
            }
            std::thread::park_timeout(LOOK_PAUSE);
        }
    }
}

fn write_all(to: &mut impl Write, state: &State, missing: fn(u64) -> String, batch: &mut Vec<Item>) {
    let mut marks = Vec::new();
    for item in batch.drain(..) {
        match item {
            Item::Text(text) if !state.gone.is_cancelled() => write_one(to, state, missing, &text),
            Item::Text(_) => {}
            Item::Mark(mark) => marks.push(mark),
        }
    }
    if let Err(error) = to.flush() {
        failed(state, &error);
    }
    for mark in marks {
        mark();
    }
}

fn write_one(to: &mut impl Write, state: &State, missing: fn(u64) -> String, text: &str) {
    let lost = state.lost.swap(0, Ordering::Relaxed);
    let note = if lost > 0 { missing(lost) } else { String::new() };
    if let Err(error) = to.write_all(note.as_bytes()).and_then(|()| to.write_all(text.as_bytes())) {
        state.lost.fetch_add(lost + 1, Ordering::Relaxed);
        failed(state, &error);
    }
}

/// A pipe whose reader has gone stays broken. Anything else, such as a full disk, may pass.
fn failed(state: &State, error: &io::Error) {
    if error.kind() == io::ErrorKind::BrokenPipe {
        state.gone.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const BOUND: Duration = Duration::from_secs(20);

    /// A stream that takes a text when the test lets it, and fails with what the test says.
    struct Gated {
        texts: SyncSender<String>,
        turns: Receiver<io::Result<()>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.turns.recv().map_err(io::Error::other)??;
            self.texts.send(String::from_utf8_lossy(bytes).into_owned()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Output, SyncSender<io::Result<()>>, Receiver<String>) {
        let (texts, written) = sync_channel(2 * WAITING_MAX);
        let (turn, turns) = sync_channel(4 * WAITING_MAX);
        let output = Output::start("test", Gated { texts, turns }, |lost| format!("{lost} missing\n")).unwrap();
        (output, turn, written)
    }

    #[test]
    fn a_reader_who_does_not_read_holds_nobody_up_and_hears_what_is_missing() {
        let (output, turn, written) = gated();
        for number in 0..2 * WAITING_MAX {
            output.offer(format!("{number}\n"));
        }
        assert!(!output.flush(Duration::from_millis(10)), "nothing comes through");
        for _ in 0..4 * WAITING_MAX {
            turn.send(Ok(())).unwrap();
        }
        assert!(output.flush(BOUND));
        // What is missing may be said in front of the first text, where the thread began when the queue was full already.
        let texts: Vec<String> = written.try_iter().collect();
        let missing = texts.iter().find_map(|text| text.strip_suffix(" missing\n")).unwrap();
        let lines: Vec<&String> = texts.iter().filter(|text| !text.contains("missing")).collect();
        assert_eq!(lines[0], "0\n");
        assert_eq!(missing.parse::<usize>().unwrap() + lines.len(), 2 * WAITING_MAX);
    }

    #[tokio::test]
    async fn a_disk_that_is_full_for_a_while_ends_nothing_and_a_broken_pipe_does() {
        let (output, turn, written) = gated();
        turn.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        output.write("lost\n".to_owned()).await;
        (0..2).for_each(|_| turn.send(Ok(())).unwrap());
        output.write("kept\n".to_owned()).await;
        assert_eq!(written.recv_timeout(BOUND).unwrap(), "1 missing\n");
        assert_eq!(written.recv_timeout(BOUND).unwrap(), "kept\n");
        assert!(!output.state.gone.is_cancelled());
        turn.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        output.write("nobody\n".to_owned()).await;
        tokio::time::timeout(BOUND, output.gone()).await.unwrap();
        let writing = async {
            for _ in 0..2 * WAITING_MAX {
                output.write("nobody\n".to_owned()).await;
            }
        };
        tokio::time::timeout(BOUND, writing).await.expect("nothing waits for whoever has gone");
    }
}
