//! The applications of a soak, each a process of its own that `up` starts: a source that only lends its sidecar, a sink that is pushed to
//! and called, and a worker that leases.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::client;
use super::journal::Journal;

/// Marks an answer as an application's own.
pub const MARK: &str = "x-application";
/// The file that says how the sink behaves.
pub const MODE_FILE: &str = "mode";
/// How long a slow sink takes.
const SLOW: Duration = Duration::from_secs(4);
/// How long the worker waits for work.
const WAIT: &str = "5s";
/// Before the worker asks again after something has gone wrong.
const PAUSE: Duration = Duration::from_millis(300);

/// Which application, and where it keeps what it has done.
#[derive(Args)]
pub struct Application {
    /// Which
    #[arg(value_enum)]
    part: Part,
    /// The soak's folder
    folder: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Source,
    Sink,
    Worker,
}

/// Serves until it is ended.
///
/// # Errors
/// When it is not told its port, or cannot listen.
pub fn run(application: &Application) -> anyhow::Result<()> {
    let port: u16 = std::env::var("PORT").context("PORT")?.parse()?;
    let journal = Arc::new(Journal::open(&application.folder)?);
    let folder: Arc<Path> = application.folder.clone().into();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if application.part == Part::Worker {
            let proxy = std::env::var("MESHWORK_PROXY").context("MESHWORK_PROXY")?;
            let sidecar: SocketAddr = proxy.trim_start_matches("http://").trim_end_matches('/').parse()?;
            tokio::spawn(work(sidecar, journal.clone()));
        }
        serve(port, folder, journal).await
    })
}

async fn serve(port: u16, folder: Arc<Path>, journal: Arc<Journal>) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (folder, journal) = (folder.clone(), journal.clone());
        let service = service_fn(move |request| {
            let (folder, journal) = (folder.clone(), journal.clone());
            async move { Ok::<_, Infallible>(answer(&folder, &journal, request).await) }
        });
        tokio::spawn(async move {
            // A client that goes away is what a soak is about.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(folder: &Path, journal: &Journal, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let id = header("ce-id");
    if request.into_body().collect().await.is_err() {
        return reply(400, "");
    }
    if path != "/healthz" {
        match std::fs::read_to_string(folder.join(MODE_FILE)).unwrap_or_default().trim() {
            "slow" => tokio::time::sleep(SLOW).await,
            "later" => {
                let mut later = reply(503, "later");
                later.headers_mut().insert("retry-after", hyper::header::HeaderValue::from_static("0"));
                return later;
            }
            _ => {}
        }
    }
    let part = match path.as_str() {
        "/healthz" | "/hello" => return reply(200, "hello"),
        "/work" => "work",
        "/events" => "events",
        _ => return reply(404, ""),
    };
    match journal.note(part, &id) {
        Ok(()) => reply(204, ""),
        Err(error) => reply(500, &error.to_string()),
    }
}

fn reply(status: u16, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(MARK, hyper::header::HeaderValue::from_static("1"));
    response
}

/// Leases, notes and acknowledges, for ever.
async fn work(sidecar: SocketAddr, journal: Arc<Journal>) {
    loop {
        if lease(sidecar, &journal).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn lease(sidecar: SocketAddr, journal: &Journal) -> anyhow::Result<()> {
    let leases = post(sidecar, &format!("leases?max=16&wait={WAIT}")).await?;
    for lease in leases["leases"].as_array().context("leases")? {
        journal.note("pulled", lease["event"]["id"].as_str().context("an id")?)?;
        let token = lease["lease"].as_str().context("a lease")?;
        // One that is lost brings the message again.
        let _ = post(sidecar, &format!("leases/{token}/ack")).await;
    }
    Ok(())
}

async fn post(sidecar: SocketAddr, path: &str) -> anyhow::Result<Value> {
    let uri = format!("http://broker/v1/queues/pulled/{path}");
    let response = client::call(sidecar, Request::post(uri).header("host", "broker").body(Bytes::new())?).await?;
    anyhow::ensure!(response.status().is_success(), "the broker answered {}", response.status());
    Ok(serde_json::from_slice(response.body())?)
}
