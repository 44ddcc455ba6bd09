//! A service of the shop as its own process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::PATIENCE;

/// A running service. It is killed when it is dropped.
pub struct Process {
    pub service: String,
    pub address: SocketAddr,
    child: Child,
}

/// The program, with nothing in its environment but what is given.
pub fn program(service: &str, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    command.arg(service).env_clear().envs(environment.iter().copied()).kill_on_drop(true).stdin(Stdio::null());
    command
}

impl Process {
    /// Starts a service on a free port and waits until it listens.
    pub async fn start(service: &str, proxy: &str, data: &Path) -> Self {
        let proxy = format!("http://{proxy}");
        let data = data.to_str().unwrap();
        let environment = [("PORT", "0"), ("HTTP_PROXY", &proxy), ("SHOP_DATA", data), ("VERSION", "v2")];
        let mut child = program(service, &environment).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let line = first.expect("it says where it listens").unwrap().unwrap_or_else(|| panic!("{service} ended"));
        Self { service: service.to_owned(), address: line.parse().unwrap(), child }
    }

    /// Kills it with -9, and waits until it is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        kill(Pid::from_raw(self.child.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
    }

    /// How it ended.
    pub async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap()
    }
}
