//! The hosts of the simulated mesh: each runs one role as it is, and sidecars' hosts their application beside it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use control::authority::Authority;
use control::client::TokenSource;
use control::token;
use http::Request;
use http::header::HOST;
use meshwork::role::{self, Ground, Threads, member};
use model::config::{Config, Health};
use model::identity::Subject;
use model::name::Name;
use runtime::clock;
use runtime::drain::{self, Drain};
use runtime::http::full;
use storage::disk::Disk;
use storage::disk::memory::MemoryDisk;

use crate::app::{self, Speaks};
use crate::history::{Event, History};
use crate::levels::{self, Stream};
use crate::packing;
use crate::shop::{self, APPLICATION_PORT, OUTBOUND_PORT, PULL_CONSUMER, QUEUE_CONSUMER, TOPIC_CONSUMER};

/// Where the control plane listens.
const CONTROL_PORT: u16 = 15_010;
/// Where an operator reaches it.
const ADMIN_PORT: u16 = 15_011;
/// Where inbound listeners are.
const INBOUND_PORT: u16 = 15_008;
/// Where the gateway listens.
pub const GATEWAY_PORT: u16 = 8_080;
/// Certificates end several times within a run.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(6);
/// From a role's end to its next start.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// No role of a run is asked to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Before an operator asks again.
const OPERATOR_PAUSE: Duration = Duration::from_millis(500);
/// A token is made when it is asked for, as `up` keeps a fresh one in its place. It holds for longer than the control plane may take
/// to sign: a role that starts is ended by a token that is refused.
const TOKEN_LIFE_S: u64 = 6;
/// Every role's own folder on its host's disk.
const FOLDER: &str = "/data";

/// What all hosts know before the run.
pub struct World {
    /// The mesh file with which the control plane begins.
    config: Config,
    /// The revision of it that an operator wants.
    wanted: Arc<AtomicU32>,
    mesh: Name,
    secret: token::Secret,
    roots_pem: String,
    /// Each host has a disk of its own that outlives its crashes.
    pub disks: Vec<(&'static str, MemoryDisk)>,
    history: History,
    /// What `orders` watches.
    stream: Stream,
}

impl World {
    /// Prepares the disks, the authority and the configuration.
    ///
    /// # Errors
    /// When the mesh file of the runs is not good.
    pub fn prepare(hosts: &[&'static str], history: History, stream: Stream) -> anyhow::Result<Self> {
        let config = shop::revision(1)?;
        let disks: Vec<_> = hosts.iter().map(|host| (*host, MemoryDisk::default())).collect();
        let secret = token::Secret::generate()?;
        let mesh = config.mesh.clone();
        let wanted = Arc::new(AtomicU32::new(1));
        let mut world = Self { config, wanted, mesh, secret, roots_pem: String::new(), disks, history, stream };
        let disk = world.disk("control");
        let folder = Path::new(FOLDER);
        disk.create_dir_all(folder)?;
        world.roots_pem = Authority::load_or_create(&disk, folder, &world.mesh)?.roots_pem().to_owned();
        Ok(world)
    }

    /// From the control plane's next start on an operator publishes the second revision.
    pub fn revise(&self) {
        self.wanted.store(2, Ordering::Relaxed);
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
            ("packing-0", PULL_CONSUMER),
            ("levels-0", levels::SERVICE),
        ] {
            self.service(sim, host, service)?;
        }
        Ok(())
    }

    fn control(&self, sim: &mut turmoil::Sim<'_>) -> anyhow::Result<()> {
        let ground = self.ground("control");
        let (config, secret, instance) = (self.config.clone(), self.secret.clone(), Name::new("control-plane")?);
        let (history, wanted) = (self.history.clone(), self.wanted.clone());
        sim.host("control", move || {
            let (ground, history) = (ground.clone(), history.clone());
            let (config, secret, instance) = (config.clone(), secret.clone(), instance.clone());
            let wanted = wanted.clone();
            let options = move || role::control_plane::Options {
                file: Some(config.clone()),
                instance: instance.clone(),
                listen: any(CONTROL_PORT),
                admin: Some(loopback(ADMIN_PORT)),
                token_secret: secret.clone(),
                certificate_life: CERTIFICATE_LIFE,
                data: PathBuf::from(FOLDER),
                ready_file: None,
            };
            async move {
                tokio::spawn(operator(wanted.load(Ordering::Relaxed)));
                let run = async |stop| role::control_plane::run(options(), ground.clone(), stop).await;
                for_ever("control", history, run).await
            }
        });
        Ok(())
    }

    fn broker(&self, sim: &mut turmoil::Sim<'_>) -> anyhow::Result<()> {
        let ground = self.ground("broker");
        let member = self.member(sim, "broker", Subject::Broker)?;
        let history = self.history.clone();
        sim.host("broker", move || {
            let (ground, history) = (ground.clone(), history.clone());
            let member = member.clone();
            let options = move || role::broker::Options {
                member: member.clone(),
                inbound: any(INBOUND_PORT),
                status: loopback(OUTBOUND_PORT),
            };
            async move {
                let run = async |stop| role::broker::run(options(), ground.clone(), stop).await;
                for_ever("broker", history, run).await
            }
        });
        Ok(())
    }

