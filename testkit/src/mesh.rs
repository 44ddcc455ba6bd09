//! The hosts of the simulated mesh: each runs one role as it is, and sidecars' hosts their application beside it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use control::authority::Authority;
use control::token;
use meshwork::role::{self, Ground, Threads, member};
use model::config::{Config, Health};
use model::identity::Subject;
use model::name::Name;
use runtime::drain;
use storage::disk::Disk;
use storage::disk::memory::MemoryDisk;

use crate::app;
use crate::history::History;
use crate::shop::{self, APPLICATION_PORT, OUTBOUND_PORT, QUEUE_CONSUMER, TOPIC_CONSUMER};

/// Where the control plane listens.
const CONTROL_PORT: u16 = 15_010;
/// Where inbound listeners are.
const INBOUND_PORT: u16 = 15_008;
/// Where the gateway listens.
pub const GATEWAY_PORT: u16 = 8_080;
/// Certificates are renewed within a run.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(20);
/// Tokens hold for the whole run.
const TOKEN_EXPIRES_S: u64 = 3_600;
/// Every role's own folder on its host's disk.
const FOLDER: &str = "/data";

/// What all hosts know before the run.
pub struct World {
    config: Config,
    secret: token::Secret,
    roots_pem: String,
    /// Each host has a disk of its own that outlives its crashes.
    pub disks: Vec<(&'static str, MemoryDisk)>,
    history: History,
}

impl World {
    /// Prepares the disks, the authority and the configuration.
    ///
    /// # Errors
    /// When the mesh file of the runs is not good.
    pub fn prepare(hosts: &[&'static str], history: History) -> anyhow::Result<Self> {
        let config = model::config::check::check("sim.yaml", shop::MESH)
            .map_err(|findings| anyhow::anyhow!("the simulation's own mesh file: {findings:?}"))?
            .config;
        let disks: Vec<_> = hosts.iter().map(|host| (*host, MemoryDisk::default())).collect();
        let secret = token::Secret::generate()?;
        let mut world = Self { config, secret, roots_pem: String::new(), disks, history };
        let disk = world.disk("control");
        let folder = Path::new(FOLDER);
        disk.create_dir_all(folder)?;
        world.roots_pem = Authority::load_or_create(&disk, folder, &world.config.mesh)?.roots_pem().to_owned();
        Ok(world)
    }

    /// A host's disk.
    #[must_use]
    pub fn disk(&self, host: &str) -> MemoryDisk {
        self.disks.iter().find(|(name, _)| *name == host).map(|(_, disk)| disk.clone()).unwrap_or_default()
    }

    /// Puts every role on its host.
    ///
    /// # Errors
    /// When a name is not good.
    pub fn populate(&self, sim: &mut turmoil::Sim<'_>) -> anyhow::Result<()> {
        self.control(sim)?;
        self.broker(sim)?;
        self.gateway(sim)?;
        for (host, service) in [
            ("orders-0", "orders"),
            ("stock-0", "stock"),
            ("stock-1", "stock"),
            ("shipping-0", QUEUE_CONSUMER),
            ("notifications-0", TOPIC_CONSUMER),
        ] {
            self.service(sim, host, service)?;
        }
        Ok(())
    }

    fn control(&self, sim: &mut turmoil::Sim<'_>) -> anyhow::Result<()> {
        let ground = self.ground("control");
        let (config, secret, instance) = (self.config.clone(), self.secret.clone(), Name::new("control-plane")?);
        sim.host("control", move || {
            let ground = ground.clone();
            let options = role::control_plane::Options {
                config: config.clone(),
                instance: instance.clone(),
                listen: any(CONTROL_PORT),
                admin: None,
                token_secret: secret.clone(),
                certificate_life: CERTIFICATE_LIFE,
                data: PathBuf::from(FOLDER),
                ready_file: None,
            };
            async move { for_ever(|stop| role::control_plane::run(options, ground, stop)).await }
        });
        Ok(())
    }

    fn broker(&self, sim: &mut turmoil::Sim<'_>) -> anyhow::Result<()> {
        let ground = self.ground("broker");
        let member = self.member(sim, "broker", Subject::Broker)?;
        sim.host("broker", move || {
            let ground = ground.clone();
            let options = role::broker::Options {
                member: member.clone(),
                inbound: any(INBOUND_PORT),
                outbound: loopback(OUTBOUND_PORT),
            };
            async move { for_ever(|stop| role::broker::run(options, ground, stop)).await }
        });
        Ok(())
    }

    fn gateway(&self, sim: &mut turmoil::Sim<'_>) -> anyhow::Result<()> {
        let ground = self.ground("gateway");
        let member = self.member(sim, "gateway", Subject::Gateway(Name::new("public")?))?;
        sim.host("gateway", move || {
            let ground = ground.clone();
            let options =
                role::gateway::Options { member: member.clone(), listen: None, outbound: loopback(OUTBOUND_PORT) };
            async move { for_ever(|stop| role::gateway::run(options, ground, stop)).await }
        });
        Ok(())
    }

    fn service(&self, sim: &mut turmoil::Sim<'_>, host: &'static str, service: &'static str) -> anyhow::Result<()> {
        let ground = self.ground(host);
        let member = self.member(sim, host, Subject::Service(Name::new(service)?))?;
        let history = self.history.clone();
        sim.host(host, move || {
            let (ground, history) = (ground.clone(), history.clone());
            let options = role::sidecar::Options {
                member: member.clone(),
                outbound: loopback(OUTBOUND_PORT),
                inbound: any(INBOUND_PORT),
                application_port: APPLICATION_PORT,
                health: Health { path: Some("/healthz".to_owned()), ..Health::default() },
                command: None,
            };
            async move {
                tokio::spawn(application(service, history));
                for_ever(|stop| async { role::sidecar::run(options, ground, stop).await.map(drop) }).await
            }
        });
        Ok(())
    }

    fn ground(&self, host: &str) -> Ground {
        Ground { disk: Arc::new(self.disk(host)), threads: Threads::Inline }
    }

    fn member(&self, sim: &turmoil::Sim<'_>, host: &'static str, subject: Subject) -> anyhow::Result<member::Options> {
        let instance = Name::new(host)?;
        let token = token::mint(&self.secret, &subject, &instance, TOKEN_EXPIRES_S);
        Ok(member::Options {
            mesh: self.config.mesh.clone(),
            subject,
            instance,
            subset: None,
            advertise: Some(SocketAddr::new(sim.lookup(host), INBOUND_PORT)),
            control: format!("control:{CONTROL_PORT}"),
            roots_pem: self.roots_pem.clone(),
            token,
            data: PathBuf::from(FOLDER),
            ready_file: None,
            access_log: false,
        })
    }
}

async fn application(service: &'static str, history: History) {
    let served = match service {
        "stock" => app::serve(APPLICATION_PORT, shop::stock).await,
        "orders" => app::serve(APPLICATION_PORT, move |request| shop::orders(history.clone(), request)).await,
        consumer => {
            app::serve(APPLICATION_PORT, move |request| shop::consumer(consumer, history.clone(), request)).await
        }
    };
    if let Err(error) = served {
        tracing::error!(service, %error, "an application of the simulation ended");
    }
}

/// Roles end only by a crash of their host.
async fn for_ever<F>(run: impl FnOnce(drain::Drain) -> F) -> turmoil::Result
where
    F: Future<Output = anyhow::Result<()>>,
{
    let (_never, stop) = drain::channel();
    run(stop).await.map_err(|error| format!("{error:#}").into())
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
