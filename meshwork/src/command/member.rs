//! The arguments that every role but the control plane has: how it becomes a member of the mesh.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use control::client::TokenSource;
use model::identity::Subject;
use model::name::Name;
use storage::disk::{self, real::RealDisk};

use super::logging;
use crate::role::{Ground, deadline, member};

/// Longest file of roots or of a token, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How a role becomes a member.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Membership")]
#[group(skip)]
pub(crate) struct Arguments {
    /// The mesh, which is also the trust domain of its identities
    #[arg(long, env = "MESHWORK_MESH", value_name = "NAME")]
    mesh: Name,
    /// This instance's name, unique in the mesh
    #[arg(long, env = "MESHWORK_INSTANCE", value_name = "NAME")]
    instance: Name,
    /// Where the control plane is
    #[arg(long, env = "MESHWORK_CONTROL", value_name = "HOST:PORT", value_parser = host_and_port)]
    control: String,
    /// The mesh's roots in PEM; the control plane writes them to `roots.pem` in its folder
    #[arg(long, env = "MESHWORK_ROOTS", value_name = "FILE")]
    roots: PathBuf,
    /// The token that was made for this instance with `meshwork token`; read each time that it is needed: at the first start, and
    /// when the certificate could not be renewed
    #[arg(long, env = "MESHWORK_TOKEN_FILE", value_name = "FILE")]
    token_file: PathBuf,
    /// This instance's own folder: its identity and its last good configuration stay there
    #[arg(long, env = "MESHWORK_DATA", value_name = "DIR")]
    data: PathBuf,
    /// Where the mesh reaches this instance, when that is not where it listens: on all addresses, or behind an address translation
    #[arg(long, env = "MESHWORK_ADVERTISE", value_name = "ADDRESS")]
    advertise: Option<SocketAddr>,
    #[command(flatten)]
    process: Process,
}

/// What every role has that carries traffic.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Process")]
#[group(skip)]
struct Process {
    /// Write a JSON object with the addresses to this file once traffic can be carried
    #[arg(long, env = "MESHWORK_READY_FILE", value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Threads that carry traffic; as many as there are cores when absent
    #[arg(long, env = "MESHWORK_LANES", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    lanes: Option<u16>,
    /// How long this process may take to end before it is killed by whoever runs it: requests in progress, and a sidecar's
    /// application, are given a part of that
    #[arg(long, env = "MESHWORK_STOP_TIMEOUT", default_value = deadline::TIMEOUT, value_name = "TIME", value_parser = model::unit::duration)]
    stop_timeout: Duration,
    /// One JSON line for each request
    #[arg(long, env = "MESHWORK_ACCESS_LOG", value_enum, default_value = "off", value_name = "ON|OFF")]
    access_log: Switch,
    #[command(flatten)]
    logging: logging::Arguments,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// Yes
    On,
    /// No
    Off,
}

impl Arguments {
    /// Starts to log, and says on what the role stands.
    pub(crate) fn ground(&self) -> anyhow::Result<Ground> {
        self.process.logging.start()?;
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Ground::machine(self.process.lanes.map_or_else(cores, usize::from)))
    }

    /// Reads the files that the arguments name.
    pub(crate) fn options(self, subject: Subject, subset: Option<Name>) -> anyhow::Result<member::Options> {
        Ok(member::Options {
            mesh: self.mesh,
            subject,
            instance: self.instance,
            subset,
            advertise: self.advertise,
            control: self.control,
            roots_pem: roots(&self.roots)?,
            token: token(self.token_file),
            data: self.data,
            ready_file: self.process.ready_file,
            access_log: self.process.access_log == Switch::On,
            stop_timeout: self.process.stop_timeout,
        })
    }
}

fn host_and_port(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("a host and a port belong here, such as 127.0.0.1:15010")?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err("a host and a port belong here, such as 127.0.0.1:15010".to_owned());
    }
    Ok(text.to_owned())
}

/// The mesh's roots; one that could not be used would be told much later, and as the fault of the control plane.
fn roots(path: &std::path::Path) -> anyhow::Result<String> {
    let pem = read("the mesh's roots", path)?;
    runtime::tls::external_roots(pem.as_bytes())
        .with_context(|| format!("{} holds no usable roots", path.display()))?;
    Ok(pem)
}

/// The token's file is read whenever a token is shown: whoever makes tokens replaces it before the one in it ends. A role whose
/// certificate holds needs none.
fn token(path: PathBuf) -> TokenSource {
    TokenSource::new(move || {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let bytes = disk::read_whole(&RealDisk, &path, FILE_BYTES_MAX).map_err(named)?;
        String::from_utf8(bytes).map_err(|_| named(io::ErrorKind::InvalidData.into()))
    })
}

fn read(what: &str, path: &std::path::Path) -> anyhow::Result<String> {
    let odd = || format!("cannot read {what} from {}", path.display());
    let bytes = disk::read_whole(&RealDisk, path, FILE_BYTES_MAX).with_context(odd)?;
    String::from_utf8(bytes).with_context(odd)
}
