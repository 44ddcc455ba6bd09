//! `meshwork diff`: what a mesh file, or an earlier revision, would change.

use std::path::PathBuf;
use std::process::ExitCode;

use model::config::{Config, changes};
use serde_json::json;

use super::mesh_file::MeshFile;
use super::{Format, Outcome, admin, changes as shown};
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  meshwork diff mesh.yaml
  meshwork diff --revision 3             what `meshwork rollback 3` would change
  meshwork diff mesh.yaml --revision 3   what the file changes since revision 3

Exit code: 0 when nothing differs, 1 when something does, 2 when the file has mistakes or there is no control plane.";

/// Show what a mesh file would change in a running mesh, by the keys of the file
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The mesh file, a folder of them, or - for standard input
    #[arg(required_unless_present = "revision")]
    file: Option<PathBuf>,
    /// A kept revision: with a file what that is compared with, in place of the one in force; without one what is compared
    #[arg(long, value_name = "NUMBER")]
    revision: Option<u64>,
    /// Lines for people, or one JSON object
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    format: Format,
    #[command(flatten)]
    admin: admin::Arguments,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let file = match arguments.file.as_deref().map(MeshFile::read).transpose()? {
        None => None,
        Some(file) => match file.check() {
            Ok(checked) => Some(checked.config),
            Err(findings) => {
                anstream::eprint!("{}", file.render(&findings, terminal::colours_err()));
                return Ok(ExitCode::from(2));
            }
        },
    };
    let operator = arguments.admin.find(arguments.file.as_deref(), file.as_ref().map(|config| &config.mesh))?;
    admin::ask(async {
        let kept = match arguments.revision {
            Some(number) => Some(operator.revision(number).await?),
            None => None,
        };
        let (from, old, new) = match (kept, file) {
            (Some(kept), Some(file)) => (kept.revision, kept.config, file),
            (kept, file) => {
                let in_force = operator.in_force().await?;
                let new = file.or(kept.map(|kept| kept.config)).unwrap_or_else(|| in_force.config.clone());
                (in_force.revision, in_force.config, new)
            }
        };
        Ok(show(arguments.format, from, &old, &new))
    })
}

fn show(format: Format, from: u64, old: &Config, new: &Config) -> ExitCode {
    let changes = changes(old, new);
    match format {
        Format::Json => println!("{}", json!({"from": from, "changes": changes})),
        Format::Text if changes.is_empty() => anstream::println!("nothing differs from revision {from}"),
        Format::Text => {
            anstream::println!("changes of revision {from}:\n{}", shown::lines(&changes).join("\n"));
        }
    }
    if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
