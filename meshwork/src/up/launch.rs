//! What the start of any instance needs: the folder, the ports, the programs, and a token for each start.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use control::token::Secret;
use model::name::Name;
use tokio::sync::Notify;

use super::event::Events;
use super::folder::{CONTROL_PLANE, Folder};
use super::invocation::{self, Common, Particular};
use super::plan::{Part, Planned};
use super::ports::{self, Ports};
use super::process::Invocation;
use super::program::{self, NotFound};
use super::supervisor::Bounds;
use super::tokens::{TOKEN_LIFE, Tokens};

/// Shared by all instances of a mesh.
pub(crate) struct Launch {
    pub(crate) common: Common,
    pub(crate) folder: Arc<Folder>,
    pub(crate) secret: Secret,
    /// Gateways that listen elsewhere than the mesh file says.
    pub(crate) listen: BTreeMap<Name, SocketAddr>,
    /// Where commands are looked for before PATH.
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) ports: Ports,
    pub(crate) bounds: Bounds,
    pub(crate) events: Events,
    /// Some instance is in another state than before.
    pub(crate) changed: Arc<Notify>,
}

impl Launch {
    /// The file of an instance's program; `None` for one without a command.
    pub(crate) fn program(&self, planned: &Planned) -> Result<Option<PathBuf>, NotFound> {
        let Part::Service(service) = &planned.part else { return Ok(None) };
        let Some(word) = service.command.as_ref().and_then(|words| words.first()) else { return Ok(None) };
        let path = std::env::var_os("PATH");
        program::find(word, &self.folders, path.as_deref().map(OsStr::new)).map(Some)
    }

    /// How an instance is started now.
    pub(crate) fn invocation(&self, planned: &Planned, program: Option<&PathBuf>) -> anyhow::Result<Invocation> {
        let instance = &planned.instance;
        self.ports.take(planned)?;
        // Ports that are lost with the machine are picked anew; that they cannot be written down is no reason not to start.
        if let Err(error) = self.ports.write() {
            tracing::warn!(%error, "the ports could not be written down; the next run may pick others");
        }
        if let Some(tokens) = self.tokens(planned) {
            tokens.write()?;
        }
        let control_plane = Name::new(CONTROL_PLANE)?;
        let particular = Particular {
            control: self.ports.address(&control_plane, ports::CONTROL),
            admin: self.ports.address(&control_plane, ports::ADMIN),
            listen: self.listen(planned),
            outbound: self.ports.address(instance, ports::OUTBOUND),
            inbound: self.ports.address(instance, ports::INBOUND),
            port: self.ports.address(instance, ports::APPLICATION).map(|address| address.port()),
            application: program.cloned(),
        };
        Ok(invocation::invocation(&self.common, &self.folder, planned, &particular))
    }

    /// Who makes the tokens of an instance; the control plane needs none.
    pub(crate) fn tokens(&self, planned: &Planned) -> Option<Tokens> {
        let (secret, folder) = (self.secret.clone(), self.folder.clone());
        let (subject, instance) = (planned.subject(), planned.instance.clone());
        (planned.part != Part::ControlPlane).then(|| Tokens { secret, folder, subject, instance, life: TOKEN_LIFE })
    }

    /// Where a gateway listens; `None`: where the mesh file says, also after that has changed.
    fn listen(&self, planned: &Planned) -> Option<SocketAddr> {
        let Part::Gateway { name, listen } = &planned.part else { return None };
        match self.ports.address(&planned.instance, ports::GATEWAY).filter(|_| listen.port() == 0) {
            Some(kept) => Some(SocketAddr::new(listen.ip(), kept.port())),
            None => self.listen.get(name).copied(),
        }
    }
}
