//! `meshwork check`: proves a mesh file before anything runs.

use std::path::PathBuf;
use std::process::ExitCode;

use model::config::{Checked, Config, Finding, Place};
use serde_json::json;

use super::mesh_file::MeshFile;
use super::{Format, Outcome};
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  meshwork check mesh.yaml
  meshwork check mesh/                   all *.yaml of a folder, as one mesh
  cat mesh.yaml | meshwork check -
  meshwork check mesh.yaml --format json | jq '.findings[].message'

Exit code: 0 when the mesh can run (there may be warnings), 1 when it cannot, 2 when the file cannot be read.";

/// Find every mistake of a mesh file, each with its place and what was perhaps meant
///
/// Nothing is started, and nothing is touched but the file and the certificates that it names.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The mesh file, a folder of them, or - for standard input
    file: PathBuf,
    /// How the findings are written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Fail on warnings too
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let file = MeshFile::read(&arguments.file)?;
    let outcome = file.check();
    let findings: &[Finding] = match &outcome {
        Ok(checked) => &checked.warnings,
        Err(findings) => findings,
    };
    let good = outcome.is_ok() && (findings.is_empty() || !arguments.strict);
    match arguments.format {
        Format::Text => {
            anstream::print!("{}", file.render(findings, terminal::colours_out()));
            if let (true, Ok(checked)) = (good, &outcome) {
                anstream::println!("{}", summary(checked));
            }
        }
        Format::Json => {
            let mesh = outcome.as_ref().ok().map(|checked| checked.config.mesh.as_str());
            println!("{}", json!({"good": good, "mesh": mesh, "findings": findings}));
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One line that says what was proven.
fn summary(checked: &Checked) -> String {
    let config = &checked.config;
    let parts = [
        count(config.services.len(), "service"),
        count(instances(config), "instance"),
        count(config.gateways.len(), "gateway"),
        count(config.queues.len(), "queue"),
        count(config.topics.len(), "topic"),
    ];
    let verdict = terminal::paint(terminal::GOOD, "good");
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let parts = if parts.is_empty() { "it declares nothing yet".to_owned() } else { parts.join(", ") };
    format!("{verdict}: the mesh `{}` can run: {parts}", config.mesh)
}

fn instances(config: &Config) -> usize {
    let groups = config.services.values().filter_map(|service| match &service.place {
        Place::Mesh(workload) => Some(&workload.groups),
        Place::External(_) => None,
    });
    groups.flatten().map(|group| usize::from(group.instances)).sum()
}

fn count(number: usize, word: &str) -> Option<String> {
    match number {
        0 => None,
        1 => Some(format!("1 {word}")),
        more => Some(format!("{more} {word}s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_what_there_is() {
        let text = "mesh: shop\nservices:\n  a: {protocol: http, instances: 2, command: run}\n";
        let checked = MeshFile::of("mesh.yaml", text).check().unwrap();
        let line = anstream::adapter::strip_str(&summary(&checked)).to_string();
        assert_eq!(line, "good: the mesh `shop` can run: 1 service, 2 instances");
    }
}
