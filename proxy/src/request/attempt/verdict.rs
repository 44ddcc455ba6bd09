//! What an answer means: for its endpoint, and for the request, which may yet be tried again.

use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;
use http::header::{HeaderName, RETRY_AFTER};
use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use model::config::RetryOn;
use policy::classify::{self, Ending, Outcome, Peer};
use policy::pushback::Pushback;
use policy::retry::{self, Attempt, Happened, Verdict};

use super::super::headers;
use super::{Answer, Call, Failed, pushback};
use crate::body::ResponseBody;
use crate::edge::Direction;
use crate::record::grpc_status;
use crate::refusal::Refusal;
use crate::table::{Endpoint, Lease};
use crate::upstream::{Security, UpstreamBody};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// What an answer's head says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// How the attempt ended; `None`: a gRPC call's status comes with its trailers.
    pub(super) ending: Option<Ending>,
    /// What there is to try again for.
    happened: Option<Happened>,
}

impl Seen {
    /// What it says about the endpoint; a status that is still to come is taken for a good one.
    pub(super) fn outcome(&self) -> Outcome {
        self.ending.map_or(Outcome::Served, classify::outcome)
    }
}

/// What was peeked at.
type Peeked = Option<Frame<bytes::Bytes>>;

impl Call<'_> {
    /// Gives the answer to pass on; `None`: it is dropped, and the next attempt is to be made.
    pub(super) async fn judge(&mut self, answer: Answer) -> Option<Response<ResponseBody>> {
        let Answer { mut response, connection, endpoint, permit, seen, took, at } = answer;
        self.log(&endpoint);
        let (mut peeked, mut looked, mut seen) = (None, false, seen);
        if seen.ending.is_none() && self.route_lists_grpc() {
            let status;
            looked = true;
            (peeked, status) = peek(response.body_mut());
            if let Some(status) = status {
                seen = self.seen_grpc(status, Pushback::None);
                self.record.grpc_status = Some(status);
                endpoint.load(self.arrival.lane).failed_late(seen.outcome(), at);
            }
        }
        let permit = match (seen.ending, seen.outcome()) {
            // How it goes on, or what status the trailers bring, is for the record to see.
            (None, _) | (_, Outcome::Served) => Some(permit),
            (Some(ending), _) => {
                self.settle(&endpoint, permit, ending, at);
                None
            }
        };
        let (lane, request) = (self.arrival.lane, Some(self.progress.clone()));
        let mut lease = Lease::new(endpoint.clone(), lane, connection, permit, request);
        let happened = seen.happened;
        if let Some(happened) = happened
            && self.verdict(happened, pushback(&response)).await
        {
            self.note(&endpoint, format!("answered {happened}"), took);
            lease.settle(&self.arrival.plane, lane, seen.ending.unwrap_or(Ending::NoGrpcStatus), self.now());
            if response.body().is_end_stream() {
                lease.give_back(self.now());
            }
            return None;
        }
        self.record.lease = Some(lease);
        headers::depart(response.headers_mut());
        if self.arrival.direction == Direction::Inbound {
            // Between sidecars this header says that the application was not reached, so no application may say it.
            response.headers_mut().remove(&PROXY_STATUS);
        }
        let left = self.clocks.asked.at().map(|deadline| deadline.since(self.now()));
        Some(response.map(|body| {
            let body = if looked { ResponseBody::peeked(peeked, body) } else { ResponseBody::received(body) };
            match left {
                Some(left) => body.within(left),
                None => body,
            }
        }))
    }

    /// Reads an answer's head.
    pub(super) fn seen(&mut self, response: &Response<UpstreamBody>, endpoint: &Endpoint) -> Seen {
        let (status, headers) = (response.status(), response.headers());
        let grpc = if self.record.is_grpc { grpc_status(headers) } else { None };
        self.record.grpc_status = grpc;
        if matches!(endpoint.dial.security, Security::Mesh(_))
            && let Some(peer) = refused_by_peer(headers)
        {
            return self.seen_peer(peer);
        }
        if let Some(grpc) = grpc {
            return self.seen_grpc(grpc, pushback(response));
        }
        let status = status.as_u16();
        let come_again = status >= 400 && headers.contains_key(RETRY_AFTER);
        Seen {
            // The status of a gRPC call comes with the trailers.
            ending: (!self.record.is_grpc || status >= 300).then_some(Ending::Status { status, come_again }),
            happened: (status >= 400).then_some(Happened::Status(status)),
        }
    }

    fn seen_grpc(&self, status: u8, pushback: Pushback) -> Seen {
        Seen {
            ending: Some(self.record.grpc_ending(status, matches!(pushback, Pushback::Wait(_)))),
            happened: (status != classify::code::OK).then_some(Happened::Grpc(status)),
        }
    }

    fn seen_peer(&self, peer: Peer) -> Seen {
        let (ending, happened) = match peer {
            // Nothing was processed.
            Peer::Busy | Peer::NotReached => (Ending::Peer(peer), Some(Happened::ConnectFailure)),
            Peer::Broken => (self.broke_off(Ending::Peer(peer)), Some(Happened::Reset)),
            // Its clock is this side's: the deadline that it was told.
            Peer::Late => (self.late(), Some(Happened::Reset)),
            Peer::NotPassedOn | Peer::Request => (Ending::Peer(peer), None),
        };
        Seen { ending: Some(ending), happened }
    }

    /// After an attempt without an answer: waits for the next one's time, or gives up.
    pub(super) async fn again_or_refuse(&mut self, failed: Failed) -> Result<(), Box<Refusal>> {
        if self.verdict(failed.happened, Pushback::None).await { Ok(()) } else { Err(self.refusal(failed.reason)) }
    }

    /// Asks whether there is another attempt, and waits for its time.
    async fn verdict(&mut self, happened: Happened, pushback: Pushback) -> bool {
        let now = self.now();
        let attempt = Attempt {
            method: self.request.method(),
            number: self.number,
            happened,
            replayable: self.request.is_here(),
            pushback,
            remaining: self.whole().remaining(now),
        };
        let retry = &self.route.retry;
        let withdraw = || self.service.budget.withdraw(retry.budget, now);
        match retry::verdict(retry, &attempt, self.random(), withdraw) {
            Verdict::Again { after } => {
                self.number += 1;
                self.route.meters.tally.retries.fetch_add(1, Ordering::Relaxed);
                self.arrival.plane.meters.retried(self.service.name.as_str(), name(happened));
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
fn peek(body: &mut UpstreamBody) -> (Peeked, Option<u8>) {
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
fn refused_by_peer(headers: &HeaderMap) -> Option<Peer> {
    let status = headers.get(&PROXY_STATUS)?.to_str().ok()?.strip_prefix("meshwork; error=")?;
    Some(classify::peer(status.split(';').next()?))
}
