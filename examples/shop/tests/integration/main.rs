//! The shop as its processes: the real program, once for each service, beside a small stand-in for the sidecars and the broker.
//!
//! The stand-in carries HTTP and gRPC by name and delivers every message twice, as a broker may. What a mesh adds (identity,
//! retries, balancing) is tested where it is made.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the shop is outside of the mesh's own doors, and so are its tests"
)]

mod broker;
mod client;
mod orders;
mod process;
mod sidecar;
mod single;
mod stock;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use client::Reply;
use process::Process;
use sidecar::Sidecar;

/// How long anything may take to become true on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// From one look at a condition to the next.
const LOOK_EVERY: Duration = Duration::from_millis(20);

const SERVICES: [&str; 7] = ["catalog", "inventory", "payments", "orders", "shipping", "notifications", "storefront"];

/// All services, running.
struct Shop {
    sidecar: Arc<Sidecar>,
    processes: Vec<Process>,
    data: TempDir,
}

impl Shop {
    async fn open() -> Self {
        let mut shop = Self { sidecar: Sidecar::start().await, processes: vec![], data: TempDir::new().unwrap() };
        for service in SERVICES {
            shop.start(service).await;
        }
        shop
    }

    async fn start(&mut self, service: &str) {
        let process = Process::start(service, &self.sidecar.address, self.data.path()).await;
        self.sidecar.register(service, process.address);
        self.processes.push(process);
    }

    /// Kills a service with -9 and starts it again.
    async fn crash(&mut self, service: &str) {
        let at = self.processes.iter().position(|process| process.service == service).unwrap();
        self.processes.remove(at).kill().await;
        self.start(service).await;
    }

    /// Sets aside all there is of a product, as another instance of inventory would: by a line in the ledger.
    fn sell_out(&self, sku: &str) {
        let line = json!({"entry": "reserved", "order_id": "ord-elsewhere", "items": {sku: u32::MAX}});
        let ledger = self.data.path().join("inventory/stock.jsonl");
        let mut ledger = std::fs::OpenOptions::new().append(true).open(ledger).unwrap();
        writeln!(ledger, "{line}").unwrap();
    }

    async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, &[], "").await
    }

    async fn lines(&self, path: &str) -> client::Lines {
        client::lines(self.sidecar.address_of("storefront").unwrap(), path).await
    }

    async fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let storefront = self.sidecar.address_of("storefront").unwrap();
        client::call(storefront, method, path, headers, body).await
    }

    async fn order(&self, key: &str, lines: &[(&str, u32)]) -> Reply {
        let lines: Vec<Value> = lines.iter().map(|(sku, quantity)| json!({"sku": sku, "quantity": quantity})).collect();
        let body = json!({"customer": "Ada", "lines": lines}).to_string();
        self.call(Method::POST, "/orders", &[("idempotency-key", key), ("traceparent", TRACEPARENT)], &body).await
    }

    /// The report, once it says that so many orders are done and all messages have come.
    async fn settled(&self, orders: u64) -> Value {
        let wanted = ["accepted", "shipped", "notified"];
        let done =
            |report: &Value| wanted.iter().all(|figure| report[figure] == orders) && self.sidecar.broker.is_idle();
        self.report_when(done).await
    }

    async fn report_when(&self, done: impl Fn(&Value) -> bool) -> Value {
        let mut report = Value::Null;
        let wait = async {
            loop {
                let reply = self.get("/report").await;
                report = reply.json();
                if reply.status == StatusCode::OK && done(&report) {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "it did not come to that; the last report: {report:#}");
        report
    }
}

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
