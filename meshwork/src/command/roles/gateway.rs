//! `meshwork gateway`.

use std::net::SocketAddr;
use std::process::ExitCode;

use model::identity::Subject;
use model::name::Name;

use crate::command::{Outcome, member, process};
use crate::role::gateway;

/// Run a gateway: the door for clients from outside
///
/// It ends on SIGTERM or Ctrl-C when its requests in progress have ended, and at once on the second.
#[derive(Debug, clap::Args)]
pub(in crate::command) struct Arguments {
    /// Which gateway of the mesh file it is
    #[arg(long, env = "MESHWORK_GATEWAY", value_name = "NAME")]
    gateway: Name,
    /// Listen here instead of where the mesh file says
    #[arg(long, env = "MESHWORK_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where its health, metrics and status are read, on loopback
    #[arg(long, alias = "outbound", env = "MESHWORK_STATUS", default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    status: SocketAddr,
    #[command(flatten)]
    member: member::Arguments,
}

pub(in crate::command) fn run(arguments: Arguments) -> Outcome {
    let ground = arguments.member.ground()?;
    let member = arguments.member.options(Subject::Gateway(arguments.gateway), None)?;
    let options = gateway::Options { member, listen: arguments.listen, status: arguments.status };
    process::block_on(|stop| gateway::run(options, ground, stop))?;
    Ok(ExitCode::SUCCESS)
}
