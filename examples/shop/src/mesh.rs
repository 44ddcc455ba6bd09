//! The client of every call: HTTP/1.1 in absolute form (RFC 9112 §3.2.2) and gRPC, both through the sidecar.
//!
//! It keeps a few connections and a time limit. Finding an instance, encryption, breakers and retries are the sidecar's.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use crate::problem::Problem;
use crate::trace::Trace;

/// Connections to the sidecar that are kept for later; one more is closed after its answer.
const IDLE_CONNECTIONS_MAX: usize = 16;
/// How long a connection is kept: less than any server keeps its side, so that it is seldom closed as it is used.
const IDLE_MAX: Duration = Duration::from_secs(3);
/// Largest answer: a report's ledgers.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long one call may take, whatever the sidecar does for it in between.
pub const CALL_MAX: Duration = Duration::from_secs(10);

/// Why there was no answer. An answer of any status is an answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sidecar is not there.
    #[error("no connection to the sidecar at {0}: {1}")]
    NoSidecar(String, std::io::Error),
    /// The connection broke.
    #[error("the call of {0} broke: {1}")]
    Broken(String, hyper::Error),
    /// It took longer than [`CALL_MAX`].
    #[error("no answer from {0} within {CALL_MAX:?}")]
    Late(String),
    /// The answer's body did not come to its end, or not within its bound.
    #[error("the answer of {0}: {1}")]
    Body(String, String),
    /// The address or a header of the call cannot be written.
    #[error("a call that cannot be made: {0}")]
    Unsendable(#[from] http::Error),
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
}

type Sender = SendRequest<Full<Bytes>>;

/// The way to all other services.
pub struct Mesh {
    proxy: String,
    // Taken to push or pop, never across a wait.
    idle: Mutex<Vec<(Instant, Sender)>>,
}

impl Mesh {
    /// Calls go through the sidecar at `proxy`, a `host:port`. Nothing is connected yet.
    pub fn new(proxy: &str) -> Self {
        Self { proxy: proxy.to_owned(), idle: Mutex::default() }
    }

    /// Asks for `uri`, such as `http://catalog/products`.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn get(&self, uri: &str, trace: &Trace) -> Result<Answer, Error> {
        self.call(Request::get(uri).body(Bytes::new())?, trace).await
    }

    /// Makes one call. It must be repeatable, by its method or by a key in it: when a kept connection turns out to have been
    /// closed, the call is made again on a fresh one.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn call(&self, mut request: Request<Bytes>, trace: &Trace) -> Result<Answer, Error> {
        let service = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let host = HeaderValue::from_str(&service).map_err(http::Error::from)?;
        request.headers_mut().insert(header::HOST, host);
        trace.put_on(request.headers_mut());
        let late = Error::Late(service.clone());
        tokio::time::timeout(CALL_MAX, self.exchange(&service, request)).await.unwrap_or(Err(late))
    }

    /// A gRPC channel to `service`. It connects when it is first used, and again when it must.
    ///
    /// # Errors
    /// When the name or the sidecar's address cannot stand in a URI.
    pub fn grpc(&self, service: &str) -> anyhow::Result<Channel> {
        let origin: Uri = format!("http://{service}").parse()?;
        let endpoint = Endpoint::from_shared(format!("http://{}", self.proxy))?;
        Ok(endpoint.origin(origin).connect_timeout(CALL_MAX).tcp_nodelay(true).connect_lazy())
    }

    async fn exchange(&self, service: &str, request: Request<Bytes>) -> Result<Answer, Error> {
        let request = request.map(Full::new);
        if let Some(mut kept) = self.take_idle().await
            && let Ok(response) = kept.send_request(request.clone()).await
        {
            return self.finish(service, kept, response).await;
        }
        let mut fresh = self.connect().await?;
        let response = fresh.send_request(request).await.map_err(|error| Error::Broken(service.to_owned(), error))?;
        self.finish(service, fresh, response).await
    }

    async fn finish(
        &self,
        service: &str,
        sender: Sender,
        response: http::Response<hyper::body::Incoming>,
    ) -> Result<Answer, Error> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| {
            let reason = match error.downcast_ref::<LengthLimitError>() {
                Some(_) => format!("longer than {ANSWER_BYTES_MAX} bytes"),
                None => error.to_string(),
            };
            Error::Body(service.to_owned(), reason)
        })?;
        self.keep(sender);
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    }

    async fn connect(&self) -> Result<Sender, Error> {
        let no_sidecar = |error| Error::NoSidecar(self.proxy.clone(), error);
        let stream = TcpStream::connect(&self.proxy).await.map_err(no_sidecar)?;
        stream.set_nodelay(true).map_err(no_sidecar)?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| Error::Broken(self.proxy.clone(), error))?;
        // It ends with its sender. Its error is the call's too, and told there.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    /// The connection that was used last, if it is still good.
    async fn take_idle(&self) -> Option<Sender> {
        loop {
            let (since, mut sender) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if since.elapsed() < IDLE_MAX && sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(since, _)| since.elapsed() < IDLE_MAX);
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push((Instant::now(), sender));
        }
    }
}

impl Answer {
    /// The answer's JSON, if the answer is a success.
    ///
    /// # Errors
    /// 503 with what `service` said instead.
    pub fn json<T: serde::de::DeserializeOwned>(&self, service: &str) -> crate::problem::Result<T> {
        if !self.status.is_success() {
            return Err(self.refused_by(service));
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Problem::unavailable(format!("{service} answered what cannot be read: {error}")))
    }

    /// What to tell when this answer is in the way.
    pub fn refused_by(&self, service: &str) -> Problem {
        Problem::unavailable(format!("{service} answered {}: {}", self.status, self.reason()))
    }

    /// The detail of a problem document, or the beginning of whatever else came.
    pub fn reason(&self) -> String {
        const SHOWN_CHARS_MAX: usize = 300;
        let document = serde_json::from_slice::<serde_json::Value>(&self.body).unwrap_or_default();
        match document["detail"].as_str().or(document["title"].as_str()) {
            Some(detail) => detail.to_owned(),
            None => String::from_utf8_lossy(&self.body).chars().take(SHOWN_CHARS_MAX).collect(),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::unavailable(error.to_string())
    }
}
