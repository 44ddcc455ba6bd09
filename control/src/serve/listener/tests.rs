//! Connections that prove nothing do not keep others out.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use model::identity::{SpiffeId, Subject};
use model::name::Name;
use runtime::drain;
use runtime::identity::{self, Credentials, Identity, Request};
use runtime::net::{self, Share};
use runtime::tls::Alpn;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio_stream::StreamExt as _;

use super::*;
use crate::authority::Authority;

/// How long a condition may take to come true on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// So long that they are over only where a test makes them short.
const LONG: Duration = Duration::from_hours(1);
const BOUNDS: Bounds = Bounds { unproven_max: 8, handshake: LONG, unproven: LONG };

struct Door {
    authority: Authority,
    address: SocketAddr,
    served: ReceiverStream<Result<Served, std::io::Error>>,
    _signal: drain::Signal,
}

impl Door {
    async fn open(bounds: Bounds) -> Self {
        let authority = Authority::create(&Name::new("shop").unwrap(), clock::wall_s()).unwrap();
        let own = identity(&authority, "spiffe://shop/control-plane", Duration::from_hours(1));
        let settings = own.current().server_with_applicants(Duration::from_hours(1)).unwrap();
        let (signal, drain) = drain::channel();
        let listener = Listener::open(([127, 0, 0, 1], 0).into(), Share::Alone).await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = accept(listener, Arc::new(ArcSwap::new(settings)), bounds, &drain);
        Self { authority, address, served, _signal: signal }
    }

    /// A connection that says nothing.
    async fn silent(&self) -> Stream {
        net::connect(self.address).await.unwrap()
    }

    /// A connection that shakes hands without a certificate.
    async fn stranger(&mut self) -> (tls::Connected, Served) {
        let settings = identity::enrolment(&Name::new("shop").unwrap(), self.authority.roots_pem()).unwrap();
        self.shake(settings).await
    }

    async fn shake(&mut self, settings: Arc<rustls::ClientConfig>) -> (tls::Connected, Served) {
        let connecting = async { tls::connect(net::connect(self.address).await?, settings).await };
        let both = async { tokio::join!(connecting, self.served.next()) };
        let (connected, served) = tokio::time::timeout(PATIENCE, both).await.expect("a handshake");
        (connected.unwrap(), served.unwrap().unwrap())
    }
}

fn identity(authority: &Authority, id: &str, life: Duration) -> Identity {
    let (id, instance): (SpiffeId, _) = (id.parse().unwrap(), Name::new("any-0").unwrap());
    let Request { key_pem, csr_pem } = Request::new(&id).unwrap();
    let begin_s = clock::wall_s() - 60;
    let chain_pem = authority.sign_csr(&csr_pem, &id, &instance, begin_s, life).unwrap().chain_pem;
    Identity::new(Credentials { chain_pem, key_pem, roots_pem: authority.roots_pem().to_owned() }).unwrap()
}

/// Waits until the other end has closed `stream`.
async fn closed(mut stream: impl AsyncRead + Unpin) {
    let mut byte = [0];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await.expect("the end of a connection");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

/// Whether nothing ends the reading of `stream` now.
async fn stands(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    poll_fn(|cx| {
        let mut room = [0];
        Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut room)).is_pending())
    })
    .await
}

#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let mut door = Door::open(BOUNDS).await;
    let mut silent = Vec::new();
    for _ in 0..BOUNDS.unproven_max * 10 {
        silent.push(door.silent().await);
    }
    let (mut client, mut served) = door.stranger().await;
    assert!(stands(&mut served).await);
    client.write_all(b"x").await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(served.read_u8().await.unwrap(), b'x');
    // The oldest were ended, the latest stand until their time is over.
    closed(silent.remove(0)).await;
    closed(silent.remove(0)).await;
    assert!(stands(silent.last_mut().unwrap()).await);
}

#[tokio::test]
async fn strangers_keep_nobody_out_and_members_stay() {
    let mut door = Door::open(BOUNDS).await;
    let orders = identity(&door.authority, "spiffe://shop/service/orders", Duration::from_hours(1));
    let settings = orders.current().client(&Subject::ControlPlane, Alpn::Http2).unwrap();
    let (_client, mut member) = door.shake(settings).await;
    let ended = identity(&door.authority, "spiffe://shop/service/orders", Duration::from_secs(1));
    let settings = ended.current().client(&Subject::ControlPlane, Alpn::Http2).unwrap();
    let (_ended_client, mut ended) = door.shake(settings).await;
    assert!(ended.caller.peer.is_some() && stands(&mut ended).await);
    let mut strangers = Vec::new();
    for _ in 0..BOUNDS.unproven_max {
        let (client, mut served) = door.stranger().await;
        assert!(stands(&mut served).await);
        strangers.push((client, served));
    }
    assert!(stands(&mut member).await, "who is a member is not among them");
    assert!(!stands(&mut ended).await, "a certificate that ended proves nothing yet");
    drop(strangers.remove(0));
    let (_client, mut latest) = door.stranger().await;
    assert!(
        stands(&mut latest).await && stands(&mut strangers[0].1).await,
        "a place that is free again is taken first"
    );
}

#[tokio::test]
async fn who_proves_nothing_in_time_is_ended() {
    let short = Duration::from_millis(50);
    let door = Door::open(Bounds { handshake: short, ..BOUNDS }).await;
    let began = Instant::now();
    closed(door.silent().await).await;
    assert!(began.elapsed() >= short, "it has its time: {:?}", began.elapsed());
    let mut door = Door::open(Bounds { unproven: short, ..BOUNDS }).await;
    let began = Instant::now();
    let (_client, served) = door.stranger().await;
    closed(served).await;
    assert!(began.elapsed() >= short, "it has its time: {:?}", began.elapsed());
}
