//! Making a connection: resolve, connect, shake hands, start HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use model::config::Protocol;
use model::identity::Subject;
use policy::time::Tick;
use runtime::http::BoxError;
use runtime::identity::Identity;
use runtime::net::Stream;
use runtime::tls::{self, Alpn};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::Pool;
use super::http2::{self, Pings};
use crate::body::RequestBody;
use crate::request::{MESH_FIELDS_MAX, OWN_BYTES_MAX};

/// Longest wait for a connection, its TLS handshake included.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for the SETTINGS that begin HTTP/2. An application that is busy takes a connection long before it looks at it.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(10);
/// Read buffer of one HTTP/1.1 connection; an answer's head must fit. hyper bounds its fields to 100, where another sidecar has not
/// put its own on top of them.
const ANSWER_HEAD_BYTES_MAX: usize = 64 << 10;

/// How an endpoint is reached.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    pub(crate) address: Address,
    pub(crate) security: Security,
}

/// What it takes to make a connection to one endpoint.
#[derive(Debug)]
pub(crate) struct Dialler {
    pub(crate) dial: Dial,
    pub(crate) identity: Option<Identity>,
    /// The origin of all ticks.
    pub(crate) origin: Instant,
}

impl Dialler {
    pub(super) fn now(&self) -> Tick {
        Tick::since_origin(self.origin.elapsed())
    }
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket address.
    Socket(SocketAddr),
    /// `host:port`, resolved anew for each connection.
    Named(String),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => write!(f, "{address}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// What protects a connection.
#[derive(Debug, Clone)]
pub(crate) enum Security {
    /// Nothing: loopback, or a service outside of the mesh that says so.
    Plain,
    /// Mutual TLS; the endpoint must prove to be this subject.
    Mesh(Subject),
    /// TLS under a public name.
    External { name: String, roots: Option<String>, config: Arc<ClientConfig> },
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    #[error("{0} does not resolve: {1}")]
    Resolve(String, io::Error),
    #[error("connection refused")]
    Refused,
    #[error("no connection within {}", model::unit::write_duration(CONNECT_TIMEOUT))]
    Timeout,
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
    #[error("this sidecar has no identity to show")]
    NoIdentity,
    #[error("this sidecar's identity cannot be shown: {0}")]
    Identity(String),
    #[error("HTTP could not be started: {0}")]
    Start(BoxError),
    /// What another request has found out for all that wait.
    #[error(transparent)]
    FoundByAnother(Arc<Unreachable>),
    #[error("HTTP/2 did not begin within {}: no SETTINGS came", model::unit::write_duration(SETTINGS_TIMEOUT))]
    Settings,
}

/// A fresh connection, ready for a request.
pub(crate) enum NewConnection {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::Client),
}

/// Makes a connection for `pool`. Its driver runs as a task on the current runtime and ends with the connection.
pub(super) async fn dial(
    dialler: &Dialler,
    protocol: Protocol,
    pool: &Weak<Pool>,
) -> Result<NewConnection, Unreachable> {
    let Dial { address, security } = &dialler.dial;
    let alpn = match protocol {
        Protocol::Http => Alpn::Http1,
        Protocol::Grpc => Alpn::Http2,
    };
    match security {
        Security::Plain => {
            let stream = in_time(open(address)).await?;
            start(stream, protocol, false, pool).await
        }
        Security::Mesh(subject) => {
            let connecting = async {
                let stream = open(address).await?;
                let identity = dialler.identity.as_ref().ok_or(Unreachable::NoIdentity)?.current();
                let config =
                    identity.client(subject, alpn).map_err(|error| Unreachable::Identity(error.to_string()))?;
                tls::connect(stream, config).await.map_err(|error| Unreachable::Tls(error.to_string()))
            };
            start(in_time(connecting).await?, protocol, true, pool).await
        }
        Security::External { name, config, .. } => {
            let connecting = async {
                let stream = tls::connect_external(open(address).await?, config.clone(), name).await;
                stream.map_err(|error| Unreachable::Tls(error.to_string()))
            };
            start(in_time(connecting).await?, protocol, false, pool).await
        }
    }
}

async fn in_time<S>(connecting: impl Future<Output = Result<S, Unreachable>>) -> Result<S, Unreachable> {
    tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or(Err(Unreachable::Timeout))
}

async fn open(address: &Address) -> Result<Stream, Unreachable> {
    match address {
        Address::Socket(address) => runtime::net::connect(*address).await.map_err(unreachable),
        Address::Named(name) => {
            let resolved = runtime::net::resolve(name).await.map_err(|e| Unreachable::Resolve(name.clone(), e))?;
            let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            let mut last = Unreachable::Resolve(name.clone(), none());
            for address in resolved {
                match runtime::net::connect(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = unreachable(error),
                }
            }
            Err(last)
        }
    }
}

fn unreachable(error: io::Error) -> Unreachable {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Unreachable::Refused,
        io::ErrorKind::TimedOut => Unreachable::Timeout,
        _ => Unreachable::Connect(error),
    }
}

/// Starts HTTP. `in_mesh`: another sidecar is at the other end.
async fn start<S>(stream: S, protocol: Protocol, in_mesh: bool, pool: &Weak<Pool>) -> Result<NewConnection, Unreachable>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match protocol {
        Protocol::Http => {
            let mut builder = http1::Builder::new();
            builder.max_buf_size(ANSWER_HEAD_BYTES_MAX).writev(false);
            if in_mesh {
                builder.max_buf_size(ANSWER_HEAD_BYTES_MAX + OWN_BYTES_MAX).max_headers(MESH_FIELDS_MAX);
            } else {
                // RFC 9112 §5.1: a proxy takes it off, and does not refuse the answer for it.
                builder.allow_spaces_after_header_name_in_responses(true);
            }
            let started = builder.handshake(TokioIo::new(stream)).await;
            let (sender, driver) = started.map_err(|error| Unreachable::Start(error.into()))?;
            tokio::spawn(async move {
                // How a connection ended reaches the request that was on it; without one, it is nobody's news.
                let _ = driver.with_upgrades().await;
            });
            Ok(NewConnection::Http1(sender))
        }
        Protocol::Grpc => {
            let pings = if in_mesh { Pings::MESH } else { Pings::APPLICATION };
            let starting = tokio::time::timeout(SETTINGS_TIMEOUT, http2::start(stream, pings, pool.clone())).await;
            let client = starting.map_err(|_| Unreachable::Settings)?;
            Ok(NewConnection::Http2(client.map_err(|error| Unreachable::Start(error.into()))?))
        }
    }
}

impl PartialEq for Dial {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address && self.security == other.security
    }
}

impl PartialEq for Security {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plain, Self::Plain) => true,
            (Self::Mesh(one), Self::Mesh(other)) => one == other,
            // The settings are made of the other two.
            (Self::External { name, roots, .. }, Self::External { name: other_name, roots: other_roots, .. }) => {
                name == other_name && roots == other_roots
            }
            _ => false,
        }
    }
}
