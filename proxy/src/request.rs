//! The pipeline. [`handle`] reads from top to bottom as a request goes: match → authorize → admit → attempt → record.
//!
//! HTTP/1.1, HTTP/2 and gRPC differ in `headers` on the way in and in `upstream` on the way out, nowhere between.

mod application;
mod attempt;
mod headers;
mod matching;
mod outgoing;
mod persistence;
mod tunnel;

use std::convert::Infallible;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, Version};
use model::config::Protocol;

use crate::access_log::Line;
use crate::body::{ResponseBody, Source};
use crate::edge::{Arrival, Direction};
use crate::record::Record;
use crate::refusal::{Context, Reason, Refusal};
use crate::table::Table;
pub(crate) use headers::clean_trailers;
use matching::Matched;
use persistence::Persistence;

/// Longest head of a request, and the read buffer of an HTTP/1.1 connection; a longer one: 431. (Envoy: 60 KiB.)
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;
/// Fields of a request's head; more: 431. hyper has the same bound for HTTP/1.1, and none for HTTP/2.
pub(crate) const HEADERS_MAX: usize = 100;
/// What the mesh's own fields may come to on top of that, between its sidecars: a client may use its bounds up. A request gets up to 11:
/// its id and trace, `Host`, the framing, `Connection`, two more of an upgrade, three of a gateway, and with gRPC two for its deadline and
/// number of attempts in the place of an upgrade's.
pub(crate) const OWN_BYTES_MAX: usize = 4 << 10;
pub(crate) const OWN_FIELDS_MAX: usize = 12;
/// Fields of a head between sidecars over HTTP/1.1, where the one who wrote it holds the bounds. Above its own bound hyper asks the allocator
/// for two tables of 32 bytes a field at each head. The smaller of what would do comes from pages that mimalloc keeps full ones among, so
/// that a page is made and given back for every request (3,300 instructions); tables of more than 10 KiB do not.
pub(crate) const MESH_FIELDS_MAX: usize = 336;
/// Longest target of a request; a longer one: 414. RFC 9110 §4.1 asks for 8,000 at the least.
pub(crate) const TARGET_BYTES_MAX: usize = 16 << 10;

