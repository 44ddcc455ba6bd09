//! Whether a role that runs does its work, as it says itself: that its process is there and was ready once says less.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use model::config::SIDECAR;
use runtime::net;

/// How long a role may take to say how it is.
const ANSWER_BOUND: Duration = Duration::from_secs(2);
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// Why the role that listens at `addresses` does not do its work; `None`: it does, or nobody can ask it.
pub(crate) async fn failure(addresses: &BTreeMap<String, SocketAddr>) -> Option<String> {
    let known = |name: &str, host: &str| Some((*addresses.get(name)?, host.to_owned()));
    let own = known("status", SIDECAR).or_else(|| known("outbound", SIDECAR));
    let (address, host) = own.or_else(|| known("admin", "localhost"))?;
    match tokio::time::timeout(ANSWER_BOUND, ask(address, &host)).await {
        Ok(Ok(why)) => why,
        Ok(Err(error)) => Some(format!("it does not say how it is: {error}")),
        Err(_) => Some("it does not say how it is: no answer in time".to_owned()),
    }
}

/// What its `/healthz` says, where that is not that it is well.
async fn ask(address: SocketAddr, host: &str) -> Result<Option<String>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TokioIo::new(net::connect(address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    // It ends with its sender; what went wrong on it, the sender has told.
    tokio::spawn(connection);
    let request = http::Request::get("/healthz").header(http::header::HOST, host).body(Empty::<bytes::Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    if answer.status().is_success() {
        return Ok(None);
    }
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
    Ok(Some(String::from_utf8_lossy(&body).trim().to_owned()))
}
