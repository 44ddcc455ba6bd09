//! A running control plane: its parts, put together.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::control::authority_server::AuthorityServer;
use api::control::discovery_server::DiscoveryServer;
use arc_swap::ArcSwap;
use model::config::Config;
use model::identity::{SpiffeId, Subject};
use model::name::Name;
use runtime::clock;
use runtime::drain::Drain;
use runtime::identity::{self, Credentials, Identity, Request};
use runtime::lanes::Place;
use runtime::metrics::Metrics;
use runtime::net::{Listener, Share};
use storage::disk::Disk;
use tonic::transport::Server;

use crate::authority::{self, Authority};
use crate::client::Life;
use crate::epoch;
use crate::instances::Instances;
use crate::publisher::{self, Beginning, Publisher};
use crate::revisions::Revisions;
use crate::serve::admin::{self, Admin};
use crate::serve::counters::Counters;
use crate::serve::discovery::{Discovery, REPORT_BYTES_MAX};
use crate::serve::enrolment::Enrolment;
use crate::serve::listener::{self, Bounds, Settings};
use crate::token::Secret;
use crate::view;

/// Largest request for a certificate, in bytes.
const ENROLMENT_BYTES_MAX: usize = 16 * 1_024;
/// Requests at a time on one connection: a role has its stream, and now and then a renewal.
const STREAMS_PER_CONNECTION_MAX: u32 = 16;
/// A role that went away without a word is noticed after this and [`KEEPALIVE_TIMEOUT`].
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// How long a role may take to answer a ping.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest time between two looks at the control plane's own certificate. Timers stand still while a machine is suspended, so
/// after it wakes nobody gets in for as long as this.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// The name of the control plane's one instance in its certificate.
const INSTANCE: &str = "control-plane";

/// How a control plane runs.
#[derive(Debug)]
pub struct Options {
    /// The mesh file, proven. The first revision is made of it; where revisions are kept, they win. `None`: there is none, or it is
    /// not good, and the folder must have a revision.
    pub file: Option<Config>,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The control plane's own folder: the authority, the revisions and who lives.
    pub dir: PathBuf,
    /// Where it writes what nobody waits for.
    pub place: Place,
    /// Where roles reach it, over TLS.
    pub listen: SocketAddr,
    /// Where an operator reaches it, plain, on loopback.
    pub admin: Option<SocketAddr>,
    /// What tokens are verified with.
    pub token_secret: Secret,
    /// How long a role's certificate holds. 1 h is usual.
    pub certificate_life: Duration,
    /// How long after its end a role's certificate can still be renewed, by whoever holds its key. 24 h is usual.
    pub renewal_grace: Duration,
    /// Where its metrics are registered.
    pub metrics: Metrics,
    /// Ends it.
    pub drain: Drain,
}

/// Why a control plane did not start or did not publish.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Roles cannot come: the address cannot be listened on.
    #[error("the door for roles: {0}")]
    Listen(#[source] io::Error),
    /// An operator cannot come: the address cannot be listened on.
    #[error("the door for operators: {0}")]
    ListenAdmin(#[source] io::Error),
    /// There is no certificate authority.
    #[error(transparent)]
    Authority(#[from] authority::Error),
    /// The control plane's own identity cannot be used.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The configuration was not published.
    #[error(transparent)]
    Publish(#[from] publisher::Error),
    /// The operator's door has no login, so it opens on loopback only.
    #[error("the admin address {0} is not on loopback")]
    AdminInTheOpen(SocketAddr),
}

/// A running control plane. It runs until its drain, not until this is dropped.
#[derive(Debug)]
pub struct ControlPlane {
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    authority: Arc<Authority>,
    publisher: Arc<Publisher>,
}

impl ControlPlane {
    /// Starts it on the current runtime; its listeners are bound when this returns.
    ///
    /// # Errors
    /// When an address is taken, the folder cannot be read or written, what is in it is of another mesh than the file, or there is
    /// neither a kept revision nor a file.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let Options {
            file,
            disk,
            dir,
            place,
            listen,
            admin,
            token_secret,
            certificate_life,
            renewal_grace,
            metrics,
            drain,
        } = options;
        if let Some(open) = admin.filter(|address| !address.ip().is_loopback()) {
            return Err(Error::AdminInTheOpen(open));
        }
        disk.create_dir_all(&dir)?;
        let lock = disk.lock(&dir)?;
        let revisions = Revisions::open(disk.clone(), &dir)?;
        let beginning = Beginning::choose(revisions.last()?, file)?;
        let authority = Arc::new(Authority::load_or_create(&*disk, &dir, &beginning.config.mesh)?);
        let own = Identity::new(own_credentials(&authority, certificate_life)?)?;
        let counters = Counters::register(&metrics);
        let version = epoch::begin(&*disk, &dir, clock::wall_s())?;
        let instances = Instances::of(disk, &dir);
        let publisher = Arc::new(Publisher::start(revisions, beginning, version, counters.clone())?);
        let door = Listener::open(listen, Share::Alone).await.map_err(Error::Listen)?;
        let address = door.local_addr()?;
        let admin_address = match admin {
            Some(admin) => Some(open_admin(admin, &publisher, &metrics, &drain).await.map_err(Error::ListenAdmin)?),
            None => None,
        };
        let settings: Settings = Arc::new(ArcSwap::new(own.current().server_with_applicants(renewal_grace)?));
        let hub = publisher.hub();
        let enrolment = Enrolment {
            authority: authority.clone(),
            hub: hub.clone(),
            secret: token_secret,
            life: certificate_life,
            grace: renewal_grace,
            counters: counters.clone(),
        };
        let discovery = Discovery::new(hub.clone(), counters, drain.clone());
        let served = serve(door, settings.clone(), enrolment, discovery, drain.clone());
        let kept = instances.follow(hub.clone(), place, drain.clone())?;
        drain.spawn(async move {
            tokio::join!(served, kept);
            // The folder is this control plane's until nobody can ask it for anything, and it writes nothing more.
            drop(lock);
        });
        drain.spawn(hub.clone().expire(drain.clone()));
        let lives = Lives { certificate: certificate_life, grace: renewal_grace };
        drain.spawn(keep_renewed(own, authority.clone(), lives, settings, drain.clone()));
        Ok(Self { address, admin_address, authority, publisher })
    }

    /// Where roles reach it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where an operator reaches it.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// The mesh's roots in PEM, by which a role that enrols knows it.
    #[must_use]
    pub fn roots_pem(&self) -> &str {
        self.authority.roots_pem()
    }

    /// Publishes a configuration and answers its revision.
    ///
    /// # Errors
    /// When it is of another mesh, or could not be kept; then nothing has changed.
    pub fn publish(&self, config: Config) -> Result<u64, Error> {
        Ok(self.publisher.publish(config, None, None)?)
    }

    /// The revision in force.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.publisher.hub().revision().number
    }

    /// The instances that it knows.
    #[must_use]
    pub fn registry(&self) -> Vec<view::Instance> {
        view::registry(self.publisher.hub())
    }

    /// The roles that are connected, and how far each is.
    #[must_use]
    pub fn sidecars(&self) -> Vec<view::Sidecar> {
        view::sidecars(self.publisher.hub())
    }
}

