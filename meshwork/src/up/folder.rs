//! The folder of a mesh that runs on this machine: a folder for each instance, and what is told from one process to another.
//!
//! ```text
//! .meshwork/shop/  secret · state.json · ports.json · mesh-file.json · control-plane/ (roots.pem) · broker/ · orders-0/ · run/ (orders-0.ready, orders-0.token)
//! ```

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use control::token::Secret;
use model::config::Config;
use model::name::Name;
use serde::{Deserialize, Serialize};
use storage::disk::{self, Disk, Lock, OpenMode, real::RealDisk};
use storage::kept;

use super::leftover;
use crate::role::control_plane::ROOTS_FILE;
use crate::role::ready::Ready;

/// Longest of the files that are read here, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The control plane's instance, of which there is one.
pub(crate) const CONTROL_PLANE: &str = "control-plane";

/// The folder; it is this process's alone as long as this lives.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    _lock: Box<dyn Lock>,
}

/// The file in which `up` says what runs.
pub(crate) const STATE_FILE: &str = "state.json";

/// The file in which `up` keeps what it has last taken from the mesh file.
const TAKEN_FILE: &str = "mesh-file.json";
/// Longest of it, in bytes.
const TAKEN_BYTES_MAX: u64 = 64 << 20;

/// What `up` says of what it runs, for `meshwork status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// The process that runs `up`.
    pub(crate) pid: u32,
    /// When that process was started, in the kernel's ticks since it booted: its number may be another one's later.
    pub(crate) started: Option<u64>,
    pub(crate) mesh: Name,
    pub(crate) instances: Vec<RunningInstance>,
}

/// One instance of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningInstance {
    pub(crate) service: String,
    pub(crate) instance: Name,
    pub(crate) state: String,
    /// Since when it is in that state, in milliseconds since 1970.
    pub(crate) since_ms: u64,
    pub(crate) pid: Option<u32>,
    pub(crate) starts: u32,
    /// How it ended the last time that it ended by itself.
    pub(crate) last_end: Option<String>,
    /// When that was, in milliseconds since 1970.
    pub(crate) last_end_ms: Option<u64>,
    /// When it is started again, in milliseconds since 1970, where it waits for that.
    pub(crate) next_start_ms: Option<u64>,
    /// How its application is asked whether it can serve.
    pub(crate) health: Option<Asked>,
    pub(crate) addresses: BTreeMap<String, SocketAddr>,
}

/// How an application is asked whether it can serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// A GET of it must answer 2xx; `None`: the port must accept a connection.
    pub(crate) path: Option<String>,
    /// How long the answer may take, in milliseconds.
    pub(crate) timeout_ms: u64,
}

impl Folder {
    /// Makes the folder and takes it.
    pub(crate) fn take(root: &Path) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        RealDisk.create_dir_all(&root.join("run"))?;
        let lock = RealDisk.lock(&root)?;
        Ok(Self { root, _lock: lock })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// An instance's own folder.
    pub(crate) fn of(&self, instance: &Name) -> PathBuf {
        self.root.join(instance.as_str())
    }

    pub(crate) fn secret_file(&self) -> PathBuf {
        self.root.join("secret")
    }

    /// Where the control plane writes the mesh's roots.
    pub(crate) fn roots_file(&self) -> PathBuf {
        self.root.join(CONTROL_PLANE).join(ROOTS_FILE)
    }

    /// The configuration that was last taken from the mesh file.
    fn taken_file(&self) -> PathBuf {
        self.root.join(TAKEN_FILE)
    }

    /// Remembers what was taken from the mesh file, by which the next run knows whether the file has changed since.
    pub(crate) fn remember_taken(&self, config: &Config) -> io::Result<()> {
        kept::write(&RealDisk, &self.taken_file(), &serde_json::to_vec(config)?)
    }

    pub(crate) fn token_file(&self, instance: &Name) -> PathBuf {
        self.root.join("run").join(format!("{instance}.token"))
    }

    pub(crate) fn ready_file(&self, instance: &Name) -> PathBuf {
        self.root.join("run").join(format!("{instance}.ready"))
    }

    /// Forgets who lived in an earlier run: nobody of it does any more, and others may be where they were.
    ///
    /// # Errors
    /// As the disk says.
    pub(crate) fn forget_instances(&self) -> io::Result<()> {
        control::forget_instances(&RealDisk, &self.root.join(CONTROL_PLANE))
    }

    /// A fresh secret: tokens of an earlier run open nothing.
    pub(crate) fn make_secret(&self) -> anyhow::Result<Secret> {
        let secret = Secret::generate()?;
        kept::write(&RealDisk, &self.secret_file(), secret.to_text().as_bytes())?;
        Ok(secret)
    }

