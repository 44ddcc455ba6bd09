//! The request while attempts are made: what of it can be sent once more.
//!
//! Only what may be needed again is kept: most requests are moved to the endpoint as they came.

use std::sync::Arc;

use http::Request;
use http::request::Parts;
use http_body::Body as _;
use policy::retry::is_idempotent;

use super::super::outgoing::{self, Stamp};
use crate::body::{Replay, RequestBody, Source};
use crate::progress::Progress;
use crate::table::{Backend, Route};

/// The request as far as it is still here.
pub(super) struct ReplayableRequest<'a> {
    /// Whole before the first attempt; from then on what `copy` restores.
    head: &'a mut Parts,
    copy: Option<outgoing::Copy>,
    head_is_here: bool,
    body: Kind,
    replay: bool,
    method: http::Method,
    bytes_max: u64,
}

enum Kind {
    Empty,
    Once(Option<Source>),
    /// The newest view, until the next one is asked for.
    Replay(Option<Replay>, Replay),
}

impl<'a> ReplayableRequest<'a> {
    pub(super) fn new(
        head: &'a mut Parts,
        body: Option<Source>,
        progress: &Arc<Progress>,
        route: &Route,
        backend: &Backend,
    ) -> Self {
        // After it was sent, a request is only sent again where that is safe for its method or the endpoint can prove that it is.
        let safe = is_idempotent(head.method.as_str()) || route.retry.non_idempotent || backend.proves_unprocessed;
        let replay = safe && route.retry.attempts > 0;
        let mut bytes_max = u64::MAX;
        let body = match body.filter(|body| !body.is_end_stream()) {
            None => Kind::Empty,
            Some(mut body) => {
                bytes_max = body.bytes_max();
                body.report_to(progress.clone());
                if replay {
                    let replay = Replay::new(body);
                    let handle = replay.handle();
                    Kind::Replay(Some(replay), handle)
                } else {
                    Kind::Once(Some(body))
                }
            }
        };
        Self { method: head.method.clone(), head, copy: None, head_is_here: true, body, replay, bytes_max }
    }

    /// The request for an attempt; `None` when it is not here any more.
    pub(super) fn take(&mut self, stamp: &Stamp<'_>) -> Option<Request<RequestBody>> {
        let body = match &mut self.body {
            Kind::Empty => RequestBody::Empty,
            Kind::Once(body) => RequestBody::Stream(body.take()?),
            Kind::Replay(first, handle) => RequestBody::Replay(match first.take() {
                Some(first) => first,
                None => handle.again()?,
            }),
        };
        if !self.head_is_here {
            return None;
        }
        match &self.copy {
            Some(copy) => copy.restore(self.head),
            None if self.replay => self.copy = Some(outgoing::Copy::of(self.head)),
            None => self.head_is_here = false,
        }
        outgoing::stamp(self.head, stamp);
        let mut request = outgoing::taken(self.head, body);
        outgoing::frame(&mut request);
        Some(request)
    }

    /// Takes the request back, of which not a byte was sent: it can be sent after all, whatever its method is.
    pub(super) fn put_back(&mut self, request: Request<RequestBody>) {
        let (head, body) = request.into_parts();
        let body = match body {
            RequestBody::Held(held) => held.into_body().unwrap_or(RequestBody::Empty),
            body => body,
        };
        match (&mut self.body, body) {
            (Kind::Once(once), RequestBody::Stream(body)) => *once = Some(body),
            (Kind::Replay(first, _), RequestBody::Replay(view)) => *first = Some(view),
            _ => {}
        }
        if self.copy.is_none() {
            *self.head = head;
            self.head_is_here = true;
        }
    }

    /// Whether [`ReplayableRequest::take`] would give it.
    pub(super) fn is_here(&self) -> bool {
        let body = match &self.body {
            Kind::Empty => true,
            Kind::Once(body) => body.is_some(),
            Kind::Replay(first, handle) => first.is_some() || !handle.is_committed(),
        };
        body && self.head_is_here
    }

    pub(super) fn method(&self) -> &str {
        self.method.as_str()
    }

    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}