/// Answers one request. It never fails: what goes wrong is an answer too.
pub(crate) fn handle<B>(
    arrival: Arc<Arrival>,
    request: Request<B>,
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>>
where
    Source: From<(B, Version)>,
{
    // What a future is handed it holds beside what it makes of it.
    let (mut head, body) = request.into_parts();
    let mut body = Some(Source::from((body, head.version)));
    async move {
        let direction = arrival.direction;
        let mut record = Record::open(arrival, headers::is_grpc(&head.headers), head.version == Version::HTTP_2);
        let persistence = Persistence::of(&head, &mut body, direction, &record.progress);
        let request_id = headers::request_id(&mut head.headers, || record.random());
        if record.arrival.plane.access_log.is_on() {
            record.log = Some(Box::new(line(&record.arrival, &head, &request_id)));
        }
        let mut answer = pass(&mut record, &mut head, &mut body).await;
        if record.extended {
            answer = answer.and_then(tunnel::to_http2);
        }
        let mut response = match answer {
            Ok(response) => response,
            Err(refusal) => refuse(&mut record, &refusal, &request_id),
        };
        persistence.say(response.status(), response.headers_mut());
        response.headers_mut().entry(headers::REQUEST_ID).or_insert(request_id);
        record.status = Some(response.status());
        record.progress.answer_begins();
        // The version is each connection's own (RFC 9112 §2.5); HTTP/2 does not look at it.
        *response.version_mut() = Version::HTTP_11;
        response.body_mut().record(record);
        Ok(response)
    }
}

async fn pass(
    record: &mut Record,
    head: &mut Parts,
    body: &mut Option<Source>,
) -> Result<Response<ResponseBody>, Box<Refusal>> {
    let arrival = record.arrival.clone();
    let table = arrival.plane.table.load_full().ok_or(Reason::NotReady)?;
    headers::check(head, &arrival)?;
    if head.method == Method::CONNECT {
        record.extended = tunnel::from_http2(head, || arrival.plane.random(arrival.lane))?;
        if !record.extended {
            return tunnel::connect(&arrival, &table, head);
        }
    }
    headers::join_cookies(head);
    // Match: whatever is in a normal form from here on goes upstream in it.
    let matched = matching::of(&arrival, &table, head)?;
    // Authorize: deny by default; an edge of the declared graph is the permission.
    authorize(&arrival, &table, &matched)?;
    speaks(record.is_grpc, &arrival, &matched, head)?;
    if headers::ends_here(head)? {
        return Ok(Response::new(ResponseBody::empty()));
    }
    // Admit.
    if arrival.direction == Direction::Inbound
        && let Some(bulkhead) = &table.bulkhead
    {
        record.hold(bulkhead.admit().ok_or(Reason::Busy(bulkhead.concurrent_max()))?);
    }
    if !(record.is_grpc && takes_streams(&arrival, &matched)) {
        headers::bound_body(head, body, bytes_max(&arrival, &table))?;
    }
    let wishes = headers::arrive(head, &arrival, record.is_grpc)?;
    // Attempt.
    let (service, route) = match matched {
        Matched::Sidecar => return crate::status::answer(&arrival.plane, head),
        Matched::Service(service, route) => (service, route),
    };
    record.meters = Some(service.routes[route].meters.clone());
    record.progress.bound(service.routes[route].timeouts.idle);
    if let Some(line) = &mut record.log {
        (line.service, line.route) = (Some(service.name.to_string()), Some(service.rules[route].name.clone()));
    }
    if let (Direction::Inbound, Some(handler)) = (arrival.direction, arrival.plane.handler()) {
        return application::call(handler, record, head, body.take()).await;
    }
    attempt::run(record, &arrival, (&service, &service.routes[route]), head, body.take(), wishes).await
}

fn authorize(arrival: &Arrival, table: &Table, matched: &Matched) -> Result<(), Box<Refusal>> {
    let plane = &arrival.plane;
    match (arrival.direction, matched) {
        (_, Matched::Sidecar) => Ok(()),
        (Direction::Inbound, Matched::Service(..)) => {
            let inbound = table.snapshot.inbound.as_ref().ok_or(Reason::NotReady)?;
            let peer = arrival.peer.as_ref().ok_or(Reason::Stranger)?;
            let verdict = policy::authorize::be_called(inbound, &plane.subject, &peer.subject);
            verdict.map_err(|refusal| Reason::MayNotBeCalled(refusal).into())
        }
        (Direction::Outbound | Direction::Gateway, Matched::Service(service, _)) if !service.callable => {
            Err(matching::may_not_call(table, service.name.as_str()))
        }
        (Direction::Outbound | Direction::Gateway, Matched::Service(..)) => Ok(()),
        (Direction::Status, Matched::Service(..)) => Err(Reason::OwnHost.into()),
    }
}

/// Refuses what the service could only misunderstand: a request without gRPC where gRPC is spoken (gRPC over HTTP2, "Requests":
/// 415), and at a gateway a field name that its application may read as another.
fn speaks(is_grpc: bool, arrival: &Arrival, matched: &Matched, head: &Parts) -> Result<(), Box<Refusal>> {
    let takes_grpc = match matched {
        Matched::Service(service, _) if service.protocol == Protocol::Grpc => Some(&service.name),
        Matched::Service(..) | Matched::Sidecar => None,
    };
    match takes_grpc {
        Some(name) if !is_grpc => Err(Reason::NotGrpc(name.clone()).into()),
        // Names of gRPC's metadata may have underscores, and no CGI is behind them.
        Some(_) => Ok(()),
        None if arrival.direction == Direction::Gateway => headers::check_names(&head.headers),
        None => Ok(()),
    }
}

/// Whether a gRPC call may be as long as it likes: its messages are bounded one by one by whoever decodes them. A service that
/// does not speak gRPC does not decode them, and no `content-type` lifts the bound on what it is sent.
fn takes_streams(arrival: &Arrival, matched: &Matched) -> bool {
    match matched {
        Matched::Sidecar => false,
        Matched::Service(service, _) => {
            service.protocol == Protocol::Grpc
                || (arrival.direction == Direction::Inbound && arrival.plane.handler().is_some())
        }
    }
}

fn bytes_max(arrival: &Arrival, table: &Table) -> u64 {
    match arrival.direction {
        // The callee's own sidecar holds its bound; this side sees the application as its own.
        Direction::Outbound => u64::MAX,
        // It has no use for a body.
        Direction::Status => 0,
        Direction::Inbound => table.snapshot.inbound.as_ref().map_or(u64::MAX, |inbound| inbound.limits.body_bytes_max),
        Direction::Gateway => table.snapshot.gateway.as_ref().map_or(u64::MAX, |gateway| gateway.body_bytes_max),
    }
}

fn refuse(record: &mut Record, refusal: &Refusal, request_id: &HeaderValue) -> Response<ResponseBody> {
    let plane = record.arrival.plane.clone();
    plane.meters.refused(record.arrival.direction, refusal.reason.name());
    if let Some(line) = &mut record.log {
        line.refused = Some(refusal.reason.name());
    }
    if record.is_grpc {
        record.grpc_status = Some(refusal.reason.grpc_status());
    }
    tracing::debug!(reason = %refusal.reason, service = refusal.service.as_deref(), "refused");
    let context = Context { subject: &plane.subject, request_id: Some(request_id), is_grpc: record.is_grpc };
    refusal.answer(&context)
}

fn line(arrival: &Arrival, head: &Parts, request_id: &HeaderValue) -> Line {
    Line {
        time_ms: runtime::clock::wall_ms(),
        request_id: String::from_utf8_lossy(request_id.as_bytes()).into_owned(),
        direction: arrival.direction.name(),
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        caller: arrival.peer.as_ref().map(|id| id.subject.to_string()),
        ..Line::default()
    }
}
