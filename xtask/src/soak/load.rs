//! What goes through the mesh all the time: messages to a queue that is pushed, a queue that is leased from and a topic that is ordered by
//! key; and calls through the gateway. What was acknowledged, and what failed while no fault was on, is kept for the checker.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use hyper::{Request, Response};
use serde_json::Value;

use super::app::MARK;
use super::check::{Findings, lost_or_out_of_order};
use super::client::{self, is_explained};
use super::fault::Kind;
use super::mesh::{Mesh, until_ready};
use super::{client::CALL_BOUND, journal};

/// From one message of a publisher to its next.
const PUBLISH_PAUSE: Duration = Duration::from_millis(10);
/// Before a message that was not accepted is published again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// From one call to the next.
const CALL_PAUSE: Duration = Duration::from_millis(25);
/// Keys of the topic.
const KEYS: u64 = 8;
/// Publishers to each destination.
const PUBLISHERS: u64 = 2;

/// A message that the broker acknowledged.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    /// The part of an application that handles it.
    pub part: &'static str,
    /// What it is ordered by.
    pub key: Option<u64>,
    /// Where it stands.
    pub position: u64,
}

/// All of it; a clone is the same.
#[derive(Clone)]
pub struct Load(Rc<State>);

#[derive(Default)]
struct State {
    acknowledged: RefCell<BTreeMap<String, Acknowledged>>,
    violations: RefCell<Vec<String>>,
    faults: RefCell<Vec<Window>>,
    calls: Cell<u64>,
    failed_calls: Cell<u64>,
    refused: Cell<u64>,
    recoveries: RefCell<Vec<(Kind, Duration)>>,
    is_publishing: Cell<bool>,
}

/// When a fault may be felt.
struct Window {
    kind: Kind,
    begins: Instant,
    ends: Option<Instant>,
}

impl Load {
    /// Starts it, on the current runtime's thread.
    pub fn start(mesh: &Mesh) -> Self {
        let load = Self(Rc::new(State { is_publishing: Cell::new(true), ..State::default() }));
        let sidecar = mesh.sidecar().ok();
        for (part, to) in [("work", "queues/work"), ("pulled", "queues/pulled"), ("events", "topics/events")] {
            for publisher in 0..PUBLISHERS {
                if let Some(sidecar) = sidecar {
                    tokio::task::spawn_local(load.clone().publish(sidecar, part, to, publisher));
                }
            }
        }
        tokio::task::spawn_local(load.clone().call(mesh.gateway));
        load
    }

