//! The door to sockets. Nothing else in Meshwork opens one (clippy's disallowed list holds it), so that the same roles
//! run on the machine's network and, with the feature `sim`, on a simulated one.
//!
//! A listener or stream belongs to the simulation exactly when it was opened inside of one.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Connections that may wait to be accepted (`listen(2)`'s backlog).
const BACKLOG: i32 = 4_096;

/// How long a connection is silent before the kernel asks whether the other machine is still there, how long it waits for the answer,
/// and how often it asks (`TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT` of tcp(7)): one that has vanished is noticed after 105
/// seconds, also where nothing is to be sent to it.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 3;

/// A connection.
#[derive(Debug)]
pub struct Stream(Inner);

#[derive(Debug)]
#[expect(clippy::disallowed_types, reason = "this is the door")]
enum Inner {
    Tcp(tokio::net::TcpStream),
    #[cfg(feature = "sim")]
    Sim(turmoil::net::TcpStream),
}

/// Accepts connections.
pub struct Listener(ListenerInner);

#[expect(clippy::disallowed_types, reason = "this is the door")]
enum ListenerInner {
    Tcp(tokio::net::TcpListener),
    #[cfg(feature = "sim")]
    Sim(turmoil::net::TcpListener),
}

/// Opens a connection to `address`, with `TCP_NODELAY` and keepalive.
///
/// # Errors
/// As the operating system says: refused, unreachable, timed out.
pub async fn connect(address: SocketAddr) -> io::Result<Stream> {
    #[cfg(feature = "sim")]
    if turmoil::in_simulation() {
        return Ok(Stream(Inner::Sim(turmoil::net::TcpStream::connect(address).await?)));
    }
    #[expect(clippy::disallowed_types, reason = "this is the door")]
    let stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive())?;
    Ok(Stream(Inner::Tcp(stream)))
}

fn keepalive() -> socket2::TcpKeepalive {
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_TIME);
    keepalive.with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES)
}

/// The addresses of `host:port`, by the machine's resolver; in the simulation, by its hosts' names.
///
/// # Errors
/// When the name is not known or is not of the form `host:port`.
pub async fn resolve(host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host_and_port.parse() {
        return Ok(vec![address]);
    }
    #[cfg(feature = "sim")]
    if turmoil::in_simulation() {
        let odd = || io::Error::new(io::ErrorKind::InvalidInput, format!("{host_and_port:?} is not host:port"));
        let (host, port) = host_and_port.rsplit_once(':').ok_or_else(odd)?;
        return Ok(vec![SocketAddr::new(turmoil::lookup(host), port.parse().map_err(|_| odd())?)]);
    }
    Ok(tokio::net::lookup_host(host_and_port).await?.collect())
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Listener").field(&self.local_addr()).finish()
    }
}

/// How a listener shares its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// The address is this listener's alone.
    Alone,
    /// The first of several listeners on the address, one for each lane. It takes the address as one that is alone does, and
    /// lets others in only then: who sets `SO_REUSEPORT` from the start joins a stranger of the same user who did so too, and each
    /// of the two gets a part of the other's connections.
    FirstLane,
    /// One that joins the first; the kernel spreads connections over all of them (`SO_REUSEPORT`).
    NextLane,
}

impl Listener {
    /// Listens on `address`; port 0 asks for a free one.
    ///
    /// # Errors
    /// As the operating system says, most often `AddrInUse`; the error's text names the address.
    pub fn bind(address: SocketAddr, share: Share) -> io::Result<Self> {
        bind(address, share).map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}")))
    }

    /// Listens on `address` inside of the simulation or on the machine, whichever this is called in.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub async fn open(address: SocketAddr, share: Share) -> io::Result<Self> {
        #[cfg(feature = "sim")]
        if turmoil::in_simulation() {
            return Ok(Self(ListenerInner::Sim(turmoil::net::TcpListener::bind(address).await?)));
        }
        Self::bind(address, share)
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            ListenerInner::Tcp(listener) => listener.local_addr(),
            #[cfg(feature = "sim")]
            ListenerInner::Sim(listener) => listener.local_addr(),
        }
    }

    /// The next connection and its peer, with `TCP_NODELAY` and keepalive.
    ///
    /// # Errors
    /// As the operating system says; the listener stays usable, so the caller logs, waits a little and goes on.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match &self.0 {
            ListenerInner::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream(Inner::Tcp(stream)), peer))
            }
            #[cfg(feature = "sim")]
            ListenerInner::Sim(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream(Inner::Sim(stream)), peer))
            }
        }
    }
}

