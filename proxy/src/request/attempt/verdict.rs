//! What an answer means: for its endpoint, and for the request, which may yet be tried again.

use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;
use http::header::{HeaderName, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use model::config::RetryOn;
use policy::classify::{self, Outcome};
use policy::pushback::Pushback;
use policy::retry::{self, Attempt, Happened, Verdict};

use super::super::headers;
use super::{Answer, Call, Failed, pushback};
use crate::body::Answered;
use crate::edge::Direction;
use crate::record::grpc_status;
use crate::refusal::Refusal;
use crate::table::Lease;
use crate::upstream::{Received, Security};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// What the head alone says about its endpoint.
pub(super) fn first_impression(response: &Response<Received>, is_grpc: bool) -> Outcome {
    let grpc = if is_grpc { grpc_status(response.headers()) } else { None };
    match grpc {
        Some(status) => classify::grpc(status),
        None => http(response),
    }
}

/// A 503 that says when to come again (RFC 9110 §15.6.4) is the word of an application that is alive and waits for something
/// itself. A breaker that opened on it would keep callers away for longer than the cause lasts, at each hop anew.
fn http(response: &Response<Received>) -> Outcome {
    let (status, headers) = (response.status(), response.headers());
    if status == StatusCode::SERVICE_UNAVAILABLE && headers.contains_key(RETRY_AFTER) {
        return Outcome::Overloaded;
    }
    classify::http(status.as_u16())
}

/// What was peeked at.
type Peeked = Option<Frame<bytes::Bytes>>;

impl Call<'_> {
    /// Gives the answer to pass on; `None`: it is dropped, and the next attempt is to be made.
    pub(super) async fn judge(&mut self, answer: Answer) -> Option<Response<Answered>> {
        let Answer { mut response, connection, endpoint, permit, took, at } = answer;
        self.log(&endpoint);
        let (mut peeked, mut looked) = (None, false);
        let mut grpc = if self.record.is_grpc { grpc_status(response.headers()) } else { None };
        if self.record.is_grpc && grpc.is_none() && self.route_lists_grpc() {
            looked = true;
            (peeked, grpc) = peek(response.body_mut());
        }
        let from_mesh = matches!(endpoint.dial.security, Security::Mesh(_));
        let refused = if from_mesh { refused_by_peer(response.headers()) } else { None };
        let settled = match (refused, grpc) {
            (Some((outcome, _)), _) => Some(outcome),
            (None, Some(status)) => Some(classify::grpc(status)),
            (None, None) if self.record.is_grpc && response.status().is_success() => None,
            (None, None) => Some(http(&response)),
        };
        let happened = match (refused, grpc) {
            (Some((_, Some(happened))), _) => Some(happened),
            (_, Some(0)) => None,
            (_, Some(status)) => Some(Happened::Grpc(status)),
            (_, None) if response.status().as_u16() >= 400 => Some(Happened::Status(response.status().as_u16())),
            (_, None) => None,
        };
        let lane = self.record.arrival.lane;
        let permit = match settled {
            Some(outcome) => {
                endpoint.settle(permit, outcome, self.random(), at);
                None
            }
            // The status comes with the trailers, and the record sees them go by.
            None => Some(permit),
        };
        let lease = Lease::new(endpoint.clone(), lane, connection, permit);
        if let Some(happened) = happened
            && self.verdict(happened, pushback(&response)).await
        {
            self.note(&endpoint, format!("answered {happened}"), took);
            if response.body().is_end_stream() {
                lease.give_back(self.now());
            }
            return None;
        }
        self.record.grpc_status = grpc;
        self.record.lease = Some(lease);
        headers::depart(response.headers_mut(), false);
        if self.record.arrival.direction == Direction::Inbound {
            // Between sidecars this header says that the application was not reached, so no application may say it.
            response.headers_mut().remove(&PROXY_STATUS);
        }
        let left = self.clocks.asked.remaining(self.now());
        Some(response.map(|body| {
            let body = if looked { Answered::peeked(peeked, body) } else { Answered::received(body) };
            match left {
                Some(left) => body.within(left),
                None => body,
            }
        }))
    }

    /// After an attempt without an answer: waits for the next one's time, or gives up.
    pub(super) async fn again_or_refuse(&mut self, failed: Failed) -> Result<(), Box<Refusal>> {
        if self.verdict(failed.happened, Pushback::None).await { Ok(()) } else { Err(self.refusal(failed.reason)) }
    }

    /// Asks whether there is another attempt, and waits for its time.
    async fn verdict(&mut self, happened: Happened, pushback: Pushback) -> bool {
        let now = self.now();
        let attempt = Attempt {
            method: self.kept.method(),
            number: self.number,
            happened,
            replayable: self.kept.is_here(),
            response_begun: false,
            pushback,
            remaining: self.whole().remaining(now),
        };
        let retry = &self.route.retry;
        let withdraw = || self.service.budget.withdraw(retry.budget, now);
        match retry::verdict(retry, &attempt, self.random(), withdraw) {
            Verdict::Again { after } => {
                self.number += 1;
                self.route.meters.tally.retries.fetch_add(1, Ordering::Relaxed);
                self.record.arrival.plane.meters.retried(self.service.name.as_str(), name(happened));
                if !after.is_zero() {
                    tokio::time::sleep(after).await;
                }
                true
            }
            Verdict::No(reason) => {
                tracing::debug!(service = %self.service.name, %reason, "not tried again");
                false
            }
        }
    }

    fn route_lists_grpc(&self) -> bool {
        self.route.retry.attempts > 0 && self.route.retry.on.iter().any(|on| matches!(on, RetryOn::Grpc(_)))
    }
}

/// A condition's name in metrics.
fn name(happened: Happened) -> &'static str {
    match happened {
        Happened::ConnectFailure => "connect-failure",
        Happened::ResetBeforeProcessing => "reset-before-processing",
        Happened::Reset => "reset",
        Happened::Timeout => "timeout",
        Happened::Status(_) => "status",
        Happened::Grpc(_) => "grpc-status",
    }
}

/// The first frame; when it is the trailers, there is no message, and the status in them can still be tried again. Only what
/// came together with the head is looked at: a client may wait for that head before it sends anything itself.
fn peek(body: &mut Received) -> (Peeked, Option<u8>) {
    match body.frame().now_or_never() {
        Some(Some(Ok(frame))) => {
            let status = frame.trailers_ref().and_then(grpc_status);
            (Some(frame), status)
        }
        // The rest of the body says it again to whoever reads it.
        None | Some(Some(Err(_)) | None) => (None, None),
    }
}

/// A refusal that the peer's sidecar made in its application's stead (RFC 9209). Sidecars take the header off what applications
/// say, so it is the sidecar's own word.
fn refused_by_peer(headers: &HeaderMap) -> Option<(Outcome, Option<Happened>)> {
    let status = headers.get(&PROXY_STATUS)?.to_str().ok()?.strip_prefix("meshwork; error=")?;
    let error = status.split(';').next()?;
    Some(match error {
        // It has enough to do; nothing was processed, and no breaker may open for it.
        "connection_limit_reached" => (Outcome::Overloaded, Some(Happened::ConnectFailure)),
        // The application was never reached.
        "connection_refused" | "destination_unavailable" | "proxy_configuration_error" => {
            (Outcome::LOCAL_FAULT, Some(Happened::ConnectFailure))
        }
        "connection_terminated" | "connection_write_timeout" | "http_response_timeout" => {
            (Outcome::LOCAL_FAULT, Some(Happened::Reset))
        }
        // It is the request that was refused.
        _ => (Outcome::Served, None),
    })
}
