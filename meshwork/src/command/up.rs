//! `meshwork up`: runs a mesh file on this machine.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use control::Revisions;
use model::config::Config;
use model::name::Name;
use runtime::drain::Drain;
use runtime::output::Output;
use storage::disk::real::RealDisk;

use super::mesh_file::MeshFile;
use super::process::{self, HangUps};
use super::{Format, Outcome, data, roles};
use crate::role::deadline;
use crate::terminal::{self, PENDING, STRONG};
use crate::up::event::Listener;
use crate::up::folder::CONTROL_PLANE;
use crate::up::show::{self, Prefixes};
use crate::up::{self, Beginning, Follow, Mesh, Watch};

/// What is said where a revision that came after the file wins over it.
const FILE_DIFFERS: &str = "\
the mesh file has not changed since it was applied, and something else was published after that: the last revision stays in force
(`meshwork diff FILE` shows what differs, `meshwork apply FILE` puts the file in force again)";
/// How long the last lines may take to be read at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  meshwork up mesh.yaml
  meshwork up mesh.yaml --data /var/lib/shop --log-level info
  meshwork up mesh.yaml --format json | jq -c 'select(.event == \"state\")'

Ctrl-C or SIGTERM ends the mesh in the order that loses nothing: gateways, applications, broker, control plane. A second one ends it
at once. It ends too when its terminal is closed (unless started with nohup), or when whoever reads its lines has gone.
The mesh file is watched: what `meshwork check` accepts is applied, and processes are started, replaced and stopped to fit; a file with
mistakes changes nothing. SIGHUP applies the file as it stands. Whoever uses `meshwork apply` or `rollback` is followed in the same way.
Exit code:
  0    it was told to end, and everything ran
  1    the mesh file has mistakes and there is no earlier revision, the folder or a port is in use, a program is not there, an application does not come up, or
       something did not run any more when it was told to end
  2    the mesh file cannot be read
  130  it was told to end twice";

/// Run a mesh on this machine: every role, and every application's command, as separate processes
///
/// Services are started in the order of the declared graph, callees first, each when those before it are well. What ends by itself
/// is started again, after a pause that grows to 30 s. An application is told its port in PORT and where the mesh is in MESHWORK_PROXY
/// and HTTP_PROXY. Each process keeps its ports, also in the next run.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The mesh file, or a folder of them
    file: PathBuf,
    /// The mesh's folder: identities, messages, logs of the broker [default: .meshwork/MESH beside the mesh file]
    #[arg(long, env = "MESHWORK_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// How long an application may take to be well
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = model::unit::duration)]
    start_timeout: Duration,
    /// How long a process may take to end before it is killed
    #[arg(long, default_value = deadline::TIMEOUT, value_name = "TIME", value_parser = model::unit::duration)]
    stop_timeout: Duration,
    /// How long certificates hold; each is renewed at half of that
    #[arg(long, env = "MESHWORK_CERTIFICATE_LIFE", default_value = roles::CERTIFICATE_LIFE, value_name = "TIME", value_parser = model::unit::duration)]
    certificate_life: Duration,
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
    if arguments.file == Path::new("-") {
        bail!("`up` needs the mesh file as a file: it watches it, and the control plane may read it again");
    }
    let file = MeshFile::read(&arguments.file)?;
    let found = match file.check() {
        Ok(checked) => {
            anstream::eprint!("{}", file.render(&checked.warnings, terminal::colours_err()));
            Some(checked.config)
        }
        Err(findings) => {
            anstream::eprint!("{}", file.render(&findings, terminal::colours_err()));
            None
        }
    };
    runtime::log::start(runtime::log::Format::Text, &arguments.log_level)?;
    let format = arguments.format;
    let (out, err) = (terminal::output(format)?, terminal::errors()?);
    let mesh_file = std::path::absolute(&arguments.file)?;
    let mesh = found.as_ref().map(|config| config.mesh.clone()).or(file.mesh_name());
    let Some(data) = folder(arguments.data.as_deref(), &mesh_file, mesh)? else { return Ok(ExitCode::FAILURE) };
    let Some(beginning) = begin(&data, found)? else { return Ok(ExitCode::FAILURE) };
    let watch = Watch::new(arguments.file.clone(), &file);
    let named = arguments.data.is_some();
    let options = options(arguments, mesh_file, data, beginning.config.clone())?;
    err.offer(where_it_is(&options, named, &std::env::current_dir()?));
    let (out, err) = (&out, &err);
    let told = |stop, hang_ups| async move {
        let run = Run { beginning, watch, format, out, err };
        Ok(run.until_told(options, stop, hang_ups).await)
    };
    let code = process::block_on_reloading(told)?;
    // Whoever does not read by then will not.
    let _ = out.flush(LAST_LINES) && err.flush(LAST_LINES);
    Ok(code)
}

/// The mesh's folder; `None` when nobody says whose.
fn folder(named: Option<&Path>, file: &Path, mesh: Option<Name>) -> anyhow::Result<Option<PathBuf>> {
    Ok(match (named, mesh) {
        (Some(data), _) => Some(std::path::absolute(data)?),
        (None, Some(mesh)) => Some(data::beside(file)?.join(mesh.as_str())),
        (None, None) => None,
    })
}

