//! The command line. Each command has a file of its own; here they are put together and their ends become exit codes.
//!
//! 0: done. 1: what was asked for did not hold. 2: the command line itself, or what it names, could not be used.

mod admin;
mod apply;
pub(crate) mod changes;
mod check;
mod completions;
mod convergence;
mod data;
mod demo;
mod diff;
mod history;
mod logging;
mod member;
pub mod mesh_file;
pub(crate) mod process;
mod publish;
mod roles;
mod rollback;
mod schema;
mod status;
mod token;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::terminal::{self, Colour};

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

const EXAMPLES: &str = "\
Examples:
  meshwork demo                      the example shop, with faults, and a report
  meshwork check mesh.yaml           every mistake of a mesh file at once
  meshwork up mesh.yaml              run the mesh and its applications on this machine
  meshwork status                    what runs here, and where it listens
  meshwork apply mesh.yaml           change the mesh that runs; diff, history and rollback stand beside it
  meshwork completions bash > /etc/bash_completion.d/meshwork

What a mesh file may hold is described by `meshwork schema`.

Exit code: 0 when it went as asked; 1 when it did not, as each command's --help says; 2 when the command line is wrong, a file cannot
be read, or a role cannot start.";

/// Service mesh and message broker in one program
///
/// Services call and wait, or send and go on. Meshwork carries both under one set of names, identities, policies and traces: a
/// sidecar beside each instance, a gateway for clients from outside, a broker for what is sent, and a control plane.
#[derive(Debug, Parser)]
#[command(name = "meshwork", version, after_help = EXAMPLES, styles = STYLES, propagate_version = true)]
struct Arguments {
    /// When there are colours
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", help_heading = "Output")]
    color: Colour,
    #[command(subcommand)]
    command: Command,
}

const STYLES: clap::builder::Styles = clap::builder::Styles::styled()
    .header(anstyle::AnsiColor::Green.on_default().bold())
    .usage(anstyle::AnsiColor::Green.on_default().bold())
    .literal(anstyle::AnsiColor::Cyan.on_default().bold())
    .placeholder(anstyle::AnsiColor::Cyan.on_default());

#[derive(Debug, Subcommand)]
enum Command {
    Demo(crate::demo::Arguments),
    Up(up::Arguments),
    Check(check::Arguments),
    Schema(schema::Arguments),
    #[command(visible_alias = "ps")]
    Status(status::Arguments),
    Apply(apply::Arguments),
    Diff(diff::Arguments),
    History(history::Arguments),
    Rollback(rollback::Arguments),
    ControlPlane(roles::control_plane::Arguments),
    Broker(roles::broker::Arguments),
    Gateway(roles::gateway::Arguments),
    Sidecar(roles::sidecar::Arguments),
    Token(token::Arguments),
    Completions(completions::Arguments),
}

/// How a command ended, when nothing was wrong with it.
type Outcome = anyhow::Result<ExitCode>;

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    terminal::choose(arguments.color);
    let outcome = run(arguments.command);
    runtime::log::flush(process::LAST_LOGS);
    outcome.unwrap_or_else(|error| {
        failed(&story(&error));
        ExitCode::from(2)
    })
}

/// Says why it failed, unless nobody reads that.
fn failed(why: &str) {
    match terminal::errors() {
        Ok(err) => {
            err.offer(terminal::error(why));
            let _ = err.flush(process::LAST_LOGS);
        }
        Err(_) => anstream::eprint!("{}", terminal::error(why)),
    }
}

/// An error and what caused it, each once: many tell their cause themselves.
fn story(error: &anyhow::Error) -> String {
    let mut story = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if !story.ends_with(&cause) {
            story = if story.is_empty() { cause } else { format!("{story}: {cause}") };
        }
    }
    story
}

fn run(command: Command) -> Outcome {
    if command.only_prints() {
        terminal::end_with_the_reader();
    }
    match command {
        Command::Demo(arguments) => demo::run(arguments),
        Command::Up(arguments) => up::run(arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Apply(arguments) => apply::run(&arguments),
        Command::Diff(arguments) => diff::run(&arguments),
        Command::History(arguments) => history::run(&arguments),
        Command::Rollback(arguments) => rollback::run(&arguments),
        Command::ControlPlane(arguments) => roles::control_plane::run(arguments),
        Command::Broker(arguments) => roles::broker::run(arguments),
        Command::Gateway(arguments) => roles::gateway::run(arguments),
        Command::Sidecar(arguments) => roles::sidecar::run(arguments),
        Command::Token(arguments) => token::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
    }
}

impl Command {
    /// Whether it says something and ends: nothing is lost when it ends earlier.
    fn only_prints(&self) -> bool {
        match self {
            Self::Check(_) | Self::Schema(_) | Self::Status(_) | Self::Diff(_) | Self::History(_) => true,
            Self::Token(_) | Self::Completions(_) => true,
            Self::Demo(_) | Self::Up(_) | Self::Apply(_) | Self::Rollback(_) => false,
            Self::ControlPlane(_) | Self::Broker(_) | Self::Gateway(_) | Self::Sidecar(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = || std::io::Error::other("the disk is full");
        let error = Err::<(), _>(cause()).context("cannot write").unwrap_err();
        assert_eq!(story(&error), "cannot write: the disk is full");
        let told = local::Error::Disk { path: "/data".into(), source: cause() };
        assert_eq!(story(&anyhow::Error::new(told).context("cannot start")), "cannot start: /data: the disk is full");
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_sidecar_takes_its_application_behind_two_dashes() {
        let line = "meshwork sidecar --mesh shop --control 127.0.0.1:1 --roots r --token-file t --instance orders-0 --data d \
                    --service orders --application-port 8102 -- shop orders --verbose";
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Sidecar(sidecar) = arguments.command else { panic!("not a sidecar") };
        assert_eq!(sidecar.command, ["shop", "orders", "--verbose"]);
    }

    #[test]
    fn a_role_without_its_mesh_is_told_what_is_missing() {
        let error = Arguments::try_parse_from(["meshwork", "gateway", "--gateway", "g"]).unwrap_err().to_string();
        assert!(error.contains("--mesh <NAME>") && error.contains("--control <HOST:PORT>"), "{error}");
    }
}
