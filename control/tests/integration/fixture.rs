//! What the tests stand on: a control plane on a disk in memory, and roles of its mesh.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::control::discovery_client::DiscoveryClient;
use api::control::{Heartbeat, Hello, Report, Snapshot, report};
use control::client::{self, Health, Session};
use control::{ControlPlane, Options, token};
use hyper_util::rt::TokioIo;
use model::config::Config;
use model::identity::{SpiffeId, Subject};
use model::name::Name;
use runtime::drain::{self, Drain, Signal};
use runtime::identity::Identity;
use runtime::metrics::Metrics;
use runtime::{clock, net, tls};
use rustls::ClientConfig;
use storage::disk::memory::MemoryDisk;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// `orders` calls `payments`.
pub const MESH: &str = "
mesh: shop
services:
  orders: {command: shop orders, calls: [payments]}
  payments: {command: shop payments}
";

/// How long a condition may take to come true on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn config(text: &str) -> Config {
    match model::config::check::check("mesh.yaml", text) {
        Ok(checked) => checked.config,
        Err(findings) => panic!("{findings:#?}"),
    }
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn id(subject: &str) -> SpiffeId {
    format!("spiffe://shop/{subject}").parse().unwrap()
}

/// Waits until `condition` holds; `what` it is stands in the failure.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, holds).await.is_ok(), "it never came: {what}");
}

/// Waits for `future`, and not for ever.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("it never came: {what}"))
}

/// A machine on which a control plane starts, ends and starts again.
pub struct Machine {
    pub disk: Arc<MemoryDisk>,
    pub secret: token::Secret,
    listen: SocketAddr,
    pub life: Duration,
}

/// A control plane that runs.
pub struct Running {
    pub plane: ControlPlane,
    pub secret: token::Secret,
    signal: Signal,
    pub drain: Drain,
}

impl Machine {
    pub fn new() -> Self {
        Self {
            disk: Arc::default(),
            secret: token::Secret::generate().unwrap(),
            listen: ([127, 0, 0, 1], 0).into(),
            life: Duration::from_hours(1),
        }
    }

    fn options(&self, mesh: &str, drain: &Drain) -> Options {
        Options {
            config: config(mesh),
            disk: self.disk.clone(),
            dir: PathBuf::from("/control"),
            listen: self.listen,
            admin: Some(([127, 0, 0, 1], 0).into()),
            token_secret: self.secret.clone(),
            certificate_life: self.life,
            metrics: Metrics::default(),
            drain: drain.clone(),
        }
    }

    /// Why it does not start.
    pub async fn refused(&self, mesh: &str) -> control::Error {
        let (_signal, drain) = drain::channel();
        ControlPlane::start(self.options(mesh, &drain)).await.unwrap_err()
    }

    pub async fn start(&mut self, mesh: &str) -> Running {
        let (signal, drain) = drain::channel();
        let options = || self.options(mesh, &drain);
        // It listens again where it listened before; another test may have a connection from that very port for a moment.
        let start = async {
            loop {
                match ControlPlane::start(options()).await {
                    Err(error) if format!("{error:?}").contains("AddrInUse") => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    started => return started.unwrap(),
                }
            }
        };
        let plane = soon("a free port", start).await;
        self.listen = plane.address();
        Running { plane, secret: self.secret.clone(), signal, drain }
    }
}

impl Running {
    /// Ends it and waits for that.
    pub async fn stop(self) {
        self.signal.drain(PATIENCE).await.unwrap();
    }

    pub fn control(&self) -> String {
        self.plane.address().to_string()
    }

    pub fn token(&self, subject: &str) -> String {
        let subject: Subject = subject.parse().unwrap();
        token::mint(&self.secret, &subject, &name("any-0"), clock::wall_s() + 60)
    }

