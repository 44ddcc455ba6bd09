//! The end of a sidecar: callers, requests in progress and the application's own last calls lose nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::client::{self, Claim, Health, Hello, Offer, Session, TokenSource};
use control::{ControlPlane, token};
use meshwork::role::deadline::{Deadline, Step};
use meshwork::role::{Ground, Threads, application, member, sidecar};
use model::config;
use model::identity::{SpiffeId, Subject};
use model::name::Name;
use proxy::{AccessLog, DataPlane};
use runtime::drain::{self, Drain};
use runtime::identity::Identity;
use runtime::lanes::Lanes;
use runtime::metrics::Metrics;
use storage::disk::memory::MemoryDisk;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::application::GOOD_NIGHT;
use crate::control_plane;
use crate::process::BOUND;

/// So long that no step of the end is over before the test is.
const STOP_TIMEOUT: Duration = BOUND.saturating_mul(30);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.unwrap_or_else(|_| panic!("it never came: {what}"))
}

/// The status and the body of a GET through the proxy at `proxy`.
async fn get(proxy: SocketAddr, url: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let host = url.trim_start_matches("http://").split('/').next().unwrap();
    let request = format!("GET {url} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    soon(url, stream.read_to_string(&mut text)).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// A service outside of the mesh, whose answers the test gives by hand.
struct Outside(TcpListener);

impl Outside {
    async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// The next request.
    async fn asked(&self) -> BufReader<TcpStream> {
        let (stream, _) = soon("a request to the outside", self.0.accept()).await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).await.unwrap() > 2 {
            line.clear();
        }
        stream
    }
}

async fn answer(mut request: BufReader<TcpStream>, body: &str) {
    let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    request.write_all(text.as_bytes()).await.unwrap();
}

/// A mesh of `front`, which calls `back`, which calls `outside`.
struct Mesh {
    disk: Arc<MemoryDisk>,
    secret: token::Secret,
    plane: ControlPlane,
    drain: Drain,
}

impl Mesh {
    async fn start(outside: SocketAddr, drain: Drain) -> Self {
        let text = format!(
            "mesh: m\n\
             services:\n  \
               front: {{protocol: http, calls: [back]}}\n  \
               back: {{protocol: http, calls: [outside]}}\n  \
               outside: {{protocol: http, external: {{addresses: ['{outside}']}}}}\n"
        );
        let (disk, secret): (Arc<MemoryDisk>, _) = (Arc::default(), token::Secret::generate().unwrap());
        let plane = control_plane::start(&text, disk.clone(), &secret, &drain).await;
        Self { disk, secret, plane, drain }
    }

    fn token(&self, subject: &Subject, instance: &Name) -> TokenSource {
        TokenSource::fixed(token::mint(&self.secret, subject, instance, runtime::clock::wall_s() + 60))
    }

    /// The sidecar of `back`, with an application that calls `outside` when it is told to end.
    async fn back(&self, stop_timeout: Duration, stop: Drain) -> anyhow::Result<i32> {
        let (subject, instance): (Subject, _) = ("service/back".parse().unwrap(), Name::new("back-0").unwrap());
        // The application listens there when it is started.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = sidecar::Options {
            member: member::Options {
                mesh: Name::new("m").unwrap(),
                token: self.token(&subject, &instance),
                subject,
                instance,
                subset: None,
                advertise: None,
                control: self.plane.address().to_string(),
                roots_pem: self.plane.roots_pem().to_owned(),
                data: PathBuf::from("/back"),
                ready_file: None,
                access_log: false,
                stop_timeout,
            },
            outbound: ([127, 0, 0, 1], 0).into(),
            inbound: ([127, 0, 0, 1], 0).into(),
            application_port: port,
            health: config::Health { path: Some("/".to_owned()), ..config::Health::default() },
            command: Some(application::Command {
                words: crate::application::command().split(' ').map(str::to_owned).collect(),
                env: BTreeMap::from([("LAST_CALL".to_owned(), "outside".to_owned())]),
                folder: None,
            }),
        };
        sidecar::run(options, Ground { disk: self.disk.clone(), threads: Threads::Inline }, stop).await
    }

    async fn front(&self) -> Front {
        let (subject, instance): (Subject, _) = ("service/front".parse().unwrap(), Name::new("front-0").unwrap());
        let id = SpiffeId { mesh: Name::new("m").unwrap(), subject: subject.clone() };
        let (control, token) = (self.plane.address().to_string(), self.token(&subject, &instance));
        let roots_pem = self.plane.roots_pem().to_owned();
        let claim = Claim { control: control.clone(), roots_pem, id: id.clone(), instance: instance.clone(), token };
        let identity = Identity::new(client::enrol(&claim, None).await.unwrap()).unwrap();
        let plane = DataPlane::start(proxy::Options {
            mesh: id.mesh,
            subject,
            instance: instance.clone(),
            identity: Some(identity.clone()),
            lanes: Arc::new(Lanes::inline()),
            metrics: Metrics::default(),
            access_log: AccessLog::Off,
            outbound: Some(([127, 0, 0, 1], 0).into()),
            status: None,
            inbound: None,
            gateway: None,
            drain: self.drain.clone(),
        });
        let hello = Hello { instance, subset: None, address: None, version: 0 };
        let (health, healthy) = watch::channel(Health { healthy: true, draining: false });
        let session =
            Session::start(client::Options { control, identity, hello, health: healthy, drain: self.drain.clone() });
        Front { plane: plane.await.unwrap(), session, _health: health }
    }
}

