//! A stand-in for the broker: it takes CloudEvents, knows them by source and id, and delivers each of them twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, Weak};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;

use crate::sidecar::{Body, Sidecar, answer};
use crate::{LOOK_EVERY, client};

/// Destination → who is served from it, and where.
const CONSUMERS: [(&str, &str, &str); 4] = [
    ("/v1/queues/fulfilment/messages", "shipping", "/tasks/fulfil"),
    ("/v1/topics/orders/messages", "notifications", "/events/order"),
    ("/v1/topics/shipments/messages", "notifications", "/events/shipment"),
    ("/v1/topics/shipments/messages", "orders", "/events/shipment"),
];
const DELIVERIES: u32 = 2;

/// The stand-in.
pub struct Broker {
    sidecar: Weak<Sidecar>,
    /// (source, id) → position.
    known: Mutex<BTreeMap<(String, String), usize>>,
    /// While set, everything is refused.
    away: AtomicBool,
    undelivered: AtomicUsize,
}

impl Broker {
    pub fn new(sidecar: Weak<Sidecar>) -> Self {
        Self { sidecar, known: Mutex::default(), away: AtomicBool::new(false), undelivered: AtomicUsize::new(0) }
    }

    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    pub fn is_idle(&self) -> bool {
        self.undelivered.load(Ordering::SeqCst) == 0
    }

    /// Events that were taken, each once.
    pub fn events(&self) -> usize {
        self.known.lock().unwrap().len()
    }

    pub async fn take(&self, request: Request<Incoming>) -> Response<Body> {
        if self.away.load(Ordering::SeqCst) {
            return answer(503, r#"{"title":"away","detail":"the broker is away"}"#);
        }
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let attribute = |name: &str| head.headers[name].to_str().unwrap().to_owned();
        assert_eq!(
            (attribute("ce-specversion").as_str(), attribute("content-type").as_str()),
            ("1.0", "application/json")
        );
        assert!(!attribute("ce-type").is_empty() && !attribute("ce-partitionkey").is_empty());
        let identity = (attribute("ce-source"), attribute("ce-id"));
        let (position, duplicate) = {
            let mut known = self.known.lock().unwrap();
            let next = known.len() + 1;
            let position = *known.entry(identity).or_insert(next);
            (position, position != next)
        };
        if !duplicate {
            self.deliver(head.uri.path(), &head.headers, &body);
        }
        answer(201, &json!({"position": position, "durability": "sync", "duplicate": duplicate}).to_string())
    }

    fn deliver(&self, destination: &str, headers: &HeaderMap, body: &Bytes) {
        let headers: Vec<(String, String)> = headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("ce-") || name.as_str() == "content-type")
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        let consumers: Vec<_> = CONSUMERS.iter().filter(|(from, ..)| *from == destination).collect();
        assert!(!consumers.is_empty(), "nobody is served from {destination}");
        for (_, service, path) in consumers {
            self.undelivered.fetch_add(1, Ordering::SeqCst);
            let body = String::from_utf8(body.to_vec()).unwrap();
            tokio::spawn(push(self.sidecar.clone(), service, path, headers.clone(), body));
        }
    }
}

/// Delivers until it was acknowledged as often as every message is.
async fn push(sidecar: Weak<Sidecar>, service: &str, path: &str, headers: Vec<(String, String)>, body: String) {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let (mut acknowledged, mut attempt) = (0, 1);
    while acknowledged < DELIVERIES {
        let Some(address) = sidecar.upgrade().map(|sidecar| sidecar.address_of(service).unwrap()) else { return };
        let number = attempt.to_string();
        let headers = [&headers[..], &[("meshwork-attempt", number.as_str())]].concat();
        // A service that is being restarted is asked again; one that refuses for good has found a fault.
        if let Ok(reply) = client::try_call(address, Method::POST, path, &headers, &body).await {
            assert!(!reply.status.is_client_error(), "{service} rejected: {}", reply.text());
            acknowledged += u32::from(reply.status.is_success());
        }
        attempt += 1;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if let Some(sidecar) = sidecar.upgrade() {
        sidecar.broker.undelivered.fetch_sub(1, Ordering::SeqCst);
    }
}
