//! `meshwork sidecar`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use model::config::Health;
use model::identity::Subject;
use model::name::Name;

use crate::command::{Outcome, member, process};
use crate::role::{application, sidecar};
use crate::up::ports;

const EXAMPLES: &str = "\
Example:
  meshwork sidecar --mesh shop --instance orders-0 --service orders --control 127.0.0.1:15010 \\
    --roots roots.pem --token-file orders-0.token --data data/orders-0 \\
    --application-port 8102 --health-path /healthz -- shop orders

The application is told its port in PORT and its sidecar in MESHWORK_PROXY and HTTP_PROXY. It is started only when the sidecar can
carry its traffic. On SIGTERM the sidecar serves on until its callers know that it ends, finishes what is in progress, ends the
application, and goes when that is done.

Exit code: the application's (128 and the signal's number when a signal ended it), or 2 when the sidecar cannot start.";

/// Run the sidecar of one instance of a service, and its application
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::command) struct Arguments {
    /// Which service of the mesh file it stands beside
    #[arg(long, env = "MESHWORK_SERVICE", value_name = "NAME")]
    service: Name,
    /// Which subset of the service this instance belongs to
    #[arg(long, env = "MESHWORK_SUBSET", value_name = "NAME")]
    subset: Option<Name>,
    /// Where the application listens on loopback; 0 picks a free port
    #[arg(long, env = "MESHWORK_APPLICATION_PORT", default_value_t = 0, value_name = "PORT")]
    application_port: u16,
    /// Where the application reaches the mesh, on loopback
    #[arg(long, env = "MESHWORK_OUTBOUND", default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    outbound: SocketAddr,
    /// Where the mesh reaches the application
    #[arg(long, env = "MESHWORK_INBOUND", default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    inbound: SocketAddr,
    #[command(flatten)]
    health: HealthArguments,
    #[command(flatten)]
    member: member::Arguments,
    /// The application and its arguments; without one, something else runs it
    #[arg(last = true, value_name = "COMMAND")]
    pub(in crate::command) command: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Health")]
#[group(skip)]
struct HealthArguments {
    /// A GET of this path must answer 2xx; without one, the port must accept a connection
    #[arg(long, env = "MESHWORK_HEALTH_PATH", value_name = "PATH")]
    health_path: Option<String>,
    /// From one question to the next
    #[arg(long, env = "MESHWORK_HEALTH_INTERVAL", default_value = "1s", value_name = "TIME", value_parser = model::unit::duration)]
    health_interval: Duration,
    /// How long one answer may take
    #[arg(long, env = "MESHWORK_HEALTH_TIMEOUT", default_value = "1s", value_name = "TIME", value_parser = model::unit::duration)]
    health_timeout: Duration,
}

pub(in crate::command) fn run(arguments: Arguments) -> Outcome {
    let ground = arguments.member.ground()?;
    let member = arguments.member.options(Subject::Service(arguments.service), arguments.subset)?;
    let health = Health {
        path: arguments.health.health_path,
        interval: arguments.health.health_interval,
        timeout: arguments.health.health_timeout,
    };
    let words = arguments.command;
    let command = (!words.is_empty()).then(|| application::Command { words, env: BTreeMap::new(), folder: None });
    let code = process::block_on(async |stop| {
        let application_port = match arguments.application_port {
            0 => ports::free().context("no free port for the application")?,
            port => port,
        };
        let options = sidecar::Options {
            member,
            outbound: arguments.outbound,
            inbound: arguments.inbound,
            application_port,
            health,
            command,
        };
        sidecar::run(options, ground, stop).await
    })?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
