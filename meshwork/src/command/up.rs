//! `meshwork up`: runs a mesh file on this machine.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use model::config::Config;
use runtime::drain::Drain;
use tokio::sync::mpsc;

use super::mesh_file::MeshFile;
use super::{Format, Outcome, process};
use crate::role::deadline;
use crate::terminal::{self, BAD, STRONG};
use crate::up::show::{self, Prefixes};
use crate::up::{self, Event, Mesh};

/// Events that wait to be written.
const EVENTS_MAX: usize = 1_024;

const EXAMPLES: &str = "\
Examples:
  meshwork up mesh.yaml
  meshwork up mesh.yaml --data /var/lib/shop --log-level info
  meshwork up mesh.yaml --format json | jq -c 'select(.event == \"state\")'

Ctrl-C ends the mesh in the order that loses nothing: gateways, applications, broker, control plane. A second one ends it at once.
Exit code:
  0    it was told to end
  1    the mesh file has mistakes, the folder or a port is in use, a program is not there, or an application does not come up
  2    the mesh file cannot be read
  130  it was told to end twice";

/// Run a mesh on this machine: every role, and every application's command, as separate processes
///
/// Services are started in the order of the declared graph, callees first, each when those before it are well. What ends by itself
/// is started again. An application is told its port in PORT and where the mesh is in MESHWORK_PROXY and HTTP_PROXY.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The mesh file, or a folder of them
    file: PathBuf,
    /// The mesh's folder: identities, messages, logs of the broker [default: .meshwork/MESH]
    #[arg(long, env = "MESHWORK_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// How long an application may take to be well
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = model::unit::duration)]
    start_timeout: Duration,
    /// How long a process may take to end before it is killed
    #[arg(long, default_value = deadline::TIMEOUT, value_name = "TIME", value_parser = model::unit::duration)]
    stop_timeout: Duration,
    /// Threads that carry traffic, of each role
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    lanes: u16,
    /// What Meshwork's own processes log
    #[arg(long, env = "MESHWORK_LOG_LEVEL", default_value = "warn", value_name = "LEVEL", help_heading = "Output")]
    log_level: String,
    /// One JSON line for each request, of each role
    #[arg(long, help_heading = "Output")]
    access_log: bool,
    /// Lines for people, or one JSON object for each event
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    format: Format,
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    let file = MeshFile::read(&arguments.file)?;
    let config = match file.check() {
        Ok(checked) => {
            anstream::eprint!("{}", file.render(&checked.warnings, terminal::colours_err()));
            checked.config
        }
        Err(findings) => {
            anstream::eprint!("{}", file.render(&findings, terminal::colours_err()));
            return Ok(ExitCode::FAILURE);
        }
    };
    runtime::log::start(runtime::log::Format::Text, &arguments.log_level)?;
    let format = arguments.format;
    let options = options(arguments, config)?;
    process::block_on(|stop| async move { Ok(until_told(options, format, stop).await) })
}

fn options(arguments: Arguments, config: Config) -> anyhow::Result<up::Options> {
    if arguments.file == Path::new("-") {
        bail!("`up` needs the mesh file as a file: the control plane reads it again when it is started again");
    }
    let file = std::path::absolute(&arguments.file)?;
    let own = if file.is_dir() { Some(file.as_path()) } else { file.parent() };
    let program = std::env::current_exe().context("this program has no file")?;
    let beside = program.parent().map(Path::to_owned);
    let data = arguments.data.unwrap_or_else(|| Path::new(".meshwork").join(config.mesh.as_str()));
    Ok(up::Options {
        folders: own.map(Path::to_owned).into_iter().chain(beside).collect(),
        file,
        data,
        program,
        config,
        listen: std::collections::BTreeMap::new(),
        port_flag: None,
        log_level: arguments.log_level,
        access_log: arguments.access_log,
        lanes: arguments.lanes,
        come_up: arguments.start_timeout,
        stop: arguments.stop_timeout,
    })
}

/// Starts the mesh, keeps it until `stop`, and ends it; whatever went wrong is told here.
async fn until_told(options: up::Options, format: Format, stop: Drain) -> ExitCode {
    up::leftover::adopt();
    let (events, listener) = mpsc::channel(EVENTS_MAX);
    let mesh = match Mesh::prepare(options, events) {
        Ok(mesh) => mesh,
        Err(error) => return failed(&error),
    };
    let names: Vec<_> = mesh.reports().into_iter().map(|report| report.instance).collect();
    let mut writer = tokio::spawn(write(listener, Prefixes::new(&names), format));
    let outcome = tokio::select! {
        outcome = keep(&mesh, format) => outcome,
        () = stop.requested() => Ok(()),
        // Whoever read the lines has gone, as in `meshwork up mesh.yaml | head`.
        _ = &mut writer => Ok(()),
    };
    mesh.stop().await;
    drop(mesh);
    // The writer ends when the last of the instances has let go of its events, unless it has already.
    if !writer.is_finished() {
        let _ = writer.await;
    }
    let left = up::leftover::end();
    if left > 0 {
        tracing::warn!(left, "applications left processes behind; they were killed");
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Starts the mesh and keeps what is written down of it up to date. It ends only when the mesh does not come up.
async fn keep(mesh: &Mesh, format: Format) -> Result<(), up::Error> {
    mesh.start().await?;
    if format == Format::Text {
        let table = show::table(&mesh.reports(), terminal::colours_out());
        let runs = terminal::paint(STRONG, "The mesh runs.");
        // That nobody reads it, the writer of the events finds out too.
        let _ = terminal::say(&format!("\n{table}\n{runs} Ctrl-C ends it.\n"));
    }
    mesh.follow().await;
    Ok(())
}

/// Writes the events, as long as someone reads them.
async fn write(mut events: mpsc::Receiver<Event>, prefixes: Prefixes, format: Format) {
    while let Some(event) = events.recv().await {
        let line = match format {
            Format::Text => prefixes.event(&event),
            Format::Json => serde_json::to_string(&event).ok(),
        };
        if line.is_some_and(|line| terminal::say(&line).is_err()) {
            return;
        }
    }
}

fn failed(error: &up::Error) -> ExitCode {
    for (index, line) in error.to_string().lines().enumerate() {
        match index {
            0 => anstream::eprintln!("{} {line}", terminal::paint(BAD, "error:")),
            _ => anstream::eprintln!("       {line}"),
        }
    }
    ExitCode::FAILURE
}
