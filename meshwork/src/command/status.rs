//! `meshwork status`: what `up` runs on this machine, and whether it is well.

mod probe;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Format, Outcome, data};
use crate::terminal;
use crate::up::folder::{Running, RunningInstance};
use crate::up::{leftover, ports, show};
use probe::Verdict;

const EXAMPLES: &str = "\
Examples:
  meshwork status
  meshwork status mesh.yaml
  meshwork status --data /var/lib/shop
  meshwork status --format json | jq '.[].instances[] | {instance, state, failure}'

Each instance is asked, its application too, and the control plane whether it tells others of it. At the address under `status` a
role answers /healthz, /metrics and /v1/status (the control plane: /v1/mesh, /v1/registry and /v1/sidecars).

Exit code: 0 when something runs and all of it is ready, 1 when nothing runs or something is not ready.";

/// Show what `meshwork up` runs here: each instance, whether it is well, and where it listens
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The mesh file, as given to `up`; when absent, what runs in the nearest .meshwork of this folder and those above it
    file: Option<PathBuf>,
    /// The mesh's folder, as given to `up`
    #[arg(long, env = "MESHWORK_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// A table, or one JSON array
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A mesh that runs, and how each of its instances stands.
struct Seen {
    running: Running,
    /// A signal has stopped `up` itself.
    suspended: bool,
    verdicts: Vec<Verdict>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let running = data::running(arguments.data.as_deref(), arguments.file.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let mut seen = Vec::new();
    for running in running {
        let verdicts = runtime.block_on(probe::ask(&running));
        seen.push(Seen { suspended: leftover::is_stopped(running.pid), running, verdicts });
    }
    match arguments.format {
        Format::Json => println!("{}", Value::Array(seen.iter().map(Seen::json).collect())),
        Format::Text if seen.is_empty() => println!("nothing runs here"),
        Format::Text => seen.iter().for_each(Seen::show),
    }
    let well = !seen.is_empty() && seen.iter().all(Seen::is_ready);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Seen {
    fn is_ready(&self) -> bool {
        !self.suspended && self.verdicts.iter().all(|verdict| verdict.state == "ready")
    }

    fn instances(&self) -> impl Iterator<Item = (&RunningInstance, &Verdict)> {
        self.running.instances.iter().zip(&self.verdicts)
    }

    fn json(&self) -> Value {
        let instances = self.instances().map(|(instance, verdict)| {
            let mut value = json!(instance);
            value["state"] = json!(verdict.state);
            value["failure"] = json!(verdict.why);
            value["restarts"] = json!(instance.starts.saturating_sub(1));
            value["status"] = json!(status_address(instance).map(|address| format!("http://{address}")));
            value
        });
        let Running { pid, mesh, .. } = &self.running;
        let ready = self.is_ready();
        json!({"mesh": mesh, "pid": pid, "ready": ready, "suspended": self.suspended, "instances": instances.collect::<Value>()})
    }

    fn show(&self) {
        let name = terminal::paint(terminal::STRONG, self.running.mesh.as_str());
        anstream::println!("mesh {name}, process {}", self.running.pid);
        if self.suspended {
            let text = "a signal has stopped that process: nothing is started again until it is continued";
            anstream::println!("{}", terminal::paint(terminal::BAD, text));
        }
        let now_ms = runtime::clock::wall_ms();
        let rows = self.instances().map(|(instance, verdict)| {
            let status = status_address(instance).map(|address| format!("http://{address}")).unwrap_or_default();
            let cells = [
                instance.service.clone(),
                instance.instance.to_string(),
                verdict.state.clone(),
                age(now_ms.saturating_sub(instance.since_ms)),
                instance.starts.saturating_sub(1).to_string(),
                show::address(&instance.addresses),
                status,
            ];
            cells.to_vec()
        });
        let header = ["service", "instance", "state", "since", "restarts", "address", "status"];
        anstream::println!("{}", show::rows_table(&header, rows, terminal::colours_out()));
        for (instance, verdict) in self.instances() {
            if let Some(why) = &verdict.why {
                anstream::println!("{}: {why}", terminal::paint(terminal::BAD, instance.instance.as_str()));
            }
        }
    }
}

/// Where a role says how it is.
fn status_address(instance: &RunningInstance) -> Option<SocketAddr> {
    [ports::STATUS, ports::OUTBOUND, ports::ADMIN].iter().find_map(|purpose| instance.addresses.get(*purpose)).copied()
}

/// A time for people, in its two largest units.
fn age(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m {}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h {}m", s / 3_600, s / 60 % 60),
        _ => format!("{}d {}h", s / 86_400, s / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_two_units() {
        let ages = [(999, "0s"), (59_999, "59s"), (61_000, "1m 1s"), (3_660_000, "1h 1m"), (90_000_000, "1d 1h")];
        for (ms, text) in ages {
            assert_eq!(age(ms), text);
        }
    }
}
