//! `meshwork apply`: publishes a mesh file to the control plane of a running mesh.

use std::path::PathBuf;
use std::process::ExitCode;

use super::mesh_file::MeshFile;
use super::{Outcome, admin, publish};
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  meshwork apply mesh.yaml
  meshwork apply mesh.yaml --data /var/lib/shop --timeout 2m
  meshwork apply mesh.yaml --admin 127.0.0.1:15011 --no-wait

What would change is shown by `meshwork diff`; `meshwork rollback` takes it back. `meshwork up` applies its own file when that changes.
Exit code:
  0  every role runs on it, or nothing differs
  1  the file has mistakes, somebody has changed the mesh meanwhile, or a role rejected it or has not taken it up in time
  2  the file cannot be read, or there is no control plane";

/// Publish a mesh file: it is checked, what changes is shown, and it counts whole or not at all
///
/// It replaces the revision that it was compared with, and no other: when somebody else has published meanwhile, it is refused.
/// Where `meshwork up` runs the mesh, processes are started, replaced and stopped to fit.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The mesh file, a folder of them, or - for standard input
    file: PathBuf,
    #[command(flatten)]
    publish: publish::Arguments,
    #[command(flatten)]
    admin: admin::Arguments,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
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
    let operator = arguments.admin.find(Some(&arguments.file), Some(&config.mesh))?;
    let publication = file.publication(&format!("apply {}", arguments.file.display()));
    admin::ask(async {
        let preview = operator.preview(&publication).await?;
        let publish = async |from| operator.publish(&publication, from).await;
        publish::publish(&arguments.publish, &operator, preview, publish).await
    })
}
