//! `meshwork control-plane`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use model::config::Config;
use model::name::Name;

use crate::command::mesh_file::MeshFile;
use crate::command::{Outcome, logging, process, token};
use crate::role::{Ground, control_plane};
use crate::terminal;

/// Run the control plane: it holds the configuration, makes identities, and tells each role its part
///
/// It carries no request and no message: with it gone, the mesh works on with what it has.
#[derive(Debug, clap::Args)]
pub(in crate::command) struct Arguments {
    /// The mesh file, or a folder of them, that an empty folder begins with; where revisions are kept, they win
    #[arg(long, env = "MESHWORK_FILE", value_name = "MESHFILE")]
    file: Option<PathBuf>,
    /// Where roles reach it
    #[arg(long, env = "MESHWORK_LISTEN", default_value = "127.0.0.1:15010", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where an operator reaches it: status, metrics, new mesh files; plain HTTP without a login, so on loopback
    #[arg(long, env = "MESHWORK_ADMIN", value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// What tokens are made and verified with; made when it is not there
    #[arg(long, env = "MESHWORK_TOKEN_SECRET", value_name = "FILE")]
    token_secret: PathBuf,
    /// How long a certificate holds; it is renewed well before
    #[arg(long, env = "MESHWORK_CERTIFICATE_LIFE", default_value = super::CERTIFICATE_LIFE, value_name = "TIME", value_parser = model::unit::duration)]
    certificate_life: Duration,
    /// Its own folder: revisions, the authority's key, `roots.pem`
    #[arg(long, env = "MESHWORK_DATA", value_name = "DIR")]
    data: PathBuf,
    /// The name under which it says that it is ready
    #[arg(long, env = "MESHWORK_INSTANCE", default_value = "control-plane", value_name = "NAME")]
    instance: Name,
    /// Write a JSON object with the addresses to this file once roles can come
    #[arg(long, env = "MESHWORK_READY_FILE", value_name = "FILE")]
    ready_file: Option<PathBuf>,
    #[command(flatten)]
    logging: logging::Arguments,
}

pub(in crate::command) fn run(arguments: Arguments) -> Outcome {
    arguments.logging.start()?;
    let options = control_plane::Options {
        file: arguments.file.as_deref().and_then(good),
        instance: arguments.instance,
        listen: arguments.listen,
        admin: arguments.admin,
        token_secret: token::secret(&arguments.token_secret)?,
        certificate_life: arguments.certificate_life,
        data: arguments.data,
        ready_file: arguments.ready_file,
    };
    // It carries no traffic, so it needs no lanes; `Ground` asks for one.
    let ground = Ground::machine(1);
    process::block_on(|stop| control_plane::run(options, ground, stop))?;
    Ok(ExitCode::SUCCESS)
}

/// The mesh file, where it is good. A bad one is no reason to end: what is kept does not need it.
fn good(path: &Path) -> Option<Config> {
    let file = match MeshFile::read(path) {
        Ok(file) => file,
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(error, "the mesh file cannot be read; a kept revision is used in its place");
            return None;
        }
    };
    match file.check() {
        Ok(checked) => Some(checked.config),
        Err(findings) => {
            anstream::eprint!("{}", file.render(&findings, terminal::colours_err()));
            let file = path.display().to_string();
            tracing::warn!(file, "the mesh file has mistakes; a kept revision is used in its place");
            None
        }
    }
}
