//! Our own side: a mesh of release binaries, started as an operator starts it, with one core lane for each role.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::peers;
use super::process::{Server, wait};

/// A running mesh; dropped, it ends.
pub struct Mesh {
    ready: BTreeMap<String, Ready>,
    server: Option<Server>,
}

/// A role's ready file.
#[derive(Deserialize)]
struct Ready {
    pid: u32,
    addresses: BTreeMap<String, SocketAddr>,
}

/// Builds what is measured.
pub fn build() -> anyhow::Result<()> {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--package", "meshwork"])
        .current_dir(crate::generate::root())
        .status()?;
    ensure!(status.success(), "the release build failed");
    Ok(())
}

impl Mesh {
    /// Starts the mesh of `text` and waits until the `instances` carry traffic.
    pub fn start(name: &str, text: &str, instances: &[&str]) -> anyhow::Result<Self> {
        let folder = peers::folder()?.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let file = folder.join("mesh.yaml");
        fs::write(&file, text)?;
        let data = folder.join("data");
        let server = Server::start(
            &format!("mesh-{name}"),
            Command::new(binary()).arg("up").arg(&file).args(["--lanes", "1", "--data"]).arg(&data),
        )?;
        let mut mesh = Self { ready: BTreeMap::new(), server: Some(server) };
        for instance in instances {
            let file = data.join("run").join(format!("{instance}.ready"));
            let ready = wait(&format!("{instance} to be ready"), || Ok(fs::read(&file).ok()))?;
            mesh.ready.insert((*instance).to_owned(), serde_json::from_slice(&ready)?);
        }
        Ok(mesh)
    }

    /// The process of an instance.
    pub fn pid(&self, instance: &str) -> u32 {
        self.ready.get(instance).map_or(0, |ready| ready.pid)
    }

    /// Where an instance listens.
    pub fn address(&self, instance: &str, which: &str) -> anyhow::Result<SocketAddr> {
        let ready = self.ready.get(instance).with_context(|| format!("{instance} is not ready"))?;
        ready.addresses.get(which).copied().with_context(|| format!("{instance} has no {which} address"))
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if let Some(server) = self.server.take()
            && let Err(error) = server.stop()
        {
            eprintln!("the mesh did not stop: {error}");
        }
    }
}

fn binary() -> PathBuf {
    target().join("release/meshwork")
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::generate::root().join("target"), PathBuf::from)
}