    pub async fn enrolled(&self, subject: &str) -> Identity {
        let (control, token) = (self.control(), self.token(subject));
        let subject = id(subject);
        let enrolling = client::enrol(&control, self.plane.roots_pem(), &token, &subject);
        Identity::new(soon("a certificate", enrolling).await.unwrap()).unwrap()
    }

    /// Whether the registry tells others of `instance`.
    pub fn is_live(&self, instance: &str) -> bool {
        self.plane.registry().iter().any(|known| known.instance.as_str() == instance && known.live)
    }
}

/// A role of the mesh with a session of its own.
pub struct Role {
    pub session: Session,
    pub health: watch::Sender<Health>,
    signal: Signal,
}

impl Role {
    pub fn start(control: String, identity: Identity, instance: &str, port: u16) -> Self {
        let (signal, drain) = drain::channel();
        let (health, receiver) = watch::channel(Health { healthy: true, draining: false });
        let hello = client::Hello {
            instance: name(instance),
            subset: None,
            address: Some(([127, 0, 0, 1], port).into()),
            version: 0,
        };
        let session = Session::start(client::Options { control, identity, hello, health: receiver, drain });
        Self { session, health, signal }
    }

    /// Takes up the next snapshot.
    pub async fn applied(&mut self) -> model::snapshot::Snapshot {
        let offer = soon("a snapshot", self.session.next()).await.unwrap();
        offer.answer.send(Ok(())).unwrap();
        offer.snapshot
    }

    /// Takes up snapshots until one has these instances of `service`.
    pub async fn told_of(&mut self, service: &str, expected: &[&str]) -> model::snapshot::Snapshot {
        let telling = async {
            loop {
                let snapshot = self.applied().await;
                if endpoints(&snapshot, service) == expected {
                    return snapshot;
                }
            }
        };
        soon(&format!("{service} at {expected:?}"), telling).await
    }

    /// Ends it as a role ends that was asked to.
    pub async fn stop(self) {
        self.signal.drain(PATIENCE).await.unwrap();
    }
}

/// The instances of `service` in a snapshot.
pub fn endpoints(snapshot: &model::snapshot::Snapshot, service: &str) -> Vec<String> {
    snapshot.services[&name(service)].endpoints.iter().map(|endpoint| endpoint.instance.to_string()).collect()
}

/// A channel over TLS settings of the test's choice.
pub async fn channel(running: &Running, settings: Arc<ClientConfig>) -> Channel {
    let address = running.plane.address();
    let connector = tower::service_fn(move |_| {
        let settings = settings.clone();
        async move { tls::connect(net::connect(address).await?, settings).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://control-plane").connect_with_connector(connector).await.unwrap()
}

/// A bare stream, for what a session would never do. Dropping it is a crash: nobody says goodbye.
pub struct Bare {
    reports: mpsc::Sender<Report>,
    pub snapshots: Streaming<Snapshot>,
}

impl Bare {
    pub async fn open(running: &Running, settings: Arc<ClientConfig>, hello: Hello) -> Result<Self, tonic::Status> {
        let (reports, outgoing) = mpsc::channel(4);
        reports.send(Report { report: Some(report::Report::Hello(hello)) }).await.unwrap();
        let mut client = DiscoveryClient::new(channel(running, settings).await);
        let snapshots = client.sync(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { reports, snapshots })
    }

    pub async fn beat(&self, healthy: bool) {
        let beat = Heartbeat { healthy, draining: false };
        self.reports.send(Report { report: Some(report::Report::Heartbeat(beat)) }).await.unwrap();
    }

    /// How the stream ends.
    pub async fn end(mut self) -> tonic::Status {
        loop {
            match soon("the end of the stream", self.snapshots.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => return tonic::Status::ok("ended"),
                Err(status) => return status,
            }
        }
    }
}

pub fn hello(instance: &str, port: u16) -> Hello {
    Hello { instance: instance.to_owned(), address: format!("127.0.0.1:{port}"), ..Hello::default() }
}
