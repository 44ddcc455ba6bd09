//! Applications that speak for themselves: HTTP/1.1 as bytes, HTTP/2 as frames.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use http::Request;
use runtime::net::{Listener, Share, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::{JoinHandle, JoinSet};

async fn listen() -> (Listener, SocketAddr) {
    let listener = Listener::open(([127, 0, 0, 1], 0).into(), Share::Alone).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An application that reads a head without a body, says the same to everyone, and closes.
pub struct Wire {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Wire {
    pub async fn saying(said: impl Into<Vec<u8>>) -> Self {
        let (listener, address) = listen().await;
        let (said, heads) = (said.into(), Arc::new(Mutex::new(Vec::new())));
        let seen = heads.clone();
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap_or(0) > 0 {}
                seen.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
                // Whoever has gone does not want to hear it.
                let _ = stream.write_all(&said).await;
            }
        });
        Self { address, heads, serving }
    }

    /// The heads that came, as they came.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    pub fn last(&self) -> String {
        self.heads().pop().expect("the application has received nothing")
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A request at an HTTP/2 application, and where its answer goes.
pub type Call = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves each HTTP/2 connection by `serve`, which is told its number, from 1.
pub async fn http2<F>(
    serve: impl Fn(u32, Connection<Stream, Bytes>) -> F + Send + Sync + 'static,
) -> (SocketAddr, JoinSet<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        for number in 1.. {
            let (stream, _) = listener.accept().await.unwrap();
            connections.spawn(serve(number, h2::server::handshake(stream).await.unwrap()));
        }
    });
    (address, tasks)
}

pub async fn next(connection: &mut Connection<Stream, Bytes>) -> Option<Call> {
    connection.accept().await.map(Result::unwrap)
}