fn bind(address: SocketAddr, share: Share) -> io::Result<Listener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if share == Share::NextLane {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    // Linux looks at both sockets' settings whenever one comes to an address, so what is set here holds for those that follow.
    if share == Share::FirstLane {
        socket.set_reuse_port(true)?;
    }
    // Connections that are accepted inherit it.
    socket.set_tcp_keepalive(&keepalive())?;
    socket.listen(BACKLOG)?;
    #[expect(clippy::disallowed_types, reason = "this is the door")]
    let listener = tokio::net::TcpListener::from_std(socket.into())?;
    Ok(Listener(ListenerInner::Tcp(listener)))
}

impl Stream {
    /// The other end's address.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Inner::Tcp(stream) => stream.peer_addr(),
            #[cfg(feature = "sim")]
            Inner::Sim(stream) => stream.peer_addr(),
        }
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Inner::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(feature = "sim")]
            Inner::Sim(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Inner::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(feature = "sim")]
            Inner::Sim(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A message without a body is one piece, and `send` costs less than `writev` with one piece.
        if let [only] = bufs {
            return self.poll_write(cx, only);
        }
        match &mut self.get_mut().0 {
            Inner::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            #[cfg(feature = "sim")]
            Inner::Sim(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Inner::Tcp(stream) => stream.is_write_vectored(),
            #[cfg(feature = "sim")]
            Inner::Sim(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Inner::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(feature = "sim")]
            Inner::Sim(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Inner::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "sim")]
            Inner::Sim(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// What [`tonic`] asks of a stream that it serves; the peer is known by its certificate, not by its address.
impl tonic::transport::server::Connected for Stream {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn socket(stream: &Inner) -> socket2::SockRef<'_> {
        match stream {
            Inner::Tcp(stream) => stream.into(),
            #[cfg(feature = "sim")]
            Inner::Sim(_) => panic!("a connection of the simulation"),
        }
    }

    #[tokio::test]
    async fn bytes_go_both_ways() {
        let listener = Listener::open(([127, 0, 0, 1], 0).into(), Share::Alone).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(connect(address), listener.accept());
        let (mut client, (mut server, _)) = (client.unwrap(), server.unwrap());
        client.write_all(b"ping").await.unwrap();
        let mut got = [0; 4];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping");
        server.write_all(b"pong").await.unwrap();
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"pong");
        for Stream(inner) in [&client, &server] {
            let socket = socket(inner);
            let kept = (socket.keepalive().unwrap(), socket.tcp_keepalive_time().unwrap());
            assert_eq!(kept, (true, KEEPALIVE_TIME), "a peer that has vanished is noticed");
            let asked = (socket.tcp_keepalive_interval().unwrap(), socket.tcp_keepalive_retries().unwrap());
            assert_eq!(asked, (KEEPALIVE_INTERVAL, KEEPALIVE_PROBES));
        }
    }

    #[tokio::test]
    async fn a_taken_address_is_named() {
        for holder in [Share::Alone, Share::FirstLane, Share::NextLane] {
            let held = Listener::bind(([127, 0, 0, 1], 0).into(), holder).unwrap();
            let address = held.local_addr().unwrap();
            for share in [Share::Alone, Share::FirstLane] {
                let Err(error) = Listener::bind(address, share) else { panic!("{share:?} joined {holder:?}") };
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
                assert!(error.to_string().contains(&address.to_string()), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn lanes_share_what_the_first_has_taken() {
        let first = Listener::bind(([127, 0, 0, 1], 0).into(), Share::FirstLane).unwrap();
        let address = first.local_addr().unwrap();
        let next = Listener::bind(address, Share::NextLane).unwrap();
        let (mut by_first, mut by_next) = (0, 0);
        // The kernel spreads by a hash of both addresses: that one of two gets none of so many is no chance.
        for _ in 0..128 {
            let _client = connect(address).await.unwrap();
            tokio::select! {
                accepted = first.accept() => by_first += accepted.map(|_| 1).unwrap(),
                accepted = next.accept() => by_next += accepted.map(|_| 1).unwrap(),
            }
        }
        assert!(by_first > 0 && by_next > 0, "{by_first} and {by_next}");
    }
}
