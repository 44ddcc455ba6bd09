//! Logs: a constant message and `key = value`, to standard error; text for people, JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people; colours where standard error is a terminal and `NO_COLOR` is not set (no-color.org).
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The levels that are wanted do not parse.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a list of levels such as info or warn,proxy=debug: {why}")]
pub struct Error {
    text: String,
    why: String,
}

/// Sends the process's logs to standard error. `levels` is `info`, or `warn,proxy=debug,…`.
///
/// # Errors
/// When `levels` does not parse. A second call keeps the first one's choice.
pub fn start(format: Format, levels: &str) -> Result<(), Error> {
    let targets: Targets = levels.parse().map_err(|why| Error { text: levels.to_owned(), why: format!("{why}") })?;
    // hyper and h2 speak at debug level about each frame; nobody who asks for `debug` means that.
    let targets = targets.with_target("h2", LevelFilter::WARN).with_target("hyper", LevelFilter::WARN);
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let registry = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match format {
        Format::Text => registry.with(layer.with_ansi(colours)).try_init(),
        Format::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was already started");
    }
    Ok(())
}
