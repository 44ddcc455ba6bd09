//! Shipping: takes orders from the queue `fulfilment`, ships each once, and says so on the topic `shipments`.
//!
//! A message may come more than once. The shipment is in the ledger before anything is said, what is said carries the same id
//! each time, and only then is the message acknowledged; so every order is shipped once and nobody misses it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::broker::{self, Destination};
use crate::environment::Environment;
use crate::event::{Delivered, Outgoing};
use crate::ledger::{Book, Ledger};
use crate::log;
use crate::mesh::Mesh;
use crate::problem;
use crate::serve;
use crate::trace::Trace;

/// What the queue `fulfilment` asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fulfilment {
    /// Which order.
    pub order_id: String,
    /// For whom.
    pub customer: String,
    /// How heavy the parcel is.
    pub weight_g: u64,
}

/// A parcel that is on its way: also what an event on the topic `shipments` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipment {
    /// Which order.
    pub order_id: String,
    /// For whom.
    pub customer: String,
    /// By which the carrier finds it.
    pub tracking: String,
    /// Who brings it.
    pub carrier: String,
}

/// A line of the ledger.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
enum Entry {
    /// The effect.
    Shipped(Shipment),
    /// A message came, whatever it led to.
    Delivered { order_id: String, attempt: u32 },
}

/// All shipments.
#[derive(Debug, Default)]
struct Shipments {
    in_order: Vec<Shipment>,
    by_order: BTreeMap<String, usize>,
    deliveries: u64,
}

impl Book for Shipments {
    type Entry = Entry;

    fn enter(&mut self, entry: Entry) {
        match entry {
            Entry::Delivered { .. } => self.deliveries += 1,
            Entry::Shipped(shipment) => {
                self.by_order.insert(shipment.order_id.clone(), self.in_order.len());
                self.in_order.push(shipment);
            }
        }
    }
}

impl Shipments {
    /// Ships an order that was not shipped yet. Gives the shipment, and whether it was there before.
    fn ship(&self, order: Fulfilment, attempt: u32) -> (Vec<Entry>, (Shipment, bool)) {
        let delivered = Entry::Delivered { order_id: order.order_id.clone(), attempt };
        match self.by_order.get(&order.order_id).map(|at| self.in_order[*at].clone()) {
            Some(before) => (vec![delivered], (before, true)),
            None => {
                let shipment = parcel(order);
                (vec![delivered, Entry::Shipped(shipment.clone())], (shipment, false))
            }
        }
    }

    fn document(&self) -> Value {
        // Every delivery past an order's first was one too many.
        let redelivered = self.deliveries.saturating_sub(self.in_order.len() as u64);
        json!({"shipments": self.in_order, "deliveries": self.deliveries, "redelivered": redelivered})
    }
}

fn parcel(order: Fulfilment) -> Shipment {
    const BY_BICYCLE_GRAMS_MAX: u64 = 8_000;
    const BY_VAN_GRAMS_MAX: u64 = 31_500;
    let carrier = match order.weight_g {
        grams if grams <= BY_BICYCLE_GRAMS_MAX => "Pedal Post",
        grams if grams <= BY_VAN_GRAMS_MAX => "Harbour Parcels",
        _ => "Long Bed Freight",
    };
    let number = order.order_id.trim_start_matches("ord-").to_uppercase();
    Shipment {
        tracking: format!("BA-{number}"),
        carrier: carrier.into(),
        order_id: order.order_id,
        customer: order.customer,
    }
}

struct Shipping {
    ledger: Ledger<Shipments>,
    mesh: Mesh,
}

async fn fulfil(State(shipping): State<Arc<Shipping>>, trace: Trace, event: Delivered) -> problem::Result<StatusCode> {
    let order: Fulfilment = event.data()?;
    let attempt = event.attempt;
    let (shipment, before) = shipping.ledger.write(move |shipments| shipments.ship(order, attempt)).await?;
    let event = Outgoing {
        id: format!("{}.shipped", shipment.order_id),
        source: "/shop/shipping",
        kind: "order.shipped",
        key: shipment.order_id.clone(),
        data: json!(shipment),
    };
    broker::send(&shipping.mesh, Destination::Topic("shipments"), event, &trace).await?;
    let what = if before { "shipped before" } else { "shipped" };
    log::say(what, &[("order", &shipment.order_id), ("tracking", &shipment.tracking), ("attempt", &attempt)]);
    Ok(StatusCode::NO_CONTENT)
}

async fn ledger(State(shipping): State<Arc<Shipping>>) -> problem::Result<Json<Value>> {
    Ok(Json(shipping.ledger.read(Shipments::document).await?))
}

/// Serves shipping.
///
/// # Errors
/// When it cannot start.
pub async fn run(environment: &Environment) -> anyhow::Result<()> {
    let ledger = Ledger::open(&environment.data.join("shipping"), "shipments.jsonl")?;
    let shipping = Arc::new(Shipping { ledger, mesh: Mesh::new(environment.require_proxy()?) });
    let router = Router::new()
        .route("/healthz", get(serve::healthz))
        .route("/tasks/fulfil", post(fulfil))
        .route("/ledger", get(self::ledger))
        .with_state(shipping);
    serve::serve(environment, router, serve::stop_on_signals()?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(id: &str, weight_g: u64) -> Fulfilment {
        Fulfilment { order_id: id.into(), customer: "Ada".into(), weight_g }
    }

    #[test]
    fn ships_once_however_often_it_is_told() {
        let mut shipments = Shipments::default();
        let mut deliver = |attempt| {
            let (entries, outcome) = shipments.ship(order("ord-1", 900), attempt);
            entries.into_iter().for_each(|entry| shipments.enter(entry));
            outcome
        };
        let (first, before) = deliver(1);
        assert!(!before);
        assert_eq!(first.tracking, "BA-1");
        assert_eq!(deliver(2), (first.clone(), true));
        assert_eq!(shipments.document(), json!({"shipments": [first], "deliveries": 2, "redelivered": 1}));
    }

    #[test]
    fn heavy_parcels_go_by_lorry() {
        let carrier = |weight_g| parcel(order("ord-1", weight_g)).carrier;
        assert_eq!(
            [carrier(100), carrier(8_001), carrier(90_000)],
            ["Pedal Post", "Harbour Parcels", "Long Bed Freight"]
        );
    }

    #[test]
    fn entries_come_back_from_their_lines() {
        let (entries, _) = Shipments::default().ship(order("ord-1", 1), 3);
        let mut read = Shipments::default();
        for entry in &entries {
            read.enter(serde_json::from_str(&serde_json::to_string(entry).unwrap()).unwrap());
        }
        assert_eq!((read.deliveries, read.in_order.len()), (1, 1));
    }
}
