//! The storefront: the door for customers, and for the people behind the counter. It keeps nothing and decides nothing; the
//! answers are those of the services behind it.

mod page;
mod report;
mod warehouse;

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};

use crate::catalog;
use crate::environment::Environment;
use crate::inventory::InventoryClient;
use crate::mesh::{Answer, Mesh};
use crate::payments::IDEMPOTENCY_KEY;
use crate::problem::{self, Problem};
use crate::serve;
use crate::trace::Trace;

/// What of an answer's head is a customer's business.
const PASSED_ON: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::RETRY_AFTER, header::CACHE_CONTROL, HeaderName::from_static("proxy-status")];
const ID_CHARS_MAX: usize = 64;

struct Storefront {
    mesh: Mesh,
    inventory: InventoryClient,
}

type Shared = State<Arc<Storefront>>;

async fn overview(State(storefront): Shared, trace: Trace) -> problem::Result<Html<String>> {
    let answer = storefront.mesh.get("http://catalog/products?limit=24", &trace).await?;
    Ok(Html(page::overview(&answer.json::<catalog::Page>("catalog")?)))
}

async fn products(State(storefront): Shared, trace: Trace, RawQuery(query): RawQuery) -> problem::Result<Response> {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    storefront.pass(&format!("http://catalog/products{query}"), &trace).await
}

async fn product(State(storefront): Shared, trace: Trace, Path(sku): Path<String>) -> problem::Result<Response> {
    storefront.pass(&format!("http://catalog/products/{}", segment(&sku)?), &trace).await
}

async fn order(State(storefront): Shared, trace: Trace, Path(id): Path<String>) -> problem::Result<Response> {
    storefront.pass(&format!("http://orders/orders/{}", segment(&id)?), &trace).await
}

/// Passes an order on under its customer's key, or under a fresh one: then it cannot be asked for again.
async fn place(State(storefront): Shared, trace: Trace, headers: HeaderMap, body: Bytes) -> problem::Result<Response> {
    let fresh = || HeaderValue::from_str(&uuid::Uuid::new_v4().to_string());
    let key = match headers.get(IDEMPOTENCY_KEY) {
        Some(key) => Ok(key.clone()),
        None => fresh(),
    };
    let request = key.map_err(http::Error::from).and_then(|key| {
        Request::post("http://orders/orders")
            .header(IDEMPOTENCY_KEY, key)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
    });
    let request = request.map_err(|error| Problem::malformed(error.to_string()))?;
    Ok(passed(storefront.mesh.call(request, &trace).await?))
}

async fn report(State(storefront): Shared, trace: Trace) -> problem::Result<Json<report::Report>> {
    let (orders, shipping, notifications) = tokio::try_join!(
        storefront.ledger("orders", &trace),
        storefront.ledger("shipping", &trace),
        storefront.ledger("notifications", &trace),
    )?;
    let report = report::Report::of(&orders, &shipping, &notifications);
    report.map(Json).map_err(|error| Problem::unavailable(format!("a ledger that cannot be read: {error}")))
}

impl Storefront {
    async fn pass(&self, uri: &str, trace: &Trace) -> problem::Result<Response> {
        Ok(passed(self.mesh.get(uri, trace).await?))
    }

    async fn ledger(&self, service: &str, trace: &Trace) -> problem::Result<Bytes> {
        let answer = self.mesh.get(&format!("http://{service}/ledger"), trace).await?;
        if answer.status.is_success() { Ok(answer.body) } else { Err(answer.refused_by(service)) }
    }
}

fn passed(answer: Answer) -> Response {
    let mut response = (answer.status, answer.body).into_response();
    response.headers_mut().remove(header::CONTENT_TYPE);
    for name in PASSED_ON {
        if let Some(value) = answer.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// Something that can stand in a path as it is; nothing else is the name of anything here.
fn segment(id: &str) -> problem::Result<&str> {
    let plain = id.len() <= ID_CHARS_MAX && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    plain.then_some(id).ok_or_else(|| Problem::not_found("nothing here has such a name"))
}

/// Serves the storefront.
///
/// # Errors
/// When it cannot start.
pub async fn run(environment: &Environment) -> anyhow::Result<()> {
    let mesh = Mesh::new(environment.require_proxy()?);
    let inventory = InventoryClient::new(mesh.grpc("inventory")?);
    let router = Router::new()
        .route("/", get(overview))
        .route("/healthz", get(serve::healthz))
        .route("/products", get(products))
        .route("/products/{sku}", get(product))
        .route("/orders", post(place))
        .route("/orders/{id}", get(order))
        .route("/report", get(report))
        .route("/stock", get(warehouse::levels))
        .route("/stock/deliveries", post(warehouse::deliver))
        .route("/stock/counts", post(warehouse::count))
        .with_state(Arc::new(Storefront { mesh, inventory }));
    serve::serve(environment, router, serve::stop_on_signals()?).await
}

#[cfg(test)]
mod tests {
    use super::segment;

    #[test]
    fn only_plain_names_stand_in_paths() {
        assert_eq!(segment("HT-1001").unwrap(), "HT-1001");
        for name in ["a/b", "..", "a?b", "ü", "a b", &"x".repeat(65)] {
            assert!(segment(name).is_err(), "{name}");
        }
    }
}
