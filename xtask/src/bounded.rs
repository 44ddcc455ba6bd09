//! A command with an end: one that runs longer than its bound is ended with everything that it has started.
//!
//! What belongs to a command is what descends from it, or carries its mark in the environment: an orphan has no ancestor any more, and a
//! process with an environment of its own has no mark. Both are read from proc(5); where there is none, the command alone is ended.
//! It stays in the caller's process group, so that Ctrl-C ends it with the caller.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The environment variable that a command's processes carry.
const MARK: &str = "MESHWORK_BOUNDED_RUN";
/// How often a command that runs is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long what a command has started may outlive it: what was killed takes a moment to be gone.
const AFTERMATH_MAX: Duration = Duration::from_secs(10);

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; none when it was ended at its bound.
    pub status: Option<ExitStatus>,
    /// The command lines of what it left running. All of it has been ended.
    pub left: Vec<String>,
    /// How long it ran.
    pub elapsed: Duration,
}

impl Ended {
    /// Whether it ended by itself, and well.
    pub fn is_good(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

/// Runs the command; each line that it writes to standard output goes to `line`.
///
/// # Errors
/// When it cannot be started or looked at.
pub fn run(command: &mut Command, bound: Duration, line: impl FnMut(String) + Send) -> anyhow::Result<Ended> {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let mark = format!("{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
    command.env(MARK, &mark).stdin(Stdio::null()).stdout(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let stdout = child.stdout.take().context("its output")?;
    std::thread::scope(|scope| {
        // It reads to the end, which comes at the latest when all that could write is gone.
        scope.spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).for_each(line));
        let family = Family { mark: format!("{MARK}={mark}") };
        let status = wait(&mut child, bound);
        if !matches!(status, Ok(Some(_))) {
            family.end();
            child.kill()?;
            child.wait()?;
        }
        let left = family.settle();
        Ok(Ended { status: status?, left, elapsed: start.elapsed() })
    })
}

/// Waits for its end; none when it has not come at the bound.
///
/// # Errors
/// As of wait(2).
pub fn wait(child: &mut Child, bound: Duration) -> std::io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        let status = child.try_wait()?;
        if status.is_some() || start.elapsed() >= bound {
            return Ok(status);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The processes of one command.
struct Family {
    mark: String,
}

/// A process that lives.
struct Process {
    id: u32,
    parent: u32,
    is_marked: bool,
}

impl Family {
    fn members(&self) -> Vec<u32> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let all: Vec<Process> = ids.filter_map(|id| self.look(id)).collect();
        let mut members: Vec<u32> = all.iter().filter(|process| process.is_marked).map(|process| process.id).collect();
        let mut at = 0;
        while at < members.len() {
            let parent = members[at];
            let children: Vec<u32> = all.iter().filter(|process| process.parent == parent).map(|p| p.id).collect();
            members.extend(children.into_iter().filter(|child| !members.contains(child)).collect::<Vec<_>>());
            at += 1;
        }
        members
    }

    fn look(&self, id: u32) -> Option<Process> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let lives = !matches!(fields.next()?, "Z" | "X");
        let parent = fields.next()?.parse().ok()?;
        let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        let is_marked = environment.split(|byte| *byte == 0).any(|variable| variable == self.mark.as_bytes());
        lives.then_some(Process { id, parent, is_marked })
    }

    /// Ends all of them, also those that are started meanwhile.
    fn end(&self) {
        let start = Instant::now();
        loop {
            let members = self.members();
            if members.is_empty() || start.elapsed() >= AFTERMATH_MAX {
                return;
            }
            for id in members {
                // One that is gone already is as good.
                let _ = kill(Pid::from_raw(id.cast_signed()), Signal::SIGKILL);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits for what is about to go, ends the rest and names it.
    fn settle(&self) -> Vec<String> {
        let start = Instant::now();
        loop {
            let members = self.members();
            if members.is_empty() {
                return Vec::new();
            }
            if start.elapsed() >= AFTERMATH_MAX {
                let names = members.into_iter().map(command_line).collect();
                self.end();
                return names;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn command_line(id: u32) -> String {
    let words = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).trim_end_matches('\0').replace('\0', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any test may take.
    const FOR_EVER: Duration = Duration::from_secs(100_000);

    fn shell(script: &str, bound: Duration) -> (Ended, Vec<String>) {
        let mut lines = Vec::new();
        let ended = run(Command::new("sh").args(["-c", script]), bound, |line| lines.push(line)).unwrap();
        (ended, lines)
    }

    #[test]
    fn what_ends_in_time_tells_its_status_and_its_output() {
        let (ended, lines) = shell("echo one; echo two; exit 3", FOR_EVER);
        assert_eq!((ended.status.and_then(|s| s.code()), ended.left.len()), (Some(3), 0));
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn what_does_not_end_is_ended_with_its_children_and_its_orphans() {
        // A child, an orphan, and a child without the mark; each would hold the output open for ever.
        let script = "sleep 100001 & (sleep 100002 &) ; env -i sleep 100003 & echo started; wait";
        let bound = Duration::from_millis(500);
        let (ended, lines) = shell(script, bound);
        assert!(ended.status.is_none() && ended.left.is_empty(), "{ended:?}");
        assert!(ended.elapsed >= bound && ended.elapsed < bound * 100, "{ended:?}");
        assert!(lines.len() <= 1);
    }
}