    async fn publish(self, sidecar: SocketAddr, part: &'static str, to: &'static str, publisher: u64) {
        let mut number: u64 = 0;
        while self.0.is_publishing.get() {
            let id = format!("{part}-{publisher}-{number}");
            // One publisher's keys are its own, so that it knows their order.
            let key = (part == "events").then_some(publisher * KEYS + number % KEYS);
            loop {
                match send(sidecar, to, &id, key).await {
                    Ok(response) if response.status() == 201 => {
                        self.acknowledge(&id, part, key, response.body());
                        break;
                    }
                    Ok(response) => self.look(&format!("publishing {id}"), &response),
                    // It is not known whether it was accepted: the same id is published again.
                    Err(error) => self.failed(&format!("publishing {id}"), &error),
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            number += 1;
            tokio::time::sleep(PUBLISH_PAUSE).await;
        }
    }

    fn acknowledge(&self, id: &str, part: &'static str, key: Option<u64>, receipt: &Bytes) {
        let receipt: Value = serde_json::from_slice(receipt).unwrap_or_default();
        match receipt["position"].as_u64() {
            Some(position) => {
                let acknowledged = Acknowledged { part, key, position };
                self.0.acknowledged.borrow_mut().insert(id.to_owned(), acknowledged);
            }
            None => self.violation(format!("the receipt of {id} has no position: {receipt}")),
        }
    }

    async fn call(self, gateway: SocketAddr) {
        loop {
            self.0.calls.set(self.0.calls.get() + 1);
            match hello(gateway).await {
                Ok(response) if response.status() == 200 => {}
                Ok(response) => {
                    self.0.failed_calls.set(self.0.failed_calls.get() + 1);
                    self.look("a call", &response);
                }
                Err(error) => {
                    self.0.failed_calls.set(self.0.failed_calls.get() + 1);
                    self.failed("a call", &error);
                }
            }
            tokio::time::sleep(CALL_PAUSE).await;
        }
    }

    /// An answer that is no success: it must say why, and may only come while a fault can be felt.
    fn look(&self, what: &str, response: &Response<Bytes>) {
        let status = response.status();
        self.0.refused.set(self.0.refused.get() + 1);
        let is_applications = response.headers().contains_key(MARK);
        if !is_applications && !is_explained(response) {
            self.violation(format!("{what} was refused with {status} and no reason"));
        }
        if !self.is_disturbed() {
            let text = String::from_utf8_lossy(response.body()).into_owned();
            self.violation(format!("{what} was answered {status} though nothing was wrong: {text}"));
        }
    }

    fn failed(&self, what: &str, error: &anyhow::Error) {
        if !self.is_disturbed() {
            self.violation(format!("{what} failed though nothing was wrong: {error:#}"));
        }
    }

    fn violation(&self, what: String) {
        println!("VIOLATION {what}");
        self.0.violations.borrow_mut().push(what);
    }

    /// Whether a fault can be felt, or could when what has just ended was begun.
    fn is_disturbed(&self) -> bool {
        let since = Instant::now().checked_sub(CALL_BOUND);
        let faults = self.0.faults.borrow();
        let is_felt = |window: &Window| window.ends.is_none_or(|ends| since.is_none_or(|since| ends > since));
        faults.is_empty() || faults.iter().rev().take(8).any(is_felt)
    }

    /// From now on what fails may be the fault's.
    pub fn fault_begins(&self, kind: Kind) -> usize {
        let mut faults = self.0.faults.borrow_mut();
        faults.push(Window { kind, begins: Instant::now(), ends: None });
        faults.len() - 1
    }

    /// After so long it is not any more.
    pub fn fault_ends(&self, which: usize, recovery: Duration) {
        if let Some(window) = self.0.faults.borrow_mut().get_mut(which) {
            window.ends = Some(Instant::now() + recovery);
        }
    }

    /// Everything works again within the bound, or it is a violation.
    pub async fn expect_recovery(&self, mesh: &Mesh, kind: Kind, bound: Duration) {
        let began = Instant::now();
        match self.until_all_works(mesh, bound).await {
            Ok(()) => self.0.recoveries.borrow_mut().push((kind, began.elapsed())),
            Err(error) => self.violation(format!("after {kind:?}: {error:#}")),
        }
    }

    /// Waits until every role is there, a message is accepted and a call is answered.
    pub async fn until_all_works(&self, mesh: &Mesh, bound: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        until_ready(mesh, bound).await?;
        let sidecar = mesh.sidecar()?;
        loop {
            let probe = format!("probe-{}", journal::now()?.as_nanos());
            let published = send(sidecar, "queues/work", &probe, None).await;
            let called = hello(mesh.gateway).await;
            let why = match (&published, &called) {
                (Ok(published), Ok(called)) if published.status() == 201 && called.status() == 200 => return Ok(()),
                (Ok(published), _) if published.status() != 201 => {
                    format!("publishing is answered {}", String::from_utf8_lossy(published.body()))
                }
                (Err(error), _) => format!("publishing: {error:#}"),
                (_, Ok(called)) => format!("a call is answered {}", String::from_utf8_lossy(called.body())),
                (_, Err(error)) => format!("a call: {error:#}"),
            };
            if began.elapsed() > bound {
                bail!("not everything works after {}s: {why}", bound.as_secs());
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// One line of how far it is.
    pub fn progress(&self) -> String {
        let State { acknowledged, violations, faults, calls, failed_calls, .. } = &*self.0;
        let last = faults.borrow().last().map(|window| (window.kind, window.begins.elapsed().as_secs()));
        let last = last.map_or_else(String::new, |(kind, seconds)| format!(", last {kind:?} {seconds}s ago"));
        format!(
            "{} messages accepted, {} calls ({} failed), {} faults{last}, {} violations",
            acknowledged.borrow().len(),
            calls.get(),
            failed_calls.get(),
            faults.borrow().len(),
            violations.borrow().len(),
        )
    }

    /// No more messages.
    pub fn stop_publishing(&self) {
        self.0.is_publishing.set(false);
    }

    /// Waits until all that was accepted was handled; whether it was.
    pub async fn until_drained(&self, mesh: &Mesh, bound: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < bound {
            let handled = journal::read(&mesh.folder).unwrap_or_default();
            if lost_or_out_of_order(&self.0.acknowledged.borrow(), &handled).is_empty() {
                return true;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        false
    }

    /// What was found.
    pub fn findings(&self, mesh: &Mesh, drained: bool) -> anyhow::Result<Findings> {
        let handled = journal::read(&mesh.folder).context("the journals")?;
        let acknowledged = self.0.acknowledged.borrow();
        Ok(Findings {
            accepted: acknowledged.len(),
            handled: handled.len(),
            calls: self.0.calls.get(),
            failed_calls: self.0.failed_calls.get(),
            refused: self.0.refused.get(),
            drained,
            while_running: self.0.violations.borrow().clone(),
            at_the_end: lost_or_out_of_order(&acknowledged, &handled),
            recoveries: self.0.recoveries.borrow().clone(),
            sizes: mesh.sizes(),
            faults: Vec::new(),
            elapsed: Duration::ZERO,
            stopped: Ok(Duration::ZERO),
        })
    }
}

async fn send(sidecar: SocketAddr, to: &str, id: &str, key: Option<u64>) -> anyhow::Result<Response<Bytes>> {
    let mut request = Request::post(format!("http://broker/v1/{to}/messages"))
        .header("host", "broker")
        .header("ce-specversion", "1.0")
        .header("ce-id", id)
        .header("ce-source", "/source")
        .header("ce-type", "soak")
        .header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("ce-partitionkey", key.to_string());
    }
    client::call(sidecar, request.body(Bytes::from_static(br#"{"amount":19.90}"#))?).await
}

async fn hello(gateway: SocketAddr) -> anyhow::Result<Response<Bytes>> {
    client::call(gateway, Request::get("/hello").header("host", "soak.example").body(Bytes::new())?).await
}
