//! Logs: a constant message and `key = value`, to standard error; text for people, JSON for machines. Nobody waits for a line to be
//! written: standard error that is not read loses lines, and says so later.

use std::io::{self, IsTerminal as _, Write};
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::output::Output;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people; colours where standard error is a terminal and `NO_COLOR` is not set (no-color.org).
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The levels that are wanted do not parse.
    #[error("{text:?} is not a list of levels such as info or warn,proxy=debug: {why}")]
    Levels {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The operating system gives no thread that writes.
    #[error("no thread for the logs: {0}")]
    Thread(#[from] io::Error),
}

/// Where all logs of the process go.
static OUTPUT: OnceLock<Output> = OnceLock::new();

/// Sends the process's logs to standard error. `levels` is `info`, or `warn,proxy=debug,…`.
///
/// # Errors
/// When `levels` does not parse, or there is no thread to write. A second call keeps the first one's choice.
pub fn start(format: Format, levels: &str) -> Result<(), Error> {
    let targets: Targets =
        levels.parse().map_err(|why| Error::Levels { text: levels.to_owned(), why: format!("{why}") })?;
    // hyper and h2 speak at debug level about each frame; nobody who asks for `debug` means that.
    let targets = targets.with_target("h2", LevelFilter::WARN).with_target("hyper", LevelFilter::WARN);
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let registry = tracing_subscriber::registry().with(targets);
    let missing: fn(u64) -> String = match format {
        Format::Text => |lost| format!("{lost} log lines are missing here: they could not be written\n"),
        Format::Json => |lost| {
            let message = "log lines are missing here: they could not be written";
            format!("{}\n", serde_json::json!({"level": "WARN", "message": message, "lost": lost}))
        },
    };
    let output = Output::start("log", io::stderr(), missing)?;
    let layer = tracing_subscriber::fmt::layer().with_writer(Lines(output.clone()));
    let started = match format {
        Format::Text => registry.with(layer.with_ansi(colours)).try_init(),
        Format::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    match started {
        Ok(()) => drop(OUTPUT.set(output)),
        Err(_) => tracing::debug!("logging was already started"),
    }
    Ok(())
}

/// Waits until what was logged before is written, at most `bound`: for the end of the process.
pub fn flush(bound: Duration) {
    if let Some(output) = OUTPUT.get() {
        // Whoever does not read by then will not.
        let _ = output.flush(bound);
    }
}

/// Makes a writer for each line.
#[derive(Debug)]
struct Lines(Output);

/// One line, which is passed on whole.
#[derive(Debug)]
struct Line {
    output: Output,
    bytes: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { output: self.0.clone(), bytes: Vec::new() }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.output.offer(String::from_utf8_lossy(&self.bytes).into_owned());
        }
    }
}
