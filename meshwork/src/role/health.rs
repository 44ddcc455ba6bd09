//! Health: the sidecar asks its application, on the schedule of the mesh file, whether it can serve.

use std::net::SocketAddr;

use control::client;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use model::config::Health;
use runtime::net;
use tokio::sync::watch;

/// Questions in a row without a good answer that make an application unhealthy. One lost answer under load is no end.
const FAILURES_MAX: u32 = 3;
/// Until the application has answered once it is asked this often, so that a start is not slower than it must be.
const STARTING_INTERVAL: std::time::Duration = std::time::Duration::from_millis(50);

/// Asks the application at `address` for ever and keeps `well` up to date.
pub async fn watch(address: SocketAddr, health: Health, well: &watch::Sender<client::Health>) {
    let (mut failures, mut answered) = (0, false);
    loop {
        match tokio::time::timeout(health.timeout, ask(address, health.path.as_deref())).await {
            Ok(Ok(())) => (failures, answered) = (0, true),
            Ok(Err(why)) => failures = missed(failures, &why, answered),
            Err(_) => failures = missed(failures, "no answer in time", answered),
        }
        let healthy = answered && failures < FAILURES_MAX;
        well.send_if_modified(|now| std::mem::replace(&mut now.healthy, healthy) != healthy);
        tokio::time::sleep(if answered { health.interval } else { STARTING_INTERVAL.min(health.interval) }).await;
    }
}

fn missed(failures: u32, why: &str, answered: bool) -> u32 {
    if answered && failures < FAILURES_MAX {
        tracing::warn!(why, failures = failures + 1, "the application did not answer that it is well");
    }
    failures.saturating_add(1)
}

/// Asks once; the error says in words why the application is not well. The caller sets a bound.
///
/// # Errors
/// When it does not accept a connection, or does not answer a GET of `path` with 2xx.
pub async fn ask(address: SocketAddr, path: Option<&str>) -> Result<(), String> {
    let stream = net::connect(address).await.map_err(|e| e.to_string())?;
    let Some(path) = path else { return Ok(()) };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let connection = tokio::spawn(connection);
    let request = http::Request::get(path)
        .header(http::header::HOST, address.to_string())
        .header(http::header::USER_AGENT, "meshwork-health")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string());
    connection.abort();
    match response?.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("it answered {status}")),
    }
}
