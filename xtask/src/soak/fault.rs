//! The faults of a soak, one at a time, drawn from a seed: every kind comes before any comes again.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::KINDS;
use super::app::MODE_FILE;
use super::mesh::Mesh;

/// How long something stands still, is full or is silent, at most.
const LASTS_MAX_MS: u64 = 12_000;
const LASTS_MIN_MS: u64 = 1_000;
/// Connections that say nothing, or half of something, to each listener.
const SILENT_PER_LISTENER: usize = 64;
/// What is written to a file at a time to fill a disk.
const BALLAST_BYTES: usize = 1 << 20;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `kill -9` of the broker.
    KillBroker,
    /// `kill -9` of the control plane.
    KillControlPlane,
    /// `kill -9` of a sidecar.
    KillSidecar,
    /// `kill -9` of the gateway.
    KillGateway,
    /// `kill -9` of an application.
    KillApplication,
    /// A role stands still (SIGSTOP) for some seconds.
    Pause,
    /// The disk is full for some seconds.
    FullDisk,
    /// Many clients of every listener that say nothing, or send a head one byte at a time.
    SilentPeers,
    /// The sink takes seconds for each answer.
    SlowApplication,
    /// The sink asks for later, at once (503, `Retry-After: 0`).
    LaterApplication,
}

/// Draws and inflicts.
pub struct Faults {
    state: u64,
    kinds: Vec<Kind>,
    left: Vec<Kind>,
    inflicted: Vec<Kind>,
}

impl Faults {
    /// Those that can be inflicted here and whose name holds `only`.
    pub fn new(seed: u64, only: Option<&str>, mesh: &Mesh) -> anyhow::Result<Self> {
        let wanted = only.unwrap_or_default().to_ascii_lowercase();
        let can = |kind: &Kind| *kind != Kind::FullDisk || mesh.is_mounted;
        let named = |kind: &Kind| format!("{kind:?}").to_ascii_lowercase().contains(&wanted);
        let kinds: Vec<Kind> = KINDS.into_iter().filter(|kind| can(kind) && named(kind)).collect();
        ensure!(!kinds.is_empty(), "no fault has {wanted:?} in its name, of {KINDS:?}");
        Ok(Self { state: seed, kinds, left: Vec::new(), inflicted: Vec::new() })
    }

    /// The next.
    pub fn draw(&mut self) -> Kind {
        if self.left.is_empty() {
            self.left = self.kinds.clone();
        }
        let place = self.below(self.left.len() as u64);
        self.left.swap_remove(usize::try_from(place).unwrap_or(0))
    }

    /// Those that were inflicted.
    pub fn inflicted(&self) -> Vec<Kind> {
        self.inflicted.clone()
    }

    /// Carries it out, from its begin to its end.
    pub async fn inflict(&mut self, kind: Kind, mesh: &Mesh) -> anyhow::Result<()> {
        let lasts = Duration::from_millis(LASTS_MIN_MS + self.below(LASTS_MAX_MS - LASTS_MIN_MS));
        match kind {
            Kind::KillBroker => self.kill(mesh.pid("broker")?)?,
            Kind::KillControlPlane => self.kill(mesh.pid("control-plane")?)?,
            Kind::KillGateway => self.kill(mesh.pid("gateway-public")?)?,
            Kind::KillSidecar => {
                let instance = self.one_of(&["source-0", "sink-0", "sink-1", "worker-0"]);
                self.kill(mesh.pid(instance)?)?;
            }
            Kind::KillApplication => {
                let instance = self.one_of(&["sink-0", "sink-1", "worker-0"]);
                self.kill(mesh.application(instance)?)?;
            }
            Kind::Pause => {
                let all = ["broker", "control-plane", "gateway-public", "source-0", "sink-0", "sink-1", "worker-0"];
                let instance = self.one_of(&all);
                pause(mesh.pid(instance)?, lasts).await?;
            }
            Kind::FullDisk => fill(mesh, lasts).await?,
            Kind::SilentPeers => silent(&mesh.addresses(), lasts).await,
            Kind::SlowApplication => behave(mesh, "slow", lasts).await?,
            Kind::LaterApplication => behave(mesh, "later", lasts).await?,
        }
        self.inflicted.push(kind);
        Ok(())
    }

    fn kill(&self, pid: Pid) -> anyhow::Result<()> {
        kill(pid, Signal::SIGKILL).with_context(|| format!("kill -9 {pid}"))
    }

    fn one_of(&mut self, all: &[&'static str]) -> &'static str {
        let place = self.below(all.len() as u64);
        all[usize::try_from(place).unwrap_or(0)]
    }

    /// A number below `end` (splitmix64: Steele, Lea and Flood 2014).
    fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }
}

async fn pause(pid: Pid, lasts: Duration) -> anyhow::Result<()> {
    kill(pid, Signal::SIGSTOP)?;
    sleep(lasts).await;
    // Whoever has taken it for dead and ended it meanwhile has done no wrong.
    let _ = kill(pid, Signal::SIGCONT);
    Ok(())
}

/// Fills the file system to its last block, and frees it again.
async fn fill(mesh: &Mesh, lasts: Duration) -> anyhow::Result<()> {
    let path = mesh.ballast();
    let mut file = fs::File::create(&path)?;
    let zeros = vec![0; BALLAST_BYTES];
    let mut piece = zeros.len();
    // Smaller pieces as there is less room, so that not one block is left.
    while piece > 0 {
        if file.write_all(&zeros[..piece]).is_err() {
            piece /= 2;
        }
    }
    sleep(lasts).await;
    Ok(fs::remove_file(&path)?)
}

/// Half of the clients say nothing, half send a head a byte a second.
async fn silent(addresses: &[SocketAddr], lasts: Duration) {
    let mut clients = Vec::new();
    for address in addresses.iter().flat_map(|address| std::iter::repeat_n(*address, SILENT_PER_LISTENER)) {
        if let Ok(stream) = TcpStream::connect(address).await {
            clients.push(stream);
        }
    }
    let ends = tokio::time::Instant::now() + lasts;
    for byte in b"GET / HTTP/1.1\r\nhost: a\r\n".iter().cycle() {
        if tokio::time::Instant::now() >= ends {
            break;
        }
        for client in clients.iter_mut().step_by(2) {
            // One that was closed has got what it deserves.
            let _ = client.write_all(&[*byte]).await;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn behave(mesh: &Mesh, mode: &str, lasts: Duration) -> anyhow::Result<()> {
    let file = mesh.folder.join(MODE_FILE);
    fs::write(&file, mode)?;
    sleep(lasts).await;
    Ok(fs::write(&file, "ok")?)
}
