//! Redrives: dead letters go back into delivery at a bounded rate, by one task at a time for each queue or subscription.
//!
//! Each step is one record in the log, which puts its dead letters back whole or not at all. So a crash in the middle leaves every
//! message in one place, and what was not reached yet is a dead letter still, for another redrive; the task itself is not in the
//! log. It passes each position once: a message that dies anew meanwhile stays dead, or a poisonous one would go round for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::position::Position;
use runtime::drain::Drain;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::ledger::lock;
use crate::record::Group;
use crate::refusal::Refusal;
use crate::selection::{self, Selection};
use crate::verdict::Change;

/// How many dead letters go back in a second where nothing else is asked for (SQS: 500 at most), so that what killed them is
/// not met by all of them at once.
pub const RATE: u32 = 500;
/// The highest rate that may be asked for, in messages a second.
pub const RATE_MAX: u32 = 10_000;
/// How far apart two steps are where a step has more than one message.
const STEP: Duration = Duration::from_millis(100);

/// The redrives of a broker: of each group the one that runs, or ran last.
#[derive(Debug)]
pub struct Redrives {
    held: Mutex<BTreeMap<Group, Held>>,
    drain: Drain,
}

#[derive(Debug, Clone)]
struct Held {
    progress: watch::Receiver<Progress>,
    cancel: CancellationToken,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// Which dead letters; `None`: all that there are now.
    pub positions: Option<Vec<Position>>,
    /// How many in a second; `None`: [`RATE`].
    pub rate: Option<u32>,
}

/// How far a redrive is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Whether it goes on.
    pub state: State,
    /// How many went back.
    pub redriven: u64,
    /// How many it has still to look at.
    pub remaining: u64,
    /// How many go back in a second.
    pub rate: u32,
    /// When it began, as wall time in milliseconds.
    pub began_ms: u64,
    /// Why it has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Whether a redrive goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does.
    Running,
    /// It has looked at everything that it was asked for.
    Done,
    /// Somebody has ended it, or the broker is ending; what it had not reached is a dead letter still.
    Cancelled,
    /// A step was refused; what it had not reached is a dead letter still.
    Failed,
}

struct Task {
    core: Arc<Core>,
    group: Group,
    selection: Selection,
    progress: watch::Sender<Progress>,
    cancel: CancellationToken,
    drain: Drain,
}

impl Redrives {
    /// None yet; those to come end with `drain`.
    #[must_use]
    pub fn new(drain: Drain) -> Self {
        Self { held: Mutex::default(), drain }
    }

    fn find(&self, group: &Group) -> Result<Held, Refusal> {
        let absent = || Refusal::Absent(format!("no redrive of {group} has begun since the broker was started"));
        lock(&self.held).get(group).cloned().ok_or_else(absent)
    }
}

/// Begins a redrive, and answers when its first step is durable: so a few dead letters are answered as done.
///
/// # Errors
/// When one is running, a chosen dead letter is none, or the rate is none.
pub async fn begin(core: &Arc<Core>, group: Group, asked: Asked) -> Result<Progress, Refusal> {
    let rate = asked.rate.unwrap_or(RATE);
    if rate == 0 || rate > RATE_MAX {
        return Err(Refusal::Invalid(format!("rate is from 1 to {RATE_MAX} messages a second")));
    }
    let (selection, remaining) = selection::choose(&lock(&core.ledger.books), &group, asked.positions)?;
    let began_ms = runtime::clock::wall_ms();
    let (progress, mut seen) =
        watch::channel(Progress { state: State::Running, redriven: 0, remaining, rate, began_ms, failure: None });
    {
        let mut held = lock(&core.redrives.held);
        if let Some(running) = held.get(&group).map(Held::progress).filter(|found| found.state == State::Running) {
            let Progress { redriven, remaining, rate, .. } = running;
            let text = format!("{redriven} are, {remaining} remain, at {rate} a second");
            return Err(Refusal::Redriving(text));
        }
        let (cancel, drain) = (CancellationToken::new(), core.redrives.drain.clone());
        held.insert(group.clone(), Held { progress: seen.clone(), cancel: cancel.clone() });
        let task = Task { core: core.clone(), group, selection, progress, cancel, drain };
        core.redrives.drain.spawn(task.run());
    }
    seen.changed().await.map_err(|_| Refusal::Ending)?;
    let progress = seen.borrow().clone();
    Ok(progress)
}

/// How far the redrive of a group is that runs or ran last.
///
/// # Errors
/// When there was none.
pub fn show(core: &Core, group: &Group) -> Result<Progress, Refusal> {
    core.redrives.find(group).map(|held| held.progress())
}

/// Ends a redrive, and answers how far it came. One that has ended stays as it is.
///
/// # Errors
/// When there was none.
pub async fn cancel(core: &Core, group: &Group) -> Result<Progress, Refusal> {
    let mut held = core.redrives.find(group)?;
    held.cancel.cancel();
    // An error says that the task is gone, and so it has ended as well.
    let _ = held.progress.wait_for(|progress| progress.state != State::Running).await;
    Ok(held.progress())
}

impl Held {
    fn progress(&self) -> Progress {
        let mut progress = self.progress.borrow().clone();
        // A task that is gone without a last word has been ended with its runtime.
        if progress.state == State::Running && self.progress.has_changed().is_err() {
            progress.state = State::Cancelled;
        }
        progress
    }
}

impl Task {
    async fn run(mut self) {
        let rate = self.progress.borrow().rate;
        let (per_step, pause) = step(rate);
        loop {
            let (positions, is_last) = self.selection.next(&lock(&self.core.ledger.books), &self.group, per_step);
            let looked_at = positions.len() as u64;
            let put_back = match positions.is_empty() {
                true => Ok(0),
                false => {
                    let change = Change::Redrive { group: self.group.clone(), positions };
                    self.core.change(change).await.map(|done| done.count)
                }
            };
            let is_over = put_back.is_err() || is_last;
            self.progress.send_modify(|progress| progress.step(looked_at, put_back, is_last));
            if is_over {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.cancel.cancelled() => break,
                () = self.drain.requested() => break,
            }
        }
        self.progress.send_modify(|progress| progress.state = State::Cancelled);
    }
}

impl Progress {
    fn step(&mut self, looked_at: u64, put_back: Result<u64, Refusal>, is_last: bool) {
        match put_back {
            Ok(count) => {
                self.redriven += count;
                self.remaining = if is_last { 0 } else { self.remaining.saturating_sub(looked_at) };
                self.state = if is_last { State::Done } else { State::Running };
            }
            Err(Refusal::Ending) => self.state = State::Cancelled,
            Err(refusal) => {
                self.state = State::Failed;
                self.failure = Some(refusal.to_string());
            }
        }
    }
}

/// How many messages one step has, and how long the pause behind it is.
fn step(rate: u32) -> (usize, Duration) {
    let per_step = (rate / 10).max(1);
    let pause = if rate < 10 { Duration::from_secs(1) / rate.max(1) } else { STEP };
    (per_step as usize, pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_never_passed() {
        for (rate, per_step, pause_ms) in
            [(1, 1, 1_000), (3, 1, 333), (10, 1, 100), (19, 1, 100), (RATE, 50, 100), (RATE_MAX, 1_000, 100)]
        {
            let (count, pause) = step(rate);
            assert_eq!((count, pause.as_millis()), (per_step, pause_ms), "{rate}");
        }
    }
}
