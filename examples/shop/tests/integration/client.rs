//! One request on a connection of its own; its answer whole, or line by line as it comes.

use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::PATIENCE;

/// What came back.
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// The body, which must be JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// The body, one document a line.
    pub fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The body as it is.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Asks `address` directly, as a gateway would.
pub async fn call(address: SocketAddr, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    try_call(address, method, path, headers, body).await.unwrap()
}

/// As [`call`], of somebody who may be away.
///
/// # Errors
/// What hyper says of the connection, or that the answer took longer than anything may.
pub async fn try_call(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<Reply> {
    let whole = async {
        let (head, body) = send(address, method, path, headers, body).await?.into_parts();
        Ok(Reply { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    };
    tokio::time::timeout(PATIENCE, whole).await.with_context(|| format!("no whole answer to {path}"))?
}

/// An answer that comes line by line.
pub struct Lines {
    body: Incoming,
    read: Vec<u8>,
}

impl Lines {
    /// The next document, or nothing where the answer has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("another line, or the end");
            self.read.extend_from_slice(frame?.unwrap().data_ref().unwrap());
        }
    }
}

/// Reads a path whose answer comes line by line.
pub async fn lines(address: SocketAddr, path: &str) -> Lines {
    let answer = tokio::time::timeout(PATIENCE, send(address, Method::GET, path, &[], "")).await;
    Lines { body: answer.expect("an answer").unwrap().into_body(), read: vec![] }
}

async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<Response<Incoming>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "shop.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(sender.send_request(request.body(Full::new(Bytes::from(body.to_owned())))?).await?)
}