async fn open_admin(
    address: SocketAddr,
    publisher: &Arc<Publisher>,
    metrics: &Metrics,
    drain: &Drain,
) -> io::Result<SocketAddr> {
    let listener = Listener::open(address, Share::Alone).await?;
    let address = listener.local_addr()?;
    let admin = Admin { publisher: publisher.clone(), metrics: metrics.clone() };
    drain.spawn(admin::serve(listener, admin, drain.clone()));
    Ok(address)
}

async fn serve(door: Listener, settings: Settings, enrolment: Enrolment, discovery: Discovery, drain: Drain) {
    let incoming = listener::accept(door, settings, Bounds::default(), &drain);
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .add_service(AuthorityServer::new(enrolment).max_decoding_message_size(ENROLMENT_BYTES_MAX))
        .add_service(DiscoveryServer::new(discovery).max_decoding_message_size(REPORT_BYTES_MAX))
        .serve_with_incoming_shutdown(incoming, async move { drain.requested().await })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the listener for roles ended");
    }
}

/// The control plane signs its own certificate.
fn own_credentials(authority: &Authority, life: Duration) -> Result<Credentials, Error> {
    let id = SpiffeId { mesh: authority.mesh().clone(), subject: Subject::ControlPlane };
    let instance = Name::new(INSTANCE).map_err(io::Error::other)?;
    let Request { key_pem, csr_pem } = Request::new(&id)?;
    let signed = authority.sign_csr(&csr_pem, &id, &instance, clock::wall_s(), life)?;
    Ok(Credentials { chain_pem: signed.chain_pem, key_pem, roots_pem: authority.roots_pem().to_owned() })
}

/// How long certificates hold, and how long after that they can be renewed.
#[derive(Debug, Clone, Copy)]
struct Lives {
    certificate: Duration,
    grace: Duration,
}

/// Keeps the control plane's own certificate from ending.
async fn keep_renewed(own: Identity, authority: Arc<Authority>, lives: Lives, settings: Settings, drain: Drain) {
    tokio::select! {
        () = drain.requested() => {}
        () = renew_for_ever(&own, &authority, lives, &settings) => {}
    }
}

/// What is due is read off the clock at each turn.
async fn renew_for_ever(own: &Identity, authority: &Authority, lives: Lives, settings: &Settings) {
    let mut current = Life::begins(own, 0.0);
    loop {
        let wait = current.due(clock::wall_ms());
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(LOOK_INTERVAL_MAX)).await;
            continue;
        }
        let renewed = own_credentials(authority, lives.certificate).and_then(|credentials| {
            own.replace(credentials)?;
            settings.store(own.current().server_with_applicants(lives.grace)?);
            Ok(())
        });
        match renewed {
            Ok(()) => current = Life::begins(own, 0.0),
            Err(error) => {
                tracing::error!(%error, "the control plane's own certificate could not be renewed");
                tokio::time::sleep(LOOK_INTERVAL_MAX.min(lives.certificate / 10)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