    fn gateway(&self, sim: &mut turmoil::Sim<'_>) -> anyhow::Result<()> {
        let ground = self.ground("gateway");
        let member = self.member(sim, "gateway", Subject::Gateway(Name::new("public")?))?;
        let history = self.history.clone();
        sim.host("gateway", move || {
            let (ground, history) = (ground.clone(), history.clone());
            let member = member.clone();
            let options = move || role::gateway::Options {
                member: member.clone(),
                listen: None,
                status: loopback(OUTBOUND_PORT),
            };
            async move {
                let run = async |stop| role::gateway::run(options(), ground.clone(), stop).await;
                for_ever("gateway", history, run).await
            }
        });
        Ok(())
    }

    fn service(&self, sim: &mut turmoil::Sim<'_>, host: &'static str, service: &'static str) -> anyhow::Result<()> {
        let ground = self.ground(host);
        let member = self.member(sim, host, Subject::Service(Name::new(service)?))?;
        let (history, stream) = (self.history.clone(), self.stream);
        let health = if service == levels::SERVICE {
            Health::default()
        } else {
            Health { path: Some("/healthz".to_owned()), ..Health::default() }
        };
        sim.host(host, move || {
            let health = health.clone();
            let (ground, history, member) = (ground.clone(), history.clone(), member.clone());
            let options = move || role::sidecar::Options {
                member: member.clone(),
                outbound: loopback(OUTBOUND_PORT),
                inbound: any(INBOUND_PORT),
                application_port: APPLICATION_PORT,
                health: health.clone(),
                command: None,
            };
            async move {
                tokio::spawn(application(host, service, history.clone(), stream));
                let run = async |stop| role::sidecar::run(options(), ground.clone(), stop).await.map(drop);
                for_ever(host, history, run).await
            }
        });
        Ok(())
    }

    fn token(&self, subject: &Subject, instance: &Name) -> TokenSource {
        let (secret, subject, instance) = (self.secret.clone(), subject.clone(), instance.clone());
        TokenSource::new(move || Ok(token::mint(&secret, &subject, &instance, clock::wall_s() + TOKEN_LIFE_S)))
    }

    fn ground(&self, host: &str) -> Ground {
        Ground { disk: Arc::new(self.disk(host)), threads: Threads::Inline }
    }

    fn member(&self, sim: &turmoil::Sim<'_>, host: &'static str, subject: Subject) -> anyhow::Result<member::Options> {
        let instance = Name::new(host)?;
        let token = self.token(&subject, &instance);
        Ok(member::Options {
            mesh: self.mesh.clone(),
            subject,
            instance,
            subset: shop::subset(host).map(Name::new).transpose()?,
            advertise: Some(SocketAddr::new(sim.lookup(host), INBOUND_PORT)),
            control: format!("control:{CONTROL_PORT}"),
            roots_pem: self.roots_pem.clone(),
            token,
            data: PathBuf::from(FOLDER),
            ready_file: None,
            access_log: false,
            stop_timeout: STOP_TIMEOUT,
        })
    }
}

/// Publishes a revision of the mesh file, as whoever runs a mesh does: again until the control plane has taken it.
async fn operator(revision: u32) {
    let text = Bytes::from(shop::mesh_file(revision));
    loop {
        let request = Request::post("/v1/mesh").header(HOST, "control").body(text.clone());
        if let Ok(request) = request
            && let Ok(answer) = app::call(loopback(ADMIN_PORT), request).await
            && answer.status().is_success()
        {
            return;
        }
        tokio::time::sleep(OPERATOR_PAUSE).await;
    }
}

async fn application(host: &'static str, service: &'static str, history: History, stream: Stream) {
    let serving = match service {
        "stock" => {
            app::serve(APPLICATION_PORT, Speaks::Http1, move |request| {
                let answer = shop::stock(host, history.clone(), request);
                async move { answer.await.map(full) }
            })
            .await
        }
        "orders" => {
            tokio::spawn(levels::use_levels(history.clone(), stream));
            app::serve(APPLICATION_PORT, Speaks::Http1, move |request| {
                let answer = shop::orders(history.clone(), request);
                async move { answer.await.map(full) }
            })
            .await
        }
        levels::SERVICE => app::serve(APPLICATION_PORT, Speaks::Http2, levels::levels).await,
        consumer => {
            if consumer == PULL_CONSUMER {
                tokio::spawn(packing::pack(history.clone()));
            }
            app::serve(APPLICATION_PORT, Speaks::Http1, move |request| {
                let answer = shop::consumer(consumer, history.clone(), request);
                async move { answer.await.map(full) }
            })
            .await
        }
    };
    if let Err(error) = serving {
        tracing::error!(service, %error, "an application of the simulation ended");
    }
}

/// A role ends by a crash of its host, or when its disk fails it; then it is started again, as who runs processes does.
async fn for_ever(
    host: &'static str,
    history: History,
    run: impl AsyncFn(Drain) -> anyhow::Result<()>,
) -> turmoil::Result {
    loop {
        let (_never, stop) = drain::channel();
        let ended = run(stop).await;
        let why = ended.map_or_else(|error| format!("{error:#}"), |()| "without an error".to_owned());
        tracing::warn!(host, why, "a role ended");
        history.record(Event::Ended { host, why });
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
