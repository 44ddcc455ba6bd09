//! The ready file: how a role tells whoever started it that it can carry traffic, and where.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use model::name::Name;
use serde::{Deserialize, Serialize};
use storage::disk::{self, Disk};

/// What a role tells about itself once it can carry traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The process.
    pub pid: u32,
    /// `control-plane`, `broker`, `gateway` or `sidecar`.
    pub role: String,
    /// The instance's name.
    pub instance: Name,
    /// `outbound`, `inbound`, `gateway`, `status`, `control`, `admin` → where it listens.
    pub addresses: BTreeMap<String, SocketAddr>,
}

impl Ready {
    /// A role of this process.
    #[must_use]
    pub fn new(
        role: &str,
        instance: &Name,
        addresses: impl IntoIterator<Item = (&'static str, Option<SocketAddr>)>,
    ) -> Self {
        let addresses = addresses.into_iter().filter_map(|(name, address)| Some((name.to_owned(), address?))).collect();
        Self { pid: std::process::id(), role: role.to_owned(), instance: instance.clone(), addresses }
    }

    /// Writes the file, whole or not at all, where one was asked for.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn tell(&self, disk: &dyn Disk, path: Option<&Path>) -> anyhow::Result<()> {
        tracing::info!(role = self.role, instance = %self.instance, addresses = ?self.addresses, "ready");
        let Some(path) = path else { return Ok(()) };
        let text = serde_json::to_vec(self)?;
        disk::replace(disk, path, &text).with_context(|| format!("cannot write the ready file {}", path.display()))
    }
}
