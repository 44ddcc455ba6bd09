//! One request on a connection of its own: what a client sees when something behind it has just been killed.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long a client waits for one answer.
pub const CALL_BOUND: Duration = Duration::from_secs(20);

/// Sends a request to `address` and reads the whole answer.
///
/// # Errors
/// When there is no connection, or no whole answer in time.
pub async fn call(address: SocketAddr, request: Request<Bytes>) -> anyhow::Result<Response<Bytes>> {
    let asking = async {
        let stream = TcpStream::connect(address).await.context("no connection")?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let answered = async {
            let response = sender.send_request(request.map(Full::new)).await.context("no answer")?;
            let (head, body) = response.into_parts();
            Ok(Response::from_parts(head, body.collect().await.context("half an answer")?.to_bytes()))
        };
        let answered = answered.await;
        connection.abort();
        answered
    };
    tokio::time::timeout(CALL_BOUND, asking).await.context("no answer in time")?
}

/// Whether an answer that no application made says who refused and why.
pub fn is_explained(response: &Response<Bytes>) -> bool {
    let headers = response.headers();
    headers.contains_key("proxy-status")
        || headers.get("content-type").is_some_and(|value| value == "application/problem+json")
}
