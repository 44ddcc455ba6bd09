//! Server processes: started, waited for, measured through `/proc`, and ended with the benchmark.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// How long a server may take until it answers.
const START_BOUND: Duration = Duration::from_secs(30);
/// How often a condition is looked at while waiting.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A running server; dropped, it is killed.
pub struct Server {
    child: Child,
    /// Shown when it does not start.
    name: String,
}

impl Server {
    /// Starts `command`; its output goes to `target/bench/<name>.log`.
    pub fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let log = fs::File::create(super::peers::folder()?.join(format!("{name}.log")))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Waits until it accepts connections.
    pub fn wait_for(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        wait(&format!("{} to listen on {address}", self.name), || {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}; see target/bench/{}.log", self.name, self.name);
            }
            Ok(TcpStream::connect(address).is_ok().then_some(()))
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, as an operator would, and waits.
    pub fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").arg("-TERM").arg(self.pid().to_string()).status()?;
        wait(&format!("{} to end", self.name.clone()), || Ok(self.child.try_wait()?.map(drop)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either it has ended already or it ends now; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a condition, with a bound.
pub fn wait<T>(what: &str, mut condition: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() > START_BOUND {
            bail!("waited {}s for {what}", START_BOUND.as_secs());
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// A port that nobody listens on now.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Processor time that these processes, their threads and their children have used, in microseconds.
pub fn cpu_us(pids: &[u32]) -> anyhow::Result<f64> {
    let mut nanos = 0u64;
    for pid in pids.iter().copied().flat_map(|pid| std::iter::once(pid).chain(children(pid))) {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            nanos += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).context("schedstat")?;
        }
    }
    Ok(nanos as f64 / 1_000.0)
}

/// Resident memory of a process in MiB, from `/proc/<pid>/status`.
pub fn rss_mib(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).context("VmRSS")?.parse()?;
    Ok(kib / 1_024.0)
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")) else { return Vec::new() };
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
