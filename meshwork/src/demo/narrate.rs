//! What is told while the demo runs: short lines with the time since the start, and below them, on a terminal only, how far the
//! orders have got. It goes to standard error; standard output is the report's.

use std::io::IsTerminal as _;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anstyle::Style;
use runtime::output::Output;
use tokio::time::Instant;

use super::orders::Progress;
use crate::terminal::{self, BAD, FAINT, GOOD, STRONG};

/// From one progress line to the next.
const PROGRESS_PAUSE: Duration = Duration::from_millis(200);
/// How long the last lines may take to be read at the end.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Columns of the progress bar.
const BAR_WIDTH: u64 = 12;
/// Back to the line's start, and nothing on it.
const CLEAR_LINE: &str = "\r\u{1b}[2K";

/// Tells what happens.
#[derive(Debug)]
pub(super) struct Narrator {
    start: Instant,
    watched: bool,
    out: Output,
    // A lock for a look at the progress line that stands below all others.
    progress: Mutex<Option<String>>,
}

impl Narrator {
    /// Time is told since `start`.
    ///
    /// # Errors
    /// When the operating system gives no thread to write.
    pub(super) fn new(start: Instant) -> std::io::Result<Self> {
        let watched = std::io::stderr().is_terminal();
        Ok(Self { start, watched, out: terminal::errors()?, progress: Mutex::default() })
    }

    /// When it all began.
    pub(super) fn start(&self) -> Instant {
        self.start
    }

    /// Offset from the start.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Something is done by the demo.
    pub(super) fn step(&self, text: &str) {
        self.line(STRONG, text);
    }

    /// Something is broken on purpose.
    pub(super) fn harm(&self, text: &str) {
        self.line(BAD, text);
    }

    /// Something is well again.
    pub(super) fn good(&self, text: &str) {
        self.line(GOOD, text);
    }

    /// Something that the mesh does by itself.
    pub(super) fn aside(&self, text: &str) {
        self.line(FAINT, text);
    }

    /// A line as it is.
    pub(super) fn raw(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// A line of one of the processes, of which there may be many at once: waits for whoever reads.
    pub(super) async fn passed_on(&self, text: &str) {
        let text = self.above_progress(&format!("{text}\n"));
        self.out.write(text).await;
    }

    /// Why the demo fails.
    pub(super) fn failed(&self, why: &str) {
        self.write(&terminal::error(why));
    }

    /// Gives whoever reads a moment for what was told last.
    pub(super) fn finish(&self) {
        // Whoever does not read by then will not.
        let _ = self.out.flush(LAST_LINES);
    }

    fn line(&self, style: Style, text: &str) {
        self.write(&format!("{}  {}\n", stamp(self.now()), terminal::paint(style, text)));
    }

    fn write(&self, lines: &str) {
        // Nobody may be reading; the demo goes on.
        self.out.offer(self.above_progress(lines));
    }

    fn above_progress(&self, lines: &str) -> String {
        match &*self.progress.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(below) => format!("{CLEAR_LINE}{lines}{below}"),
            None => lines.to_owned(),
        }
    }

    /// Keeps a progress line below all others, for ever; nothing where nobody watches.
    pub(super) async fn follow(&self, progress: &Progress, orders: u64) {
        if !self.watched {
            std::future::pending::<()>().await;
        }
        loop {
            let line = bar(progress, orders);
            self.out.offer(format!("{CLEAR_LINE}{line}"));
            *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
            tokio::time::sleep(PROGRESS_PAUSE).await;
        }
    }

    /// Takes the progress line away.
    pub(super) fn forget_progress(&self) {
        let below = self.progress.lock().unwrap_or_else(PoisonError::into_inner).take();
        if below.is_some() {
            self.out.offer(CLEAR_LINE.to_owned());
        }
    }
}

fn stamp(since: Duration) -> String {
    format!("{:>6.1} s", since.as_secs_f64())
}

fn bar(progress: &Progress, orders: u64) -> String {
    let [sent, accepted, refused, again] =
        [&progress.sent, &progress.accepted, &progress.refused, &progress.again].map(|one| one.load(Ordering::Relaxed));
    let done = (accepted + refused) * BAR_WIDTH / orders.max(1);
    let bar: String = (0..BAR_WIDTH).map(|column| if column < done { '█' } else { '░' }).collect();
    format!("          {bar} {sent}/{orders} orders, {accepted} accepted, {refused} refused, {again} asked again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_below_each_other() {
        assert_eq!(stamp(Duration::from_millis(1_250)), "   1.2 s");
        assert_eq!(stamp(Duration::from_secs(100)), " 100.0 s");
    }

    #[test]
    fn the_bar_is_full_when_every_order_has_its_answer() {
        let progress = Progress::default();
        progress.sent.store(10, Ordering::Relaxed);
        progress.accepted.store(4, Ordering::Relaxed);
        progress.refused.store(1, Ordering::Relaxed);
        assert!(bar(&progress, 10).contains(&format!(" {}{} ", "█".repeat(6), "░".repeat(6))));
    }
}
