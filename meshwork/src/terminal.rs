//! The terminal: whether there are colours, and the few that there are.
//!
//! What is written goes through anstream, which takes colours out where they are not wanted; this says where that is.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use nix::sys::signal::{SigHandler, Signal, signal};
use runtime::output::Output;

use crate::command::Format;

/// When there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set (no-color.org)
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Bold.
pub const STRONG: Style = Style::new().bold();
/// For what is of less weight.
pub const FAINT: Style = Style::new().dimmed();
/// For what is well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// For what is on its way.
pub const PENDING: Style = AnsiColor::Yellow.on_default();
/// For what is not well.
pub const BAD: Style = AnsiColor::Red.on_default().bold();

/// The colours by which instances are told apart; none that means good or bad.
const INSTANCES: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
    AnsiColor::BrightMagenta,
    AnsiColor::BrightBlue,
];

/// Settles for the whole process when there are colours.
pub fn choose(colour: Colour) {
    match colour {
        Colour::Auto => anstream::ColorChoice::Auto,
        Colour::Always => anstream::ColorChoice::Always,
        Colour::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Lets this process end when whoever reads its output has gone, as in `meshwork check … | head`: a program that only prints has
/// nothing left to do then. Rust ignores SIGPIPE, and turns the failure into a panic.
#[expect(unsafe_code, reason = "the only way to choose what a signal does")]
pub(crate) fn end_with_the_reader() {
    // SAFETY: the default action is no handler, so no code runs where it must not.
    let chosen = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    if let Err(error) = chosen {
        tracing::debug!(%error, "SIGPIPE stays ignored");
    }
}

/// Standard output, written by a thread of its own: for what goes on while others must not wait for whoever reads it.
///
/// # Errors
/// When the operating system gives no thread.
pub(crate) fn output(format: Format) -> std::io::Result<Output> {
    Output::start("stdout", anstream::stdout(), missing(format))
}

/// Standard error in the same way.
///
/// # Errors
/// When the operating system gives no thread.
pub(crate) fn errors() -> std::io::Result<Output> {
    Output::start("stderr", anstream::stderr(), missing(Format::Text))
}

/// How a stream says that something is missing where it stands.
fn missing(format: Format) -> fn(u64) -> String {
    match format {
        Format::Text => |lost| format!("{lost} lines are missing here: they could not be written\n"),
        Format::Json => |lost| format!("{}\n", serde_json::json!({"event": "dropped", "events": lost})),
    }
}

/// An error for people, as they see it at the end of a command.
#[must_use]
pub(crate) fn error(text: &str) -> String {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let mut whole = format!("{} {first}\n", paint(BAD, "error:"));
    for line in lines {
        whole.push_str(&format!("       {line}\n"));
    }
    whole
}

/// Whether standard output has colours.
#[must_use]
pub fn colours_out() -> bool {
    anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
}

/// Whether standard error has colours.
#[must_use]
pub fn colours_err() -> bool {
    anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never
}

/// The colour of an instance: the same in each run.
#[must_use]
pub fn instance(name: &str) -> Style {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let index = usize::try_from(hasher.finish() % INSTANCES.len() as u64).unwrap_or(0);
    INSTANCES[index].on_default()
}

/// `text` in `style`.
#[must_use]
pub fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_keeps_its_colour() {
        assert_eq!(instance("orders-0"), instance("orders-0"));
        assert_eq!(paint(GOOD, "ready"), "\u{1b}[32mready\u{1b}[0m");
    }
}
