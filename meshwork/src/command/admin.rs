//! Which control plane a command speaks to: the one of the mesh that `up` runs here, or one whose address is given.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use model::name::Name;

use super::{Outcome, data};
use crate::operator::{Error, Operator};
use crate::terminal::{self, BAD};
use crate::up::folder::CONTROL_PLANE;

/// Where the control plane is.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Control plane")]
#[group(skip)]
pub(super) struct Arguments {
    /// The mesh's folder, as given to `up`; when absent the mesh that runs out of the .meshwork beside the mesh file, or of the nearest
    #[arg(long, env = "MESHWORK_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// The admin API of a control plane that `up` has not started; it wins over --data
    #[arg(long, env = "MESHWORK_ADMIN", value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

impl Arguments {
    /// The control plane of the mesh that runs here: beside the mesh file `file`, or in the nearest folder of meshes. Where several
    /// run there, that of `mesh`.
    pub(super) fn find(&self, file: Option<&Path>, mesh: Option<&Name>) -> anyhow::Result<Operator> {
        if let Some(address) = self.admin {
            return Ok(Operator::new(address));
        }
        let mut running = data::running(self.data.as_deref(), file.filter(|file| *file != Path::new("-")))?;
        if running.is_empty() && self.data.is_none() {
            running = data::running(None, None)?;
        }
        if let (true, Some(mesh)) = (running.len() > 1, mesh) {
            running.retain(|running| running.mesh == *mesh);
        }
        let running = match running.as_slice() {
            [] => bail!(
                "no mesh runs here; `--data` names the folder that was given to `meshwork up`, `--admin` the address of a control \
                 plane's admin API"
            ),
            [one] => one,
            [one, other, ..] => {
                bail!("more than one mesh runs here, {} and {}; `--data` says which", one.mesh, other.mesh)
            }
        };
        let control = running.instances.iter().find(|instance| instance.instance.as_str() == CONTROL_PLANE);
        let address = control.and_then(|control| control.addresses.get("admin"));
        let starting = || format!("the control plane of the mesh {} is not ready", running.mesh);
        Ok(Operator::new(*address.with_context(starting)?))
    }
}

/// Runs a command that asks a control plane. What that refuses is told here, and is the command's failure; anything else is trouble.
pub(super) fn ask(command: impl Future<Output = anyhow::Result<ExitCode>>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(command) {
        Err(error) if matches!(error.downcast_ref(), Some(Error::Moved { .. } | Error::Refused { .. })) => {
            anstream::eprintln!("{} {error:#}", terminal::paint(BAD, "error:"));
            Ok(ExitCode::FAILURE)
        }
        outcome => outcome,
    }
}
