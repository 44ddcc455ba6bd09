//! What is known of one request when it ends, and who is told: metrics, breaker, pool and access log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use policy::bulkhead::Permit;
use policy::classify::{self, Ending, code};
use policy::time::Tick;
use runtime::http::BoxError;

use crate::access_log::Line;
use crate::edge::{Arrival, InFlight};
use crate::metrics::RouteMeters;
use crate::progress::{Progress, Side};
use crate::table::Lease;

/// A client that leaves a request within this time may never have wanted an answer.
const TAKEN_BACK_SOON: Duration = Duration::from_secs(1);
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// To its last byte.
    Whole,
    /// The endpoint broke it off.
    Broken,
    /// The client did not wait for its end.
    Cut,
    /// That side has let the other wait for longer than the idle bound.
    Idle(Side),
}

/// An open record. Dropping it closes it as [`End::Cut`]: a client that leaves drops the request wherever it is.
pub(crate) struct Record {
    pub(crate) arrival: Arc<Arrival>,
    pub(crate) started: Tick,
    pub(crate) is_grpc: bool,
    /// The client speaks HTTP/2.
    pub(crate) is_http2: bool,
    /// An extended CONNECT (RFC 8441): inside, it is a WebSocket of HTTP/1.1.
    pub(crate) extended: bool,
    /// `None` until there is an answer.
    pub(crate) status: Option<StatusCode>,
    pub(crate) grpc_status: Option<u8>,
    /// It is the client's own deadline that bounds the request, and not the mesh file.
    pub(crate) hurried: bool,
    pub(crate) meters: Option<Arc<RouteMeters>>,
    pub(crate) lease: Option<Lease>,
    pub(crate) log: Option<Box<Line>>,
    pub(crate) bytes: u64,
    /// How its bodies get on.
    pub(crate) progress: Arc<Progress>,
    // Held for their drops.
    permit: Option<Permit>,
    in_flight: Option<InFlight>,
    closed: bool,
}

impl Record {
    pub(crate) fn open(arrival: Arc<Arrival>, is_grpc: bool, is_http2: bool) -> Self {
        let started = arrival.plane.now();
        arrival.plane.meters.in_flight(arrival.direction).inc();
        let in_flight = arrival.control.as_ref().map(|control| control.begin());
        let progress = arrival.progress();
        progress.begin(is_grpc);
        Self {
            arrival,
            started,
            is_grpc,
            is_http2,
            extended: false,
            status: None,
            grpc_status: None,
            hurried: false,
            meters: None,
            lease: None,
            log: None,
            bytes: 0,
            progress,
            permit: None,
            in_flight,
            closed: false,
        }
    }

    /// A draw from the lane's generator.
    pub(crate) fn random(&self) -> u64 {
        self.arrival.plane.random(self.arrival.lane)
    }

    /// Keeps a place in the bulkhead until the end.
    pub(crate) fn hold(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// Gives the place to what outlives the request.
    pub(crate) fn release(&mut self) -> Option<Permit> {
        self.permit.take()
    }

    /// A part of the answer goes by.
    pub(crate) fn frame(&mut self, frame: &Frame<Bytes>) {
        self.progress.answer_moves();
        if let Some(data) = frame.data_ref() {
            self.bytes += data.len() as u64;
            if let Some(lease) = &mut self.lease {
                lease.begun(self.arrival.plane.as_ref());
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers(trailers);
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if self.is_grpc
            && let Some(status) = grpc_status(trailers)
        {
            self.grpc_status = Some(status);
            self.settle(self.grpc_ending(status, false), self.arrival.plane.now());
        }
    }

    /// What a gRPC status says where it may be the client's own deadline that it speaks of: endpoints are told of that deadline and
    /// say so by themselves when it passes.
    pub(crate) fn grpc_ending(&self, status: u8, come_again: bool) -> Ending {
        match status {
            code::DEADLINE_EXCEEDED if self.hurried => Ending::ClientDeadline,
            _ => Ending::Grpc { status, come_again },
        }
    }

    /// The client's deadline has passed, and its stream is ended with that status.
    pub(crate) fn cut_off(&mut self) {
        self.grpc_status = Some(code::DEADLINE_EXCEEDED);
        self.settle(Ending::ClientDeadline, self.arrival.plane.now());
    }

    /// The answer's body broke off.
    pub(crate) fn broke(&mut self, error: &BoxError) {
        if let Some(lease) = &self.lease {
            self.settle(lease.broke(error), self.arrival.plane.now());
        }
    }

    /// What the answer has shown about its endpoint, where that is still open.
    fn settle(&mut self, ending: Ending, now: Tick) {
        if let Some(lease) = &mut self.lease {
            lease.settle(&self.arrival.plane, self.arrival.lane, ending, now);
        }
    }

    /// What is shown by an answer whose head was well and which has ended so.
    fn shown(&self, end: End) -> Option<Ending> {
        match end {
            End::Broken | End::Idle(Side::Endpoint) => Some(Ending::CutShort),
            End::Idle(Side::Client) => Some(Ending::ClientSlow),
            // A status that says more has been settled when it came.
            _ if self.is_grpc => (end == End::Whole).then_some(Ending::NoGrpcStatus),
            End::Whole | End::Cut => {
                self.status.map(|status| Ending::Status { status: status.as_u16(), come_again: false })
            }
        }
    }

    /// Ends the record.
    pub(crate) fn close(mut self, end: End) {
        self.finish(end);
    }

    fn finish(&mut self, end: End) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let end = match (end, self.progress.idle()) {
            // It was ended from outside, since its client took nothing any more.
            (End::Cut, Some(side)) => End::Idle(side),
            (end, _) => end,
        };
        let now = self.arrival.plane.now();
        if let Some(ending) = self.shown(end) {
            self.settle(ending, now);
        }
        let plane = &self.arrival.plane;
        match (end, self.lease.take()) {
            (End::Whole, Some(lease)) => lease.give_back(now),
            // Dropping the connection cancels what is still coming.
            (End::Cut | End::Broken | End::Idle(_), Some(_)) | (_, None) => {}
        }
        plane.meters.in_flight(self.arrival.direction).dec();
        let took = now.since(self.started);
        if end == End::Cut
            && self.status.is_none()
            && took < TAKEN_BACK_SOON
            && let Some(in_flight) = &self.in_flight
        {
            in_flight.taken_back();
        }
        let status = self.status.map(|status| status.as_u16());
        let broken = matches!(end, End::Broken | End::Idle(Side::Endpoint));
        let failed = broken || status.is_none_or(|status| status >= 500) || self.grpc_failed();
        if let Some(meters) = &self.meters {
            meters.ended(status, failed, took.as_secs_f64());
        }
        if let Some(line) = self.log.take() {
            plane.access_log.write(line.ended(end, status, self.grpc_status, self.bytes, took));
        }
        self.permit = None;
        self.in_flight = None;
    }

    fn grpc_failed(&self) -> bool {
        self.grpc_status.is_some_and(classify::is_grpc_failure)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.finish(End::Cut);
    }
}

/// The gRPC status in headers or trailers.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get(&GRPC_STATUS)?.to_str().ok()?.parse().ok()
}
