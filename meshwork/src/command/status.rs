//! `meshwork status`: what `up` runs on this machine, and whether it does its work.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use futures_util::future::join_all;
use serde::Serialize;
use serde_json::json;
use storage::disk::{Disk as _, real::RealDisk};

use super::{Format, Outcome};
use crate::terminal;
use crate::up::folder::{self, Running, RunningInstance};
use crate::up::health;
use crate::up::show::{self, Row};

const EXAMPLES: &str = "\
Examples:
  meshwork status
  meshwork status --data /var/lib/shop
  meshwork status --format json | jq '.[].instances[] | {instance, state, failure}'

Exit code: 0 when something runs, 1 when nothing does.";

/// Show what `meshwork up` runs here: each instance, its state and where it listens
///
/// An instance that runs but says that it cannot do its work, such as one whose certificate has ended, is `failing`, with the reason.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The mesh's folder, as given to `up`; all of .meshwork when absent
    #[arg(long, env = "MESHWORK_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// A table, or one JSON array
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let folders = match &arguments.data {
        Some(folder) => vec![folder.clone()],
        None => {
            let all = Path::new(".meshwork");
            RealDisk.list(all).unwrap_or_default().iter().map(|name| all.join(name)).collect()
        }
    };
    let running = folders.iter().filter_map(|folder| folder::running(folder));
    let running: Vec<Shown> =
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(join_all(running.map(Shown::of)));
    match arguments.format {
        Format::Json => println!("{}", json!(running)),
        Format::Text if running.is_empty() => println!("nothing runs here"),
        Format::Text => running.iter().for_each(show),
    }
    Ok(if running.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What runs out of one folder, with what each of it says of itself.
#[derive(Debug, Serialize)]
struct Shown {
    pid: u32,
    mesh: model::name::Name,
    instances: Vec<ShownInstance>,
}

#[derive(Debug, Serialize)]
struct ShownInstance {
    #[serde(flatten)]
    running: RunningInstance,
    /// Why it does not do its work although it was ready.
    failure: Option<String>,
}

impl Shown {
    async fn of(running: Running) -> Self {
        let Running { pid, mesh, instances } = running;
        Self { pid, mesh, instances: join_all(instances.into_iter().map(ShownInstance::of)).await }
    }
}

impl ShownInstance {
    async fn of(mut running: RunningInstance) -> Self {
        let failure = match running.state.as_str() {
            "ready" => health::failure(&running.addresses).await,
            _ => None,
        };
        if failure.is_some() {
            "failing".clone_into(&mut running.state);
        }
        Self { running, failure }
    }
}

fn show(shown: &Shown) {
    let name = terminal::paint(terminal::STRONG, shown.mesh.as_str());
    anstream::println!("mesh {name}, process {}", shown.pid);
    let rows = shown.instances.iter().map(|ShownInstance { running, .. }| Row {
        service: running.service.clone(),
        instance: running.instance.to_string(),
        state: running.state.clone(),
        address: show::address(&running.addresses),
    });
    anstream::println!("{}", show::rows_table(rows, terminal::colours_out()));
    for ShownInstance { running, failure } in &shown.instances {
        if let Some(why) = failure {
            anstream::println!("{}: {why}", terminal::paint(terminal::BAD, running.instance.as_str()));
        }
    }
}
