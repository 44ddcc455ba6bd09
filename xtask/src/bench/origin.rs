//! The origins behind the proxies: nginx answers 1 KiB over HTTP/1.1; a small HTTP/2 server of our own answers gRPC, since nginx
//! has no trailers of its own. It runs as a process of its own, the same for every peer.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::peers;
use super::process::{Server, free_port};

/// A gRPC message of 64 bytes behind its five bytes of prefix.
const MESSAGE: &[u8; 69] = &{
    let mut message = [b'm'; 69];
    message[0] = 0;
    message[1] = 0;
    message[2] = 0;
    message[3] = 0;
    message[4] = 64;
    message
};

/// Starts nginx as one process, so that none of it is left when it is killed; it answers every GET with 1 KiB.
pub fn http1() -> anyhow::Result<(Server, SocketAddr)> {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let file = peers::folder()?.join("origin.conf");
    let body = "x".repeat(1_024);
    fs::write(
        &file,
        format!(
            "master_process off; daemon off; pid {folder}/origin.pid; error_log /dev/null;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; keepalive_requests 100000000; server {{ listen {address} reuseport; \
             location / {{ default_type text/plain; return 200 \"{body}\"; }} }} }}\n",
            folder = peers::folder()?.display(),
        ),
    )?;
    let mut server = Server::start("origin", Command::new(peers::debian("nginx", "nginx-light")?).arg("-c").arg(file))?;
    server.wait_for(address)?;
    Ok((server, address))
}

/// Starts the gRPC origin.
pub fn grpc() -> anyhow::Result<(Server, SocketAddr)> {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let mut server = Server::start(
        "grpc-origin",
        Command::new(std::env::current_exe()?).arg("bench-origin").arg(address.to_string()),
    )?;
    server.wait_for(address)?;
    Ok((server, address))
}

/// The file that load generators send as a request.
pub fn message_file() -> anyhow::Result<std::path::PathBuf> {
    let file = peers::folder()?.join("message.grpc");
    fs::write(&file, MESSAGE)?;
    Ok(file)
}

/// Serves gRPC until it is killed: the hidden command behind [`grpc`].
pub fn serve(address: SocketAddr) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .max_concurrent_streams(1_000)
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                // A client that goes away is the end of a round, no failure.
                let _ = serving.await;
            });
        }
    })
}

async fn answer(request: hyper::Request<Incoming>) -> Result<hyper::Response<Answer>, Infallible> {
    // The whole request is read, as any gRPC server does before it answers a unary call.
    let _ = request.into_body().collect().await;
    let mut response = hyper::Response::new(Answer(0));
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// One message, then the trailers.
struct Answer(u8);

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0 += 1;
        std::task::Poll::Ready(match self.0 {
            1 => Some(Ok(Frame::data(Bytes::from_static(MESSAGE)))),
            2 => {
                let mut trailers = hyper::HeaderMap::new();
                trailers.insert("grpc-status", hyper::header::HeaderValue::from_static("0"));
                Some(Ok(Frame::trailers(trailers)))
            }
            _ => None,
        })
    }
}
