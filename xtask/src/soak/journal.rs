//! What an application has handled: one line a message, written at once, so that a kill of the application loses none of it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};

/// A file that lines are appended to.
pub struct Journal(Mutex<File>);

/// A message that was handled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Handled {
    /// When, by the machine's monotonic clock, which all processes share.
    pub at: Duration,
    /// By which part of an application: `work`, `events`, `pulled`.
    pub part: String,
    /// Its id.
    pub id: String,
}

impl Journal {
    /// Opens the journal of one process.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(format!("handled-{}", std::process::id()));
        let file = OpenOptions::new().create(true).append(true).open(&path);
        Ok(Self(Mutex::new(file.with_context(|| format!("{}", path.display()))?)))
    }

    /// Notes a message.
    pub fn note(&self, part: &str, id: &str) -> anyhow::Result<()> {
        let line = format!("{} {part} {id}\n", now()?.as_nanos());
        let mut file = self.0.lock().map_err(|_| anyhow::anyhow!("the journal's lock"))?;
        Ok(file.write_all(line.as_bytes())?)
    }
}

/// The machine's monotonic clock.
pub fn now() -> anyhow::Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?))
}

/// Everything that was handled, in order.
pub fn read(folder: &Path) -> anyhow::Result<Vec<Handled>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_journal = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("handled-"));
        if !is_journal {
            continue;
        }
        for line in std::fs::read_to_string(&path)?.lines() {
            let mut words = line.split(' ');
            let (Some(at), Some(part), Some(id)) = (words.next(), words.next(), words.next()) else { continue };
            let at = Duration::from_nanos(at.parse()?);
            all.push(Handled { at, part: part.to_owned(), id: id.to_owned() });
        }
    }
    all.sort();
    Ok(all)
}