/// What the mesh begins with; `None` when there is nothing.
fn begin(data: &Path, file: Option<Config>) -> anyhow::Result<Option<Beginning>> {
    let control = data.join(CONTROL_PLANE);
    let kept = Revisions::of(Arc::new(RealDisk), &control)
        .kept()
        .with_context(|| format!("cannot read the revisions in {}", control.display()))?;
    let has_mistakes = file.is_none();
    let beginning = Beginning::choose(file, kept, up::folder::taken(data).as_ref());
    if let (Some(_), true) = (&beginning, has_mistakes) {
        tracing::warn!("the mesh file has mistakes; the mesh is started as its last revision says");
    }
    Ok(beginning)
}

fn options(arguments: Arguments, file: PathBuf, data: PathBuf, config: Config) -> anyhow::Result<up::Options> {
    let own = if file.is_dir() { Some(file.as_path()) } else { file.parent() };
    let program = std::env::current_exe().context("this program has no file")?;
    let beside = program.parent().map(Path::to_owned);
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
        certificate_life: arguments.certificate_life,
        stop: arguments.stop_timeout,
    })
}

/// Where the mesh's data is, and what may surprise about that: nobody starts with an empty broker without a word.
fn where_it_is(options: &up::Options, named: bool, called_in: &Path) -> String {
    let (mesh, data) = (&options.config.mesh, options.data.display());
    if data::has_mesh(&options.data) {
        return format!("mesh {mesh}: data in {data}\n");
    }
    let mut text = format!("mesh {mesh}: data in {data}, which is new\n");
    if let Some(former) = data::former(called_in, mesh, &options.data).filter(|_| !named) {
        let former = former.display();
        let warning = terminal::paint(PENDING, "warning:");
        text.push_str(&format!(
            "{warning} an earlier version left this mesh's data in {former}, where it was called; \
             `--data {former}` goes on with it\n"
        ));
    }
    text
}

/// A run of a mesh, and how it is told.
struct Run<'a> {
    beginning: Beginning,
    watch: Watch,
    format: Format,
    out: &'a Output,
    err: &'a Output,
}

impl Run<'_> {
    /// Starts the mesh, keeps it until `stop`, and ends it; whatever went wrong is told here.
    async fn until_told(self, options: up::Options, stop: Drain, hang_ups: HangUps) -> ExitCode {
        up::leftover::adopt();
        let (events, listener) = up::event::channel();
        let (out, err, format) = (self.out, self.err, self.format);
        let mesh = match Mesh::prepare(options, events) {
            Ok(mesh) => mesh,
            Err(error) => {
                err.offer(terminal::error(&error.to_string()));
                return ExitCode::FAILURE;
            }
        };
        let names: Vec<_> = mesh.reports().into_iter().map(|report| report.instance).collect();
        let writer = tokio::spawn(write(listener, Prefixes::new(&names), format, out.clone()));
        let outcome = tokio::select! {
            outcome = self.keep(&mesh, hang_ups) => outcome,
            () = stop.requested() => Ok(()),
            // Whoever read the lines has gone, as in `meshwork up mesh.yaml | head`.
            () = out.gone() => Ok(()),
        };
        let failures = mesh.stop().await;
        drop(mesh);
        // The writer ends when the last of the instances has let go of its events and all of them are on their way.
        let _ = tokio::time::timeout(LAST_LINES, writer).await;
        let left = up::leftover::end();
        if left > 0 {
            tracing::warn!(left, "applications left processes behind; they were killed");
        }
        let failed = match outcome {
            Ok(()) => not_running(&failures),
            Err(error) => Some(error.to_string()),
        };
        match failed {
            None => ExitCode::SUCCESS,
            Some(why) => {
                err.offer(terminal::error(&why));
                ExitCode::FAILURE
            }
        }
    }

    /// Starts the mesh, and keeps it as its file and the revision in force say. It ends only when the mesh does not come up.
    async fn keep(self, mesh: &Mesh, hang_ups: HangUps) -> Result<(), up::Error> {
        let Self { beginning, watch, format, out, .. } = self;
        let operator = mesh.operator()?;
        let file = (watch.publication(), &beginning.config);
        up::start(mesh, &operator, Some(file).filter(|_| beginning.from_file)).await?;
        let say = async {
            if format == Format::Text {
                let table = show::table(&mesh.reports(), terminal::colours_out());
                let runs = terminal::paint(STRONG, "The mesh runs.");
                let hint = "A change of its file is applied. Ctrl-C ends it.";
                out.write(format!("\n{table}\n{runs} {hint}\n\n")).await;
            }
            if beginning.file_differs {
                mesh.says(FILE_DIFFERS);
            }
        };
        let follow = Follow::new(mesh, &operator);
        tokio::join!(say, mesh.follow(), watch.run(mesh, &operator, hang_ups), follow.run());
        Ok(())
    }
}

/// What is said at the end of what did not run.
fn not_running(failures: &[(Name, String)]) -> Option<String> {
    let line =
        |(instance, why): &(Name, String)| format!("`{instance}` did not run when the mesh was told to end: {why}");
    (!failures.is_empty()).then(|| failures.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Writes the events, as long as someone reads them.
async fn write(mut events: Listener, prefixes: Prefixes, format: Format, out: Output) {
    while let Some(event) = events.recv().await {
        let line = match format {
            Format::Text => prefixes.event(&event),
            Format::Json => serde_json::to_string(&event).ok(),
        };
        if let Some(line) = line {
            out.write(format!("{line}\n")).await;
        }
    }
}
