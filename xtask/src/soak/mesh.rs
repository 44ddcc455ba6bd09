//! The mesh of a soak: `up` with release binaries, its data on a small file system of its own where one can be mounted.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::bench::process::{free_port, rss_mib, wait};
use crate::bounded;

/// How large the file system is that the broker's disk fault fills, in MiB.
const DISK_MIB: u32 = 512;
/// How long `up` may take to end.
const STOP_BOUND: Duration = Duration::from_secs(60);
/// Who is watched and stopped.
const INSTANCES: [&str; 7] = ["control-plane", "broker", "gateway-public", "source-0", "sink-0", "sink-1", "worker-0"];

const FILE: &str = "
mesh: soak
services:
  source: {command: \"APP source FOLDER\", calls: [sink], publishes: [work, pulled, events]}
  sink:
    command: \"APP sink FOLDER\"
    instances: 2
    health: {path: /healthz}
    consumes: [{queue: work, path: /work, concurrency: 8}, {topic: events, path: /events, concurrency: 8}]
  worker: {command: \"APP worker FOLDER\", consumes: [{queue: pulled}]}
gateways:
  public: {listen: 127.0.0.1:PORT, backends: [{service: sink}]}
routes:
  - {service: sink, retry: {attempts: 3, on: [connect-failure, reset-before-processing, reset, 503], budget: 50%}}
queues:
  work: {delivery: {attempts: 1000, backoff: {initial: 100ms, max: 2s}, ack_timeout: 10s}}
  pulled: {delivery: {attempts: 1000, backoff: {initial: 100ms, max: 2s}, ack_timeout: 10s}}
topics:
  events: {delivery: {attempts: 1000, backoff: {initial: 100ms, max: 2s}, ack_timeout: 10s}}
";

/// A running mesh; dropped, it is ended.
pub struct Mesh {
    /// Where journals and the sink's mode are.
    pub folder: PathBuf,
    /// Where the mesh keeps its data.
    data: PathBuf,
    /// Whether the data stands on a file system of its own.
    pub is_mounted: bool,
    /// The gateway.
    pub gateway: SocketAddr,
    up: Option<Child>,
}

/// A role's ready file.
#[derive(Deserialize)]
struct Ready {
    pid: i32,
    addresses: BTreeMap<String, SocketAddr>,
}

impl Mesh {
    /// Starts it and waits until every instance is ready.
    pub fn start() -> anyhow::Result<Self> {
        let target = crate::bench::target();
        let folder = target.join("soak");
        let data = folder.join("data");
        unmount(&data);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        }
        fs::create_dir_all(&data)?;
        let is_mounted = mount(&data);
        let port = free_port()?;
        let application = std::env::current_exe()?;
        let text = FILE
            .replace("APP", &format!("{} soak-application", application.display()))
            .replace("FOLDER", &folder.display().to_string())
            .replace("PORT", &port.to_string());
        fs::write(folder.join("mesh.yaml"), text)?;
        let log = fs::File::create(folder.join("up.log"))?;
        let up = Command::new(target.join("release/meshwork"))
            .arg("up")
            .arg(folder.join("mesh.yaml"))
            .arg("--data")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("meshwork up")?;
        let mut mesh = Self { folder, data, is_mounted, gateway: ([127, 0, 0, 1], port).into(), up: Some(up) };
        for instance in INSTANCES {
            wait(&format!("{instance} to be ready"), || {
                if let Some(status) = mesh.up.as_mut().map(Child::try_wait).transpose()?.flatten() {
                    mesh.up = None;
                    bail!("up ended with {status}; see {}", mesh.folder.join("up.log").display());
                }
                Ok(mesh.ready(instance).ok())
            })?;
        }
        Ok(mesh)
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        let disk = if self.is_mounted {
            format!("its data on a file system of {DISK_MIB} MiB")
        } else {
            "no file system could be mounted: full disks are left out".to_owned()
        };
        format!("{} instances in {}, {disk}", INSTANCES.len(), self.folder.display())
    }

    fn ready(&self, instance: &str) -> anyhow::Result<Ready> {
        let file = self.data.join("run").join(format!("{instance}.ready"));
        Ok(serde_json::from_slice(&fs::read(&file).with_context(|| format!("{}", file.display()))?)?)
    }

    /// Where the application of `source` reaches its sidecar.
    pub fn sidecar(&self) -> anyhow::Result<SocketAddr> {
        let ready = self.ready("source-0")?;
        ready.addresses.get("outbound").copied().context("source-0 has no outbound address")
    }

    /// Every address on which a role listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let ready = INSTANCES.iter().filter_map(|instance| self.ready(instance).ok());
        ready.flat_map(|ready| ready.addresses.into_values()).collect()
    }

    /// An instance's process; of a service, its sidecar.
    pub fn pid(&self, instance: &str) -> anyhow::Result<Pid> {
        Ok(Pid::from_raw(self.ready(instance)?.pid))
    }

    /// The application beside a sidecar.
    pub fn application(&self, instance: &str) -> anyhow::Result<Pid> {
        let pid = self.pid(instance)?;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let child = children.split_whitespace().next().with_context(|| format!("{instance} has no application now"))?;
        Ok(Pid::from_raw(child.parse()?))
    }

    /// Resident memory and open files of every role, for the report.
    pub fn sizes(&self) -> Vec<(String, f64, usize)> {
        let size = |instance: &&str| {
            let pid = self.pid(instance).ok()?.as_raw();
            let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
            Some(((*instance).to_owned(), rss_mib(u32::try_from(pid).ok()?).ok()?, files))
        };
        INSTANCES.iter().filter_map(size).collect()
    }

    /// The file that a full disk is made with.
    pub fn ballast(&self) -> PathBuf {
        self.data.join("ballast")
    }

    /// Asks it to end, as an operator would; why it did not end well.
    pub fn stop(&mut self) -> Result<Duration, String> {
        let Some(mut up) = self.up.take() else { return Err("it was stopped before".to_owned()) };
        let began = Instant::now();
        let asked = i32::try_from(up.id()).map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        if !matches!(asked, Ok(Ok(()))) {
            return Err("up was gone before it was asked to end".to_owned());
        }
        match bounded::wait(&mut up, STOP_BOUND) {
            Ok(Some(status)) if status.success() => Ok(began.elapsed()),
            Ok(Some(status)) => Err(format!("up ended with {status}")),
            Ok(None) => {
                let _ = up.kill();
                Err(format!("up did not end within {}s", STOP_BOUND.as_secs()))
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if self.up.is_some()
            && let Err(why) = self.stop()
        {
            eprintln!("{why}");
        }
        unmount(&self.data);
    }
}

/// Needs a right that not everybody has.
fn mount(folder: &Path) -> bool {
    let size = format!("size={DISK_MIB}m");
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What an earlier run has left mounted goes too; where nothing is mounted there is nothing to do.
fn unmount(folder: &Path) {
    let mut command = Command::new("umount");
    command.arg("-l").arg(folder).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = command.status();
}

/// Reads the ready files until all are there again.
pub async fn until_ready(mesh: &Mesh, bound: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let is_missing = |instance: &&&str| mesh.pid(instance).is_err() || !is_alive(mesh, instance);
        let Some(missing) = INSTANCES.iter().find(is_missing) else { return Ok(()) };
        ensure!(began.elapsed() < bound, "{missing} is not back after {}s", bound.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_alive(mesh: &Mesh, instance: &str) -> bool {
    mesh.pid(instance).is_ok_and(|pid| kill(pid, None).is_ok())
}
