//! `meshwork status`: what `up` runs on this machine.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{Format, Outcome, admin};
use crate::terminal;
use crate::up::folder::Running;
use crate::up::show::{self, Row};

const EXAMPLES: &str = "\
Examples:
  meshwork status
  meshwork status --data /var/lib/shop
  meshwork status --format json | jq '.[].instances[] | {instance, state}'

Exit code: 0 when something runs, 1 when nothing does.";

/// Show what `meshwork up` runs here: each instance, its state and where it listens
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
    let running = admin::running(arguments.data.as_deref());
    match arguments.format {
        Format::Json => println!("{}", json!(running)),
        Format::Text if running.is_empty() => println!("nothing runs here"),
        Format::Text => running.iter().for_each(show),
    }
    Ok(if running.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn show(running: &Running) {
    let name = terminal::paint(terminal::STRONG, running.mesh.as_str());
    anstream::println!("mesh {name}, process {}", running.pid);
    let rows = running.instances.iter().map(|instance| Row {
        service: instance.service.clone(),
        instance: instance.instance.to_string(),
        state: instance.state.clone(),
        address: show::address(&instance.addresses),
    });
    anstream::println!("{}", show::rows_table(rows, terminal::colours_out()));
}
