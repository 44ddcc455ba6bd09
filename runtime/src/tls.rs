//! TLS over the door's streams: TLS 1.3 and workload identities inside of the mesh, the machine's roots outside of it.
//!
//! Who a peer is, is decided in `verify`; which certificate is shown, in [`crate::identity`].
//!
//! Sessions resume (RFC 8446 §2.2), and rustls verifies nothing anew when they do. So after every handshake the peer's
//! certificate is held against the clock once more, on both sides: a session ends with the certificate that it was begun with.

mod peer;
mod verify;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use model::unit::write_duration;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::clock;
use crate::net::Stream;

pub use peer::Peer;
pub(crate) use verify::{Admission, ClientVerifier, ServerVerifier, provider, roots_of};

/// A stream on which we were called.
pub type Accepted = tokio_rustls::server::TlsStream<Stream>;
/// A stream on which we call.
pub type Connected = tokio_rustls::client::TlsStream<Stream>;

/// Application protocols (RFC 7301), in the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alpn {
    /// `http/1.1`
    Http1,
    /// `h2`
    Http2,
}

impl Alpn {
    /// The protocol's registered identification sequence.
    #[must_use]
    pub fn wire(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// Shakes hands with a client, which has a certificate of this mesh that holds.
///
/// # Errors
/// When the handshake fails: no certificate, one that is not of this mesh, one that has ended, a client that went away.
pub async fn accept(stream: Stream, config: Arc<ServerConfig>) -> io::Result<(Accepted, Option<Peer>)> {
    let (stream, peer) = accept_ended(stream, config).await?;
    peer.as_ref().map_or(Ok(()), holds)?;
    Ok((stream, peer))
}

/// As [`accept`], for the control plane, whose `config` lets in strangers, who have yet to enrol, and certificates that ended a
/// short while ago, which have yet to be renewed. Whoever serves such a peer looks at [`Peer::ended_for_s`] at each request.
///
/// # Errors
/// As [`accept`].
pub async fn accept_ended(stream: Stream, config: Arc<ServerConfig>) -> io::Result<(Accepted, Option<Peer>)> {
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let peer = peer_of(stream.get_ref().1.peer_certificates())?;
    Ok((stream, peer))
}

/// Shakes hands with a server inside of the mesh; whom it must prove to be is part of `config`.
///
/// # Errors
/// When the handshake fails.
pub async fn connect(stream: Stream, config: Arc<ClientConfig>) -> io::Result<Connected> {
    // Inside of the mesh a server is known by its SPIFFE ID alone; the name is never looked at.
    let name = ServerName::try_from("meshwork").map_err(io::Error::other)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    peer_of(stream.get_ref().1.peer_certificates())?.as_ref().map_or(Ok(()), holds)?;
    Ok(stream)
}

fn peer_of(chain: Option<&[CertificateDer<'_>]>) -> io::Result<Option<Peer>> {
    chain.and_then(|chain| chain.first()).map(Peer::read).transpose().map_err(io::Error::other)
}

/// Whether the peer's certificate holds now, as the handshake that it was verified in may be long past.
fn holds(peer: &Peer) -> io::Result<()> {
    match peer.ended_for_s(clock::wall_s()) {
        0 => Ok(()),
        ago_s => {
            let why =
                format!("the certificate of {} expired {} ago", peer.id, write_duration(Duration::from_secs(ago_s)));
            Err(io::Error::new(io::ErrorKind::InvalidData, why))
        }
    }
}

/// Shakes hands with a server outside of the mesh, verified under `name`.
///
/// # Errors
/// When `name` is not a host name or the handshake fails.
pub async fn connect_external(stream: Stream, config: Arc<ClientConfig>, name: &str) -> io::Result<Connected> {
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}

/// The settings for servers outside of the mesh: TLS 1.2 and up, `roots_pem` or else the machine's roots.
///
/// # Errors
/// When there is not one usable root.
pub fn external(roots_pem: Option<&[u8]>, alpn: Alpn) -> io::Result<Arc<ClientConfig>> {
    let roots = roots_pem.map_or_else(machine_roots, external_roots)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A session that resumes is not verified anew. Such a server may take tickets from before its certificate was renewed, so
    // that what a resumed session shows may have ended although all is well: here every handshake is a whole one.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![alpn.wire().to_vec()];
    Ok(Arc::new(config))
}

/// Trusted roots for servers outside of the mesh.
///
/// # Errors
/// When what stands there is not PEM, holds no certificate, or one that cannot be a root.
pub fn external_roots(pem: &[u8]) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let odd = |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        roots.add(certificate.map_err(|error| odd(&error))?).map_err(|error| odd(&error))?;
    }
    if roots.is_empty() { Err(no_roots("no certificate in PEM stands there")) } else { Ok(roots) }
}

fn machine_roots() -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(no_roots("this machine has no trusted root certificate")) } else { Ok(roots) }
}

fn no_roots(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, why)
}

/// What [`tonic`] asks of a stream that it serves is who called, which a request finds as an extension.
impl tonic::transport::server::Connected for Served {
    type ConnectInfo = Caller;
    fn connect_info(&self) -> Self::ConnectInfo {
        self.caller.clone()
    }
}

/// Who called, and from where.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who it has proven to be; `None` for one who has yet to enrol.
    pub peer: Option<Peer>,
    /// The other end's address.
    pub from: SocketAddr,
}

/// An accepted stream with its caller, for servers of `tonic`.
pub struct Served {
    /// The stream.
    pub stream: Accepted,
    /// Who is at its other end.
    pub caller: Caller,
    /// When this resolves nothing is read from the stream any more and the connection ends; `None`: it may stand for ever.
    pub end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl tokio::io::AsyncRead for Served {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        if self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
            self.end = None;
            return std::task::Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        std::pin::Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl tokio::io::AsyncWrite for Served {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
