//! `meshwork broker`.

use std::net::SocketAddr;
use std::process::ExitCode;

use model::identity::Subject;

use crate::command::{Outcome, member, process};
use crate::role::broker;

/// Run the broker: it keeps queues and topics, and delivers what is sent
///
/// Applications reach it through their own sidecar under the name `broker`. It ends on SIGTERM or Ctrl-C when its requests and
/// deliveries in progress have ended, and at once on the second.
#[derive(Debug, clap::Args)]
pub(in crate::command) struct Arguments {
    /// Where the mesh reaches it
    #[arg(long, env = "MESHWORK_INBOUND", default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    inbound: SocketAddr,
    /// Where its health, metrics and status are read, on loopback
    #[arg(long, alias = "outbound", env = "MESHWORK_STATUS", default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    status: SocketAddr,
    #[command(flatten)]
    member: member::Arguments,
}

pub(in crate::command) fn run(arguments: Arguments) -> Outcome {
    let ground = arguments.member.ground()?;
    let member = arguments.member.options(Subject::Broker, None)?;
    let options = broker::Options { member, inbound: arguments.inbound, status: arguments.status };
    process::block_on(|stop| broker::run(options, ground, stop))?;
    Ok(ExitCode::SUCCESS)
}
