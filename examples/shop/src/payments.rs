//! Payments: charges customers, each key once, whichever version and instance is asked.
//!
//! The money itself is not moved: no card network is at hand. What a real one would refuse is refused here by a limit.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::environment::{Environment, Version};
use crate::ledger::{Book, Ledger};
use crate::log;
use crate::problem::{self, Problem};
use crate::serve;

/// The header that makes a request safe to repeat (draft-ietf-httpapi-idempotency-key-header).
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Says on every answer which version gave it.
const VERSION_HEADER: HeaderName = HeaderName::from_static("x-payments-version");
/// More than this is declined, as a card's limit would.
const CHARGE_CENTS_MAX: u64 = 500_000;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargeRequest {
    /// For which order.
    pub order_id: String,
    /// Whom.
    pub customer: String,
    /// How much.
    pub amount_cents: u64,
}

/// A charge, as it stands in the ledger and in answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// Its own number.
    pub id: String,
    /// The key it was asked for with.
    pub key: String,
    /// What was asked for.
    #[serde(flatten)]
    pub request: ChargeRequest,
    /// Which version made it.
    pub version: String,
}

/// All charges.
#[derive(Debug, Default)]
struct Charges {
    in_order: Vec<Charge>,
    by_key: BTreeMap<String, usize>,
}

impl Book for Charges {
    type Entry = Charge;

    fn enter(&mut self, charge: Charge) {
        self.by_key.insert(charge.key.clone(), self.in_order.len());
        self.in_order.push(charge);
    }
}

impl Charges {
    /// The charge for a key: a new one to write down, the one that was made before, or a refusal.
    fn charge(&self, key: &str, request: ChargeRequest, version: Version) -> (Vec<Charge>, problem::Result<Charge>) {
        if let Some(made) = self.by_key.get(key).map(|at| &self.in_order[*at]) {
            return (vec![], made.for_request(&request));
        }
        if request.amount_cents == 0 || request.amount_cents > CHARGE_CENTS_MAX {
            let detail = format!("{} cents; from 1 to {CHARGE_CENTS_MAX} are charged", request.amount_cents);
            return (vec![], Err(Problem::new(StatusCode::PAYMENT_REQUIRED, "the charge was declined", detail)));
        }
        let id = format!("ch-{}", uuid::Uuid::now_v7().simple());
        let charge = Charge { id, key: key.to_owned(), request, version: version.as_str().to_owned() };
        (vec![charge.clone()], Ok(charge))
    }
}

impl Charge {
    fn for_request(&self, request: &ChargeRequest) -> problem::Result<Self> {
        if self.request == *request {
            return Ok(self.clone());
        }
        let detail = format!(
            "the key {} was used for {} cents of {}",
            self.key, self.request.amount_cents, self.request.order_id
        );
        Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "the idempotency key belongs to another charge", detail))
    }

    fn document(&self, answered_by: Version) -> Value {
        let mut document = json!({
            "id": self.id,
            "order_id": self.request.order_id,
            "amount_cents": self.request.amount_cents,
            "state": "captured",
            "version": self.version,
        });
        if answered_by == Version::V2 {
            document["network_reference"] = json!(self.id.trim_start_matches("ch-").to_uppercase());
        }
        document
    }
}

#[derive(Clone)]
struct Payments {
    ledger: Ledger<Charges>,
    version: Version,
}

type Answer = ([(HeaderName, &'static str); 1], problem::Result<(StatusCode, Json<Value>)>);

async fn charge(State(payments): State<Payments>, headers: HeaderMap, body: Bytes) -> Answer {
    let outcome = payments.charge(&headers, &body).await.map(|document| (StatusCode::CREATED, Json(document)));
    ([(VERSION_HEADER, payments.version.as_str())], outcome)
}

async fn ledger(State(payments): State<Payments>) -> problem::Result<Json<Value>> {
    let charges = payments.ledger.read(|charges| json!({"charges": charges.in_order})).await?;
    Ok(Json(charges))
}

impl Payments {
    async fn charge(&self, headers: &HeaderMap, body: &[u8]) -> problem::Result<Value> {
        let key = idempotency_key(headers)?;
        let request: ChargeRequest = problem::read_json(body)?;
        let version = self.version;
        let (new, charge) = self
            .ledger
            .write(move |charges| {
                let (entries, outcome) = charges.charge(&key, request, version);
                let new = !entries.is_empty();
                (entries, outcome.map(|charge| (new, charge)))
            })
            .await??;
        let what = if new { "charged" } else { "charged before" };
        log::say(
            what,
            &[("order", &charge.request.order_id), ("cents", &charge.request.amount_cents), ("charge", &charge.id)],
        );
        Ok(charge.document(version))
    }
}

/// The key of a request that may come more than once.
///
/// # Errors
/// 400 when there is none that can be kept.
pub fn idempotency_key(headers: &HeaderMap) -> problem::Result<String> {
    const KEY_BYTES_MAX: usize = 200;
    let key = headers.get(IDEMPOTENCY_KEY).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Problem::malformed(format!(
            "the header Idempotency-Key is needed, of 1 to {KEY_BYTES_MAX} characters"
        )));
    }
    Ok(key.to_owned())
}

/// Serves payments.
///
/// # Errors
/// When it cannot start.
pub async fn run(environment: &Environment) -> anyhow::Result<()> {
    let ledger = Ledger::open(&environment.data.join("payments"), "charges.jsonl")?;
    let payments = Payments { ledger, version: environment.version };
    let router = Router::new()
        .route("/healthz", get(serve::healthz))
        .route("/charges", post(charge))
        .route("/ledger", get(self::ledger))
        .with_state(payments);
    serve::serve(environment, router, serve::stop_on_signals()?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(cents: u64) -> ChargeRequest {
        ChargeRequest { order_id: "ord-1".into(), customer: "Ada".into(), amount_cents: cents }
    }

    fn charge(charges: &mut Charges, key: &str, cents: u64, version: Version) -> problem::Result<Charge> {
        let (entries, outcome) = charges.charge(key, request(cents), version);
        entries.into_iter().for_each(|entry| charges.enter(entry));
        outcome
    }

    #[test]
    fn a_key_is_charged_once_whichever_version_is_asked() {
        let mut charges = Charges::default();
        let first = charge(&mut charges, "ord-1", 4200, Version::V1).unwrap();
        let again = charge(&mut charges, "ord-1", 4200, Version::V2).unwrap();
        assert_eq!(first, again);
        assert_eq!(charges.in_order.len(), 1);
        assert_eq!(charge(&mut charges, "ord-1", 1, Version::V1).unwrap_err().status, StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[test]
    fn declines_what_no_card_would_pay() {
        let mut charges = Charges::default();
        for cents in [0, CHARGE_CENTS_MAX + 1] {
            let problem = charge(&mut charges, "k", cents, Version::V1).unwrap_err();
            assert_eq!(problem.status, StatusCode::PAYMENT_REQUIRED);
        }
        assert!(charges.in_order.is_empty());
    }

    #[test]
    fn v2_tells_more() {
        let charge = charge(&mut Charges::default(), "k", 1, Version::V1).unwrap();
        assert!(charge.document(Version::V1).get("network_reference").is_none());
        assert!(charge.document(Version::V2)["network_reference"].is_string());
    }

    #[test]
    fn charges_come_back_from_their_line() {
        let charge = charge(&mut Charges::default(), "k", 1, Version::V1).unwrap();
        let line = serde_json::to_string(&charge).unwrap();
        assert_eq!(serde_json::from_str::<Charge>(&line).unwrap(), charge);
    }
}
