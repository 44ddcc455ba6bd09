//! A small application: an HTTP server on its own port, and calls through its sidecar. Public protocols only.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use runtime::http::{Body, full};
use runtime::net::{self, Listener, Share};

/// Marks an answer as an application's own.
pub const MARK: &str = "x-application";

/// Which version of HTTP an application speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge, as gRPC does.
    Http2,
}

/// Serves on loopback for as long as the host lives.
///
/// # Errors
/// When the port is taken.
pub async fn serve<H, F>(port: u16, speaks: Speaks, handler: H) -> anyhow::Result<()>
where
    H: Fn(Request<Bytes>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = Listener::open(([127, 0, 0, 1], port).into(), Share::Alone).await?;
    let handler = Arc::new(handler);
    loop {
        let (stream, _) = listener.accept().await?;
        let handler = handler.clone();
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let handler = handler.clone();
            async move {
                let (head, body) = request.into_parts();
                let mut response = match body.collect().await {
                    Ok(body) => handler(Request::from_parts(head, body.to_bytes())).await,
                    Err(_) => answer(400, "").map(full),
                };
                response.headers_mut().insert(MARK, http::HeaderValue::from_static("1"));
                Ok::<_, Infallible>(response)
            }
        });
        tokio::spawn(async move {
            let io = TokioIo::new(stream);
            // A connection that breaks is what the simulation is about; its requests are answered or not.
            match speaks {
                Speaks::Http1 => drop(http1::Builder::new().serve_connection(io, service).await),
                Speaks::Http2 => {
                    drop(http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await);
                }
            }
        });
    }
}

/// Sends one request on a connection of its own to `address`.
///
/// # Errors
/// When there is no connection or no whole answer.
pub async fn call(address: SocketAddr, mut request: Request<Bytes>) -> anyhow::Result<Response<Bytes>> {
    // RFC 9112 §3.2: also beside a target in absolute form.
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::from_str(authority.as_str())?;
        request.headers_mut().entry(HOST).or_insert(host);
    }
    let stream = net::connect(address).await.context("no connection")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let outcome = async {
        let (head, body) = sender.send_request(request.map(Full::new)).await.context("no answer")?.into_parts();
        Ok(Response::from_parts(head, body.collect().await.context("half an answer")?.to_bytes()))
    };
    let outcome = outcome.await;
    connection.abort();
    outcome
}

/// An answer.
#[must_use]
pub fn answer(status: u16, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response
}
