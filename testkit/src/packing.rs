//! The application that pulls: it leases from the queue `packing` through its sidecar, works, and acknowledges.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::Request;
use serde_json::Value;

use crate::history::{Event, History};
use crate::shop::{PULL_CONSUMER, through_sidecar};

/// How long the work on what was leased together takes: long enough for faults to come in between.
const WORK: Duration = Duration::from_millis(100);
/// Before it asks again after something has gone wrong.
const PAUSE: Duration = Duration::from_millis(300);

/// Packs for as long as the host lives.
pub async fn pack(history: History) {
    loop {
        if lease(&history).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn lease(history: &History) -> anyhow::Result<()> {
    let leases = post(history, "leases?max=8&wait=1s").await?;
    let leases = leases["leases"].as_array().context("leases")?.clone();
    let message = |lease: &Value| lease["event"]["id"].as_str().unwrap_or_default().to_owned();
    for lease in &leases {
        history.record(Event::Delivered { consumer: PULL_CONSUMER, message: message(lease), key: String::new() });
    }
    if leases.is_empty() {
        return Ok(());
    }
    tokio::time::sleep(WORK).await;
    for lease in &leases {
        history.record(Event::Handled { consumer: PULL_CONSUMER, message: message(lease), key: String::new() });
        let token = lease["lease"].as_str().context("a lease has a token")?;
        // An acknowledgement that is lost brings the message again, when its lease has run out.
        let _ = post(history, &format!("leases/{token}/ack")).await;
    }
    Ok(())
}

async fn post(history: &History, path: &str) -> anyhow::Result<Value> {
    let request = Request::post(format!("http://broker/v1/queues/packing/{path}")).body(Bytes::new())?;
    let response = through_sidecar(history, request).await?;
    anyhow::ensure!(response.status().is_success(), "the broker answered {}", response.status());
    Ok(serde_json::from_slice(response.body())?)
}
