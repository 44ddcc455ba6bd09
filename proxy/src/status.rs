//! What the host `sidecar`, and the outbound listener's own address, answer: health, metrics, and which endpoints there are, how they
//! stand and why.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use model::name::Name;
use model::unit::write_duration;
use policy::breaker::Standing;
use policy::time::Tick;
use serde_json::{Value, json};

use crate::body::ResponseBody;
use crate::plane::Plane;
use crate::refusal::{Reason, Refusal};
use crate::table::{Endpoint, Service};

/// Whether something is answered at this path.
pub(crate) fn has(path: &str) -> bool {
    matches!(path, "/healthz" | "/metrics" | "/v1/status")
}

/// Answers a request to the sidecar itself.
pub(crate) fn answer(plane: &Plane, head: &Parts) -> Result<Response<ResponseBody>, Box<Refusal>> {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Err(Reason::OwnMethod.into());
    }
    Ok(match head.uri.path() {
        "/healthz" => match failure(plane) {
            None => plain(StatusCode::OK, "text/plain", "ok\n".to_owned()),
            Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{why}\n")),
        },
        "/metrics" => plain(StatusCode::OK, runtime::metrics::CONTENT_TYPE, plane.metrics.encode()),
        "/v1/status" => plain(StatusCode::OK, "application/json", status(plane).to_string()),
        _ => return Err(Reason::OwnPath.into()),
    })
}

fn plain(status: StatusCode, content_type: &'static str, text: String) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Why this instance cannot do its work: what stands behind this data plane in the same process has failed, or nobody inside of
/// the mesh would take a connection from it.
fn failure(plane: &Plane) -> Option<String> {
    plane.handler().and_then(|handler| handler.failure()).or_else(|| uncertified(plane))
}

fn uncertified(plane: &Plane) -> Option<String> {
    let ended_s = plane.identity.as_ref()?.current().ended_for_s(runtime::clock::wall_s());
    let ago = write_duration(Duration::from_secs(ended_s));
    (ended_s > 0)
        .then(|| format!("the certificate ended {ago} ago and could not be renewed: no new connection can be made"))
}

/// The snapshot in force and its endpoints.
pub(crate) fn status(plane: &Plane) -> Value {
    let table = plane.table.load_full();
    let service = |(name, service): (&Name, &Arc<Service>)| {
        let may_be_ejected = may_be_ejected(&service.endpoints, plane.now());
        let endpoints = service.endpoints.iter().map(|one| endpoint(plane, one, may_be_ejected));
        (name.to_string(), json!({"callable": service.callable, "endpoints": endpoints.collect::<Value>()}))
    };
    let services = table.iter().flat_map(|table| table.services.iter().map(service));
    json!({
        "mesh": plane.mesh.as_str(),
        "subject": plane.subject.to_string(),
        "instance": plane.instance.as_str(),
        "failure": failure(plane),
        "revision": table.as_ref().map(|table| table.snapshot.revision),
        "version": table.as_ref().map(|table| table.snapshot.version),
        "certificate_not_after_s": plane.identity.as_ref().map(|identity| identity.current().not_after_s),
        "services": services.collect::<serde_json::Map<_, _>>(),
        "edges": plane.edges(),
    })
}

/// Whether no more of a service's breakers are open than endpoints may be left alone; otherwise all are asked.
fn may_be_ejected(endpoints: &[Arc<Endpoint>], now: Tick) -> bool {
    let share = endpoints.first().map_or(1.0, |endpoint| endpoint.breaker.settings().max_ejected);
    let open = endpoints.iter().filter(|endpoint| matches!(endpoint.breaker.standing(now), Standing::Open { .. }));
    open.count() <= policy::balance::ejected_max(endpoints.len(), share)
}

fn endpoint(plane: &Plane, endpoint: &Endpoint, may_be_ejected: bool) -> Value {
    let now = plane.now();
    let loads = (0..plane.slots()).map(|slot| endpoint.load(slot));
    let in_progress: u32 = loads.clone().map(policy::balance::Load::in_progress).sum();
    let round_trips: Vec<u128> = loads.map(|load| load.round_trip(now).as_micros()).collect();
    let mut value = json!({
        "endpoint": endpoint.name,
        "address": endpoint.dial.address.to_string(),
        "subset": endpoint.subset.as_ref().map(Name::as_str),
        "breaker": endpoint.breaker_state(now).1,
        "in_progress": in_progress,
        "round_trip_us": round_trips,
        "connections": endpoint.connections(),
        "waiting": endpoint.waiting(),
    });
    if let Standing::Open { until, by } = endpoint.breaker.standing(now)
        && may_be_ejected
    {
        value["unavailable"] = json!({"why": by.to_string(), "for_ms": until.since(now).as_millis()});
    }
    value
}
