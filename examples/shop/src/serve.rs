//! The listener of every service: loopback only, HTTP/1.1 and HTTP/2, and an orderly end.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::environment::Environment;
use crate::log;

/// Largest request body; a longer one: 413.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How long requests in progress may take after a signal to stop.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Answers health checks. A service that answers at all can serve: what it calls has health checks of its own.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// A token that is cancelled by SIGTERM or SIGINT.
///
/// # Errors
/// When the signals cannot be listened to.
pub fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cancel = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancel.cancel();
    });
    Ok(stop)
}

/// Serves until told to stop: then no new connection, the requests in progress to their end, and at most [`DRAIN_MAX`].
///
/// # Errors
/// When the port cannot be had.
pub async fn serve(environment: &Environment, router: Router, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, environment.port))
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{} (PORT)", environment.port))?;
    let address = listener.local_addr()?;
    if environment.port == 0 {
        println!("{address}");
    }
    log::say("listening", &[("address", &address)]);
    // Without it an answer of two packets waits for the other side's delayed acknowledgement.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let router = router.layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let overdue = async {
        stop.cancelled().await;
        log::say("stopping", &[]);
        tokio::time::sleep(DRAIN_MAX).await;
    };
    tokio::select! {
        result = serving => result.context("while serving"),
        () = overdue => {
            log::say("requests were cut off at the end", &[("after_s", &DRAIN_MAX.as_secs())]);
            Ok(())
        }
    }
}
