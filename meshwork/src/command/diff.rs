//! `meshwork diff`: what a mesh file, or an earlier revision, would change.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;

use super::mesh_file::MeshFile;
use super::{Format, Outcome, admin, changes as shown};
use crate::operator::Preview;
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  meshwork diff mesh.yaml
  meshwork diff --revision 3    what `meshwork rollback 3` would change

Exit code: 0 when nothing differs, 1 when something does, 2 when the file has mistakes or there is no control plane.";

/// Show what a mesh file would change in a running mesh, by the keys of the file
///
/// What applications are given in their environment is often a password, so of `env` only the names are shown.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The mesh file, a folder of them, or - for standard input
    #[arg(required_unless_present = "revision")]
    file: Option<PathBuf>,
    /// A kept revision in place of a file
    #[arg(long, value_name = "NUMBER", conflicts_with = "file")]
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
            Ok(checked) => Some((file.publication("diff"), checked.config.mesh)),
            Err(findings) => {
                anstream::eprint!("{}", file.render(&findings, terminal::colours_err()));
                return Ok(ExitCode::from(2));
            }
        },
    };
    let operator = arguments.admin.find(arguments.file.as_deref(), file.as_ref().map(|(_, mesh)| mesh))?;
    admin::ask(async {
        let preview = match (&file, arguments.revision) {
            (Some((publication, _)), _) => operator.preview(publication).await?,
            (None, Some(number)) => operator.preview_rollback(number).await?,
            (None, None) => bail!("neither a mesh file nor a revision is named"),
        };
        Ok(show(arguments.format, &preview))
    })
}

fn show(format: Format, Preview { from, changes }: &Preview) -> ExitCode {
    match format {
        Format::Json => println!("{}", json!({"from": from, "changes": changes})),
        Format::Text if changes.is_empty() => anstream::println!("nothing differs from revision {from}"),
        Format::Text => {
            anstream::println!("changes of revision {from}:\n{}", shown::lines(changes).join("\n"));
        }
    }
    if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
