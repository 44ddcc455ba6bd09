//! A refusal as a problem document (RFC 9457).

use http::HeaderValue;
use serde_json::{Map, Value, json};

use super::{Context, Refusal, Wire};

pub(super) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The document as JSON text.
pub(super) fn document(refusal: &Refusal, wire: &Wire, context: &Context<'_>) -> String {
    let mut members = Map::new();
    members.insert("type".to_owned(), json!(format!("urn:meshwork:problem:{}", wire.name)));
    members.insert("title".to_owned(), json!(wire.title));
    members.insert("status".to_owned(), json!(wire.status.as_u16()));
    members.insert("detail".to_owned(), json!(refusal.reason.to_string()));
    if let Some(id) = context.request_id.and_then(|id| id.to_str().ok()) {
        members.insert("instance".to_owned(), json!(id));
    }
    members.insert("subject".to_owned(), json!(context.subject.to_string()));
    if let Some(service) = &refusal.service {
        members.insert("service".to_owned(), json!(service));
    }
    if !refusal.tried.is_empty() {
        members.insert("tried".to_owned(), tried(refusal));
    }
    if !refusal.near.is_empty() {
        members.insert("near".to_owned(), json!(refusal.near));
    }
    Value::Object(members).to_string()
}

fn tried(refusal: &Refusal) -> Value {
    let one = |t: &super::Tried| json!({"endpoint": t.endpoint, "outcome": t.outcome, "ms": millis(t.took)});
    refusal.tried.iter().map(one).collect()
}

fn millis(took: std::time::Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}
