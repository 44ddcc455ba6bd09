//! One push delivery, from the log to the answer that settles it.

use std::time::Duration;

use api::broker::Event;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use policy::pushback::{self, Pushback};
use policy::schedule::{self, Answer, Cause};
use policy::traceparent::TraceParent;
use runtime::http::Body;

use super::Push;
use crate::books::Given;
use crate::cloudevents;
use crate::ledger::lock;
use crate::refusal::Refusal;
use crate::verdict::Change;

/// How much of a rejecting answer's body is kept as the dead letter's reason, in bytes.
const REASON_BYTES_MAX: usize = 1 << 10;
/// How long the body of an answer that is settled already may take to be read to its end, so that its connection is used again.
const BODY_BOUND: Duration = Duration::from_secs(1);
/// How long an acknowledgement waits before it is tried again when the engine has no room for it.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);

/// What `Proxy-Status` says (RFC 9209 §2.3) when the mesh has answered in the application's stead and the message may be to blame: the
/// application may have had it, or the mesh does not take a request like that (`http_request_error`: it is longer than the consumer's
/// `inbound.body_max`, say) and will not the next time. After any other of its errors it cannot be.
const MAY_BE_TO_BLAME: [&str; 6] = [
    "error=http_request_error",
    "error=connection_terminated",
    "error=connection_read_timeout",
    "error=connection_write_timeout",
    "error=http_response",
    "error=proxy_internal",
];

/// How an attempt has ended.
struct Outcome {
    answer: Answer,
    reason: String,
}

impl Push {
    /// Delivers one message once and has the outcome written down.
    pub(super) async fn deliver(&self, path: String, given: Given) {
        let outcome = match self.core.event(&self.group, given.lease.position, given.message.index.at).await {
            Ok(event) => self.attempt(&path, given, &event).await,
            Err(refusal) => failed(refusal.to_string()),
        };
        let group = self.group.clone();
        let change = || match outcome.answer {
            Answer::Acknowledge => Change::Settle { group: group.clone(), leases: vec![given.lease] },
            Answer::Unsettled(cause) => {
                Change::End { group: group.clone(), lease: given.lease, cause, reason: outcome.reason.clone() }
            }
        };
        loop {
            match self.core.change(change()).await {
                Ok(_) | Err(Refusal::LeaseOver | Refusal::Ending) => return,
                Err(Refusal::NoRoom(_)) => tokio::time::sleep(NO_ROOM_PAUSE).await,
                Err(refusal) => {
                    tracing::warn!(group = %group, position = %given.lease.position, %refusal, "a delivery's outcome was not written down");
                    return;
                }
            }
        }
    }

    async fn attempt(&self, path: &str, given: Given, event: &Event) -> Outcome {
        let bound = lock(&self.core.ledger.books).delivery(&self.group).ack_timeout;
        let request = match self.request(path, given, event) {
            Ok(request) => request,
            // It would be the same the next time.
            Err(error) => return reject(format!("it cannot be written as a request: {error}")),
        };
        match tokio::time::timeout(bound, self.caller.call(request)).await {
            Ok(response) => judge(response).await,
            Err(_) => Outcome {
                answer: Answer::Unsettled(Cause::AckTimeout),
                reason: format!("no answer within {}", model::unit::write_duration(bound)),
            },
        }
    }

    /// CloudEvents HTTP binding 1.0.2, binary mode.
    fn request(&self, path: &str, given: Given, event: &Event) -> http::Result<Request<Body>> {
        let uri = format!("http://{}{path}", self.consumer);
        let mut request =
            Request::builder().method(Method::POST).uri(uri).body(runtime::http::full(event.data.clone()))?;
        let headers = request.headers_mut();
        cloudevents::http::write(event, headers)?;
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(event.data.len()));
        headers.insert("meshwork-attempt", HeaderValue::from(given.message.attempts.assigned));
        headers.insert("meshwork-position", HeaderValue::from(given.lease.position.0));
        let trace = self.span(event).format();
        headers.insert("traceparent", HeaderValue::from_bytes(&trace)?);
        Ok(request)
    }

    /// A new span of the trace in which the message was published.
    fn span(&self, event: &Event) -> TraceParent {
        let published = event.extensions.get("traceparent");
        match published.and_then(|text| TraceParent::parse(text.as_bytes())) {
            Some(parent) => parent.child(self.core.random()),
            None => {
                let trace = u128::from(self.core.random()) << 64 | u128::from(self.core.random());
                TraceParent::root(trace, self.core.random(), false)
            }
        }
    }
}

async fn judge(response: http::Response<Body>) -> Outcome {
    let (head, body) = response.into_parts();
    let after = head.headers.get(header::RETRY_AFTER).map(HeaderValue::as_bytes);
    let after = match after.map(|value| pushback::retry_after(value, runtime::clock::wall_s())) {
        Some(Pushback::Wait(wait)) => Some(wait),
        _ => None,
    };
    let answer = schedule::answer(head.status.as_u16(), after);
    let answer = match answer {
        Answer::Unsettled(_) if is_of_the_mesh(&head.headers, false) => Answer::Unsettled(Cause::Later { after }),
        Answer::Unsettled(_) if is_of_the_mesh(&head.headers, true) => Answer::Unsettled(Cause::Failed),
        answer => answer,
    };
    let text = tokio::time::timeout(BODY_BOUND, beginning(body)).await.unwrap_or_default();
    Outcome { answer, reason: reason(head.status, &text) }
}

fn reason(status: StatusCode, text: &str) -> String {
    if text.is_empty() { format!("answered {status}") } else { format!("answered {status}: {text}") }
}

/// Whether the mesh has answered in the application's stead, and the message may (`to_blame`) or cannot be the reason.
fn is_of_the_mesh(headers: &http::HeaderMap, to_blame: bool) -> bool {
    let stories = headers.get_all("proxy-status").iter().filter_map(|value| value.to_str().ok());
    let mut errors = stories.filter(|story| story.contains("error="));
    errors.any(|story| MAY_BE_TO_BLAME.iter().any(|error| story.contains(error)) == to_blame)
}

/// The beginning of a body as text; the rest is read as far as [`BODY_BOUND`] allows.
async fn beginning(mut body: Body) -> String {
    let mut kept = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            let room = REASON_BYTES_MAX - kept.len();
            kept.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

fn failed(reason: String) -> Outcome {
    Outcome { answer: Answer::Unsettled(Cause::Failed), reason }
}

fn reject(reason: String) -> Outcome {
    Outcome { answer: Answer::Unsettled(Cause::Reject), reason }
}
