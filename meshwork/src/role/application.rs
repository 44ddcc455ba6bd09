//! The application beside a sidecar: a process of its own that the sidecar starts, passes signals to, and outlives.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use process_wrap::tokio::{ChildWrapper, CommandWrap, ProcessGroup};

/// What is started.
#[derive(Debug, Clone)]
pub struct Command {
    /// The program and its arguments; at least the program.
    pub words: Vec<String>,
    /// Added to its environment.
    pub env: BTreeMap<String, String>,
    /// Where it runs; `None`: where the sidecar runs.
    pub folder: Option<PathBuf>,
}

/// An application that was started. It leads a process group of its own, so that what it starts ends with it.
#[derive(Debug)]
pub struct Application {
    child: Box<dyn ChildWrapper>,
    group: Option<Pid>,
    program: String,
}

/// Starts `command`. It is told its port in `PORT` and its sidecar's address in `MESHWORK_PROXY` and, for programs that
/// honour proxy settings, in `HTTP_PROXY` and `http_proxy` (curl reads only the latter). `NO_PROXY` and `no_proxy` hold what they held
/// before and this machine, whose other programs are no services of the mesh.
///
/// # Errors
/// When the program cannot be started.
pub fn start(command: &Command, port: u16, sidecar: SocketAddr) -> anyhow::Result<Application> {
    let (program, arguments) = command.words.split_first().context("the application's command is empty")?;
    let proxy = format!("http://{sidecar}");
    let mut process = tokio::process::Command::new(program);
    process.args(arguments).envs(&command.env).env("PORT", port.to_string());
    for variable in ["MESHWORK_PROXY", "HTTP_PROXY", "http_proxy"] {
        process.env(variable, &proxy);
    }
    let before = ["NO_PROXY", "no_proxy"].map(|variable| match command.env.get(variable) {
        Some(own) => Some(own.clone()),
        None => std::env::var(variable).ok(),
    });
    let direct = direct(before.iter().flatten());
    process.env("NO_PROXY", &direct).env("no_proxy", &direct);
    if let Some(folder) = &command.folder {
        process.current_dir(folder);
    }
    let_go_of(&mut process);
    let child = CommandWrap::from(process)
        .wrap(ProcessGroup::leader())
        .spawn()
        .with_context(|| format!("cannot start the application {program:?}"))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    Ok(Application { child, group, program: program.clone() })
}

/// How this machine is called in `NO_PROXY`.
const THIS_MACHINE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The hosts that are reached directly: those that were so before, and this machine. There is no standard for the list; hosts between
/// commas is what all programs read.
fn direct<'a>(before: impl IntoIterator<Item = &'a String>) -> String {
    let before = before.into_iter().flat_map(|list| list.split([',', ' '])).filter(|host| !host.is_empty());
    let mut hosts: Vec<&str> = Vec::new();
    for host in before.chain(THIS_MACHINE) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts.join(",")
}

/// A sidecar that is killed takes its application with it: nothing could reach the application any more, and what started both
/// would find its port taken (prctl(2), PR_SET_PDEATHSIG). The sidecar's own choice about huge pages is not its application's.
#[expect(unsafe_code, reason = "the only way to run code between fork and exec")]
fn let_go_of(process: &mut tokio::process::Command) {
    // SAFETY: prctl(2) is async-signal-safe and touches nothing of this process's memory.
    unsafe {
        process.pre_exec(|| {
            nix::sys::prctl::set_thp_disable(false)?;
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from)
        });
    }
}

impl Application {
    /// Resolves when it has ended by itself, with its exit code; 128 + signal when a signal ended it.
    ///
    /// # Errors
    /// When the operating system lost it.
    pub async fn ended(&mut self) -> anyhow::Result<i32> {
        let status = self.child.wait().await.with_context(|| format!("lost the application {:?}", self.program))?;
        Ok(code(status))
    }

    /// Asks it to end with SIGTERM, kills its whole group when it has not within `bound`, and answers with its exit code.
    ///
    /// # Errors
    /// When the operating system lost it.
    pub async fn stop(mut self, bound: Duration) -> anyhow::Result<i32> {
        self.signal(Signal::SIGTERM);
        let code = match tokio::time::timeout(bound, self.child.wait()).await {
            Ok(status) => code(status?),
            Err(_) => {
                tracing::warn!(program = self.program, after = ?bound, "the application did not end; killing it");
                self.signal(Signal::SIGKILL);
                code(self.child.wait().await?)
            }
        };
        // What it left behind in its group ends too.
        self.signal(Signal::SIGKILL);
        Ok(code)
    }

    fn signal(&self, signal: Signal) {
        let Some(group) = self.group else { return };
        if let Err(error) = killpg(group, signal)
            && error != nix::errno::Errno::ESRCH
        {
            tracing::warn!(program = self.program, %signal, %error, "the application could not be signalled");
        }
    }
}

fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_reached_directly_beside_what_was_before() {
        let direct_of = |before: &[&str]| direct(&before.iter().map(|list| (*list).to_owned()).collect::<Vec<_>>());
        assert_eq!(direct_of(&[]), "localhost,127.0.0.1,::1");
        assert_eq!(direct_of(&["a.example, ::1", "a.example"]), "a.example,::1,localhost,127.0.0.1");
    }
}
