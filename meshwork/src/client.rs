//! An HTTP/1.1 client for one address, on real sockets, with connections that are kept.
//!
//! It tries nothing again and follows nothing: what an answer means is left to its users.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use runtime::net;
use serde::de::DeserializeOwned;

/// How long one request may take, to the last byte of its answer.
const REQUEST_BOUND: Duration = Duration::from_secs(15);
/// Longest answer, in bytes: the ledgers of a long run.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Connections that are kept.
const IDLE_MAX: usize = 64;

/// A client of one address.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    host: String,
    // A lock for a push or a pop.
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// It is Meshwork's own, in an application's stead (RFC 9209).
    pub(crate) by_mesh: bool,
    pub(crate) body: Bytes,
}

/// There was no whole answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No connection.
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("no answer in time")]
    Late,
}

impl Client {
    /// A client of whatever stands behind `address` under the name `host`.
    pub(crate) fn new(address: SocketAddr, host: &str) -> Self {
        Self { address, host: host.to_owned(), idle: Mutex::default() }
    }

    /// Asks for what stands at `path`.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Error> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = path.parse().map_err(|error| Error::Broken(Box::new(error)))?;
        self.send(request).await
    }

    /// Sends one request.
    pub(crate) async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        let host = HeaderValue::from_str(&self.host).map_err(|error| Error::Broken(Box::new(error)))?;
        request.headers_mut().insert(header::HOST, host);
        match tokio::time::timeout(REQUEST_BOUND, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Late),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
        let mut connection = self.connection().await?;
        let answer = connection.send_request(request).await.map_err(|error| Error::Broken(Box::new(error)))?;
        let (status, by_mesh) = (answer.status(), answer.headers().contains_key(PROXY_STATUS));
        let body =
            Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(Error::Broken)?.to_bytes();
        self.keep(connection);
        Ok(Answer { status, by_mesh, body })
    }

    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        while let Some(mut kept) = self.kept() {
            // One that the other side has closed meanwhile says so here.
            if kept.ready().await.is_ok() {
                return Ok(kept);
            }
        }
        let stream = net::connect(self.address).await.map_err(Error::Connect)?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| Error::Broken(Box::new(error)))?;
        // It ends with its sender; what went wrong on it, the sender has told.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn kept(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep(&self, connection: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && !connection.is_closed() {
            idle.push(connection);
        }
    }
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not that.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }

    /// The title of a problem document (RFC 9457), or the status in words.
    pub(crate) fn title(&self) -> String {
        let document: Option<serde_json::Value> = self.json().ok();
        let title = document.as_ref().and_then(|document| document.get("title")).and_then(serde_json::Value::as_str);
        title.map_or_else(|| self.status.canonical_reason().unwrap_or("no reason").to_owned(), str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &'static str) -> Answer {
        Answer { status: StatusCode::CONFLICT, by_mesh: false, body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn a_refusal_is_called_by_its_title() {
        assert_eq!(answer(r#"{"title":"not enough in stock","status":409}"#).title(), "not enough in stock");
        assert_eq!(answer("oops").title(), "Conflict");
    }
}