/// A caller that takes up snapshots when the test says so.
struct Front {
    plane: DataPlane,
    session: Session,
    _health: watch::Sender<Health>,
}

impl Front {
    fn address(&self) -> SocketAddr {
        self.plane.outbound_address().unwrap()
    }

    /// The next snapshot in which `back` has so many endpoints; those before it are taken up.
    async fn offered(&mut self, endpoints: usize) -> Offer {
        loop {
            let offer = soon("a snapshot", self.session.next()).await.unwrap();
            if offer.snapshot.services[&Name::new("back").unwrap()].endpoints.len() == endpoints {
                return offer;
            }
            self.take_up(offer);
        }
    }

    fn take_up(&self, offer: Offer) {
        self.plane.apply(Arc::new(offer.snapshot)).unwrap();
        offer.answer.send(Ok(())).unwrap();
    }
}

#[tokio::test]
async fn a_sidecar_that_is_asked_to_end_loses_no_request() {
    let (ending, drain) = drain::channel();
    let outside = Outside::start().await;
    let mesh = Arc::new(Mesh::start(outside.0.local_addr().unwrap(), drain).await);
    let (asking, stop) = drain::channel();
    let running = mesh.clone();
    let back = tokio::spawn(async move { running.back(STOP_TIMEOUT, stop).await });
    let mut front = mesh.front().await;
    let live = front.offered(1).await;
    front.take_up(live);
    let address = front.address();
    let in_progress = tokio::spawn(async move { get(address, "http://back/call/outside").await });
    let held = outside.asked().await;

    asking.drain(Duration::ZERO).await.unwrap();
    let gone = front.offered(0).await;
    let (status, body) = get(address, "http://back/").await;
    assert_eq!(status, 200, "a caller that does not know yet is served: {body}");

    // The control plane hears that the caller knows, and the caller tries again and again all the same.
    gone.answer.send(Ok(())).unwrap();
    soon("that the door is closed", async { while get(address, "http://back/").await.0 == 200 {} }).await;
    answer(held, "from outside").await;
    let answered = soon("what was in progress", in_progress).await.unwrap();
    assert_eq!(answered, (200, "from outside".to_owned()));

    // Only now the application is told to end.
    answer(outside.asked().await, GOOD_NIGHT).await;
    assert_eq!(soon("the end", back).await.unwrap().unwrap(), 0, "the application's last call was answered");
    ending.drain(BOUND).await.unwrap();
}

#[tokio::test]
async fn a_sidecar_whose_control_plane_is_away_serves_on_for_its_share_of_the_end() {
    let (ending, drain) = drain::channel();
    let outside = Outside::start().await;
    let mesh = Arc::new(Mesh::start(outside.0.local_addr().unwrap(), drain).await);
    let (asking, stop) = drain::channel();
    let (running, stop_timeout) = (mesh.clone(), Duration::from_secs(15));
    let back = tokio::spawn(async move { running.back(stop_timeout, stop).await });
    let mut front = mesh.front().await;
    front.offered(1).await;
    ending.drain(BOUND).await.unwrap();

    let share = Deadline::after(stop_timeout).left_for(Step::Withdraw);
    let begun = Instant::now();
    asking.drain(Duration::ZERO).await.unwrap();
    answer(outside.asked().await, GOOD_NIGHT).await;
    let told_after = begun.elapsed();
    assert!(told_after >= share && told_after < stop_timeout, "the application was told to end after {told_after:?}");
    assert_eq!(soon("the end", back).await.unwrap().unwrap(), 0);
}
