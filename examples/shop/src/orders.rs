//! Orders: takes an order through pricing, reservation, payment and dispatch, and knows what became of it.
//!
//! An order is accepted when its 201 is answered: by then it is in the ledger, reserved, charged, and safely with the broker.
//! Until then nothing is promised, and the same Idempotency-Key goes on where the last try ended. What the steps do is left to
//! the services that they call.

mod book;
mod request;
mod resume;
mod steps;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::environment::Environment;
use crate::event::Delivered;
use crate::inventory::InventoryClient;
use crate::ledger::Ledger;
use crate::log;
use crate::mesh::Mesh;
use crate::payments::{Charge, idempotency_key};
use crate::problem::{self, Problem};
use crate::serve;
use crate::shipping::Shipment;
use crate::trace::Trace;

use book::{Book, Entry};
use request::OrderRequest;

/// What an event on the topic `orders` says: enough to write to the customer, and the id to ask for the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Which order.
    pub order_id: String,
    /// Whose.
    pub customer: String,
    /// How many things.
    pub items: u32,
    /// For how much.
    pub total_cents: u64,
}

/// What the service holds.
struct Orders {
    ledger: Ledger<Book>,
    mesh: Mesh,
    inventory: InventoryClient,
}

type Shared = State<Arc<Orders>>;

async fn place(
    State(orders): Shared,
    trace: Trace,
    headers: HeaderMap,
    body: Bytes,
) -> problem::Result<(StatusCode, Json<Value>)> {
    let key = idempotency_key(&headers)?;
    let request: OrderRequest = problem::read_json(&body)?;
    let order = orders.place(key, request.proven()?, &trace).await?;
    Ok((StatusCode::CREATED, Json(order.document())))
}

async fn show(State(orders): Shared, Path(id): Path<String>) -> problem::Result<Json<Value>> {
    let asked = id.clone();
    let order = orders.ledger.read(move |book| book.order(&asked).map(book::Progress::document)).await?;
    order.map(Json).ok_or_else(|| Problem::not_found(format!("there is no order {id}")))
}

async fn shipped(State(orders): Shared, event: Delivered) -> problem::Result<StatusCode> {
    let Shipment { order_id, tracking, .. } = event.data()?;
    let (id, number) = (order_id.clone(), tracking.clone());
    let known = orders
        .ledger
        .write(move |book| match book.order(&id) {
            None => (vec![], false),
            Some(order) if order.tracking.is_some() => (vec![], true),
            Some(_) => (vec![Entry::Shipped { order_id: id, tracking: number }], true),
        })
        .await?;
    if !known {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "a shipment of no order", order_id));
    }
    log::say("order shipped", &[("order", &order_id), ("tracking", &tracking), ("attempt", &event.attempt)]);
    Ok(StatusCode::NO_CONTENT)
}

/// The orders, and what payments has charged for them; `null` when payments does not answer.
async fn ledger(State(orders): Shared, trace: Trace) -> problem::Result<Json<Value>> {
    #[derive(Deserialize)]
    struct Charges {
        charges: Vec<Charge>,
    }
    let charges = match orders.mesh.get("http://payments/ledger", &trace).await {
        Ok(answer) => answer.json::<Charges>("payments").ok().map(|ledger| ledger.charges),
        Err(_) => None,
    };
    let listed = orders.ledger.read(Book::document).await?;
    Ok(Json(json!({"orders": listed, "charges": charges})))
}

/// Serves orders.
///
/// # Errors
/// When it cannot start.
pub async fn run(environment: &Environment) -> anyhow::Result<()> {
    let mesh = Mesh::new(environment.require_proxy()?);
    let inventory = InventoryClient::new(mesh.grpc("inventory")?);
    let ledger = Ledger::open(&environment.data.join("orders"), "orders.jsonl")?;
    let orders = Arc::new(Orders { ledger, mesh, inventory });
    let stop = serve::stop_on_signals()?;
    tokio::spawn(stop.clone().run_until_cancelled_owned(resume::resume(Arc::clone(&orders))));
    let router = Router::new()
        .route("/healthz", get(serve::healthz))
        .route("/orders", post(place))
        .route("/orders/{id}", get(show))
        .route("/events/shipment", post(shipped))
        .route("/ledger", get(self::ledger))
        .with_state(orders);
    serve::serve(environment, router, stop).await
}
