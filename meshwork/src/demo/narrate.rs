//! What is told while the demo runs: short lines with the time since the start, and below them, on a terminal only, how far the
//! orders have got. It goes to standard error; standard output is the report's.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anstyle::Style;
use tokio::time::Instant;

use super::orders::Progress;
use crate::terminal::{self, BAD, FAINT, GOOD, STRONG};

/// From one progress line to the next.
const PROGRESS_PAUSE: Duration = Duration::from_millis(200);
/// Columns of the progress bar.
const BAR_WIDTH: u64 = 12;
/// Back to the line's start, and nothing on it.
const CLEAR_LINE: &str = "\r\u{1b}[2K";

/// Tells what happens.
#[derive(Debug)]
pub(super) struct Narrator {
    start: Instant,
    watched: bool,
    // A lock so that lines do not mix; it holds the progress line that stands below them.
    progress: Mutex<Option<String>>,
}

impl Narrator {
    /// Time is told since `start`.
    pub(super) fn new(start: Instant) -> Self {
        Self { start, watched: std::io::stderr().is_terminal(), progress: Mutex::default() }
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

    /// A line as it is, such as one of an application's.
    pub(super) fn raw(&self, text: &str) {
        self.write(text);
    }

    fn line(&self, style: Style, text: &str) {
        self.write(&format!("{}  {}", stamp(self.now()), terminal::paint(style, text)));
    }

    fn write(&self, line: &str) {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        match &*progress {
            Some(below) => anstream::eprint!("{CLEAR_LINE}{line}\n{below}"),
            None => anstream::eprintln!("{line}"),
        }
        // Nobody may be reading any more; the demo goes on.
        let _ = std::io::stderr().flush();
    }

    /// Keeps a progress line below all others, for ever; nothing where nobody watches.
    pub(super) async fn follow(&self, progress: &Progress, orders: u64) {
        if !self.watched {
            std::future::pending::<()>().await;
        }
        loop {
            let line = bar(progress, orders);
            anstream::eprint!("{CLEAR_LINE}{line}");
            *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
            tokio::time::sleep(PROGRESS_PAUSE).await;
        }
    }

    /// Takes the progress line away.
    pub(super) fn forget_progress(&self) {
        let below = self.progress.lock().unwrap_or_else(PoisonError::into_inner).take();
        if below.is_some() {
            anstream::eprint!("{CLEAR_LINE}");
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