    pub(crate) fn write_token(&self, instance: &Name, token: &str) -> io::Result<()> {
        disk::replace(&RealDisk, &self.token_file(instance), token.as_bytes())
    }

    /// Takes back what an earlier process said.
    pub(crate) fn forget_ready(&self, instance: &Name) -> io::Result<()> {
        match RealDisk.remove(&self.ready_file(instance)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What the process `pid` of an instance says; `None` as long as it says nothing.
    pub(crate) fn ready(&self, instance: &Name, pid: u32) -> Option<Ready> {
        let bytes = disk::read_whole(&RealDisk, &self.ready_file(instance), FILE_BYTES_MAX).ok()?;
        serde_json::from_slice::<Ready>(&bytes).ok().filter(|ready| ready.pid == pid)
    }

    /// Writes what runs. It is for people who ask: one that is lost with the machine is no loss, so nothing is synced.
    pub(crate) fn write_running(&self, running: &Running) -> io::Result<()> {
        let (path, fresh) = (self.root.join(STATE_FILE), self.root.join("state.json.new"));
        match RealDisk.remove(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = RealDisk.open(&fresh, OpenMode::Create)?;
        file.write_at(&serde_json::to_vec(running)?, 0)?;
        RealDisk.rename(&fresh, &path)
    }

    /// Nothing runs any more.
    pub(crate) fn forget_running(&self) {
        // A file that stays behind is told from a living one by its process.
        let _ = RealDisk.remove(&self.root.join(STATE_FILE));
    }
}

/// What an earlier run in the folder `root` has last taken from the mesh file, as far as it is known.
pub(crate) fn taken(root: &Path) -> Option<Config> {
    let path = root.join(TAKEN_FILE);
    let bytes = kept::read(&RealDisk, &path, TAKEN_BYTES_MAX).unwrap_or_else(|error| {
        tracing::warn!(%error, "what was last taken from the mesh file cannot be read; the file is taken as a new one");
        None
    });
    // One of another release does not count: the file is taken then.
    serde_json::from_slice(&bytes?).ok()
}

/// What runs out of the folder `root`, if something does.
pub(crate) fn running(root: &Path) -> Option<Running> {
    let bytes = disk::read_whole(&RealDisk, &root.join(STATE_FILE), FILE_BYTES_MAX).ok()?;
    let running: Running = serde_json::from_slice(&bytes).ok()?;
    let started = leftover::started(running.pid)?;
    running.started.is_none_or(|then| then == started).then_some(running)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_process_s_and_tells_what_runs() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::take(root.path()).unwrap();
        assert_eq!(Folder::take(root.path()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let pid = std::process::id();
        let (started, mesh) = (leftover::started(pid), Name::new("shop").unwrap());
        let mut state = Running { pid, started, mesh, instances: Vec::new() };
        folder.write_running(&state).unwrap();
        folder.write_running(&state).unwrap();
        assert_eq!(running(root.path()), Some(state.clone()));
        // Its number is another process's by now.
        state.started = started.map(|started| started - 1);
        folder.write_running(&state).unwrap();
        assert_eq!(running(root.path()), None);
        // No process has this number (PID_MAX_LIMIT is 2^22).
        state.pid = 1 << 23;
        folder.write_running(&state).unwrap();
        assert_eq!(running(root.path()), None);
    }

    /// A digit that has become another would stand for a change that was taken, and undo what was applied since.
    #[test]
    fn what_was_taken_from_the_mesh_file_does_not_count_where_a_bit_has_turned() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::take(root.path()).unwrap();
        assert_eq!(taken(root.path()), None);
        let config =
            model::config::check("mesh.yaml", "mesh: shop\nservices: {orders: {port: 8080}}\n").unwrap().config;
        folder.remember_taken(&config).unwrap();
        assert_eq!(taken(root.path()), Some(config));
        let mut turned = disk::read_whole(&RealDisk, &folder.taken_file(), 10_000).unwrap();
        let port = turned.windows(4).rposition(|four| four == b"8080").unwrap();
        turned[port] ^= 1;
        disk::replace(&RealDisk, &folder.taken_file(), &turned).unwrap();
        assert_eq!(taken(root.path()), None);
    }

    #[test]
    fn what_an_earlier_process_said_does_not_count() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::take(root.path()).unwrap();
        let instance = Name::new("orders-0").unwrap();
        let mut ready = Ready::new("sidecar", &instance, []);
        ready.pid = 7;
        ready.tell(&RealDisk, Some(&folder.ready_file(&instance))).unwrap();
        assert_eq!(folder.ready(&instance, 8), None);
        assert_eq!(folder.ready(&instance, 7), Some(ready));
        folder.forget_ready(&instance).unwrap();
        folder.forget_ready(&instance).unwrap();
        assert_eq!(folder.ready(&instance, 7), None);
    }
}
