//! The request while attempts are made: what of it can be sent once more.
//!
//! Only what may be needed again is kept: most requests are moved to the endpoint as they came.

use std::time::Duration;

use http::Request;
use http::request::Parts;
use http_body::Body as _;
use policy::retry::is_idempotent;

use super::super::outgoing::{self, Stamp};
use crate::body::{Broken, Replay, Sent, Source};
use crate::table::{Backend, Route};

/// The request as far as it is still here.
pub(super) struct Kept<'a> {
    /// Whole before the first attempt; from then on what `copy` restores.
    head: &'a mut Parts,
    copy: Option<outgoing::Copy>,
    head_is_here: bool,
    body: Kind,
    replay: bool,
    method: http::Method,
    broken: Option<Broken>,
    bytes_max: u64,
}

enum Kind {
    Empty,
    Once(Option<Source>),
    /// The newest view, until the next one is asked for.
    Replay(Option<Replay>, Replay),
}

impl<'a> Kept<'a> {
    pub(super) fn new(head: &'a mut Parts, body: Option<Source>, route: &Route, backend: &Backend) -> Self {
        // After it was sent, a request is only sent again where that is safe for its method or the endpoint can prove that it is.
        let safe = is_idempotent(head.method.as_str()) || route.retry.non_idempotent || backend.proves_unprocessed;
        let replay = safe && route.retry.attempts > 0;
        let (mut bytes_max, mut broken) = (u64::MAX, None);
        let body = match body.filter(|body| !body.is_end_stream()) {
            None => Kind::Empty,
            Some(mut body) => {
                bytes_max = body.bytes_max();
                broken = Some(body.watch());
                if replay {
                    let replay = Replay::new(body);
                    let handle = replay.handle();
                    Kind::Replay(Some(replay), handle)
                } else {
                    Kind::Once(Some(body))
                }
            }
        };
        Self { method: head.method.clone(), head, copy: None, head_is_here: true, body, replay, broken, bytes_max }
    }

    /// The request for an attempt; `None` when it is not here any more.
    pub(super) fn take(&mut self, stamp: &Stamp) -> Option<Request<Sent>> {
        let body = match &mut self.body {
            Kind::Empty => Sent::Empty,
            Kind::Once(body) => Sent::Stream(body.take()?),
            Kind::Replay(first, handle) => Sent::Replay(match first.take() {
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
        outgoing::stamp(&mut self.head.headers, stamp);
        let mut request = outgoing::taken(self.head, body);
        outgoing::frame(&mut request);
        Some(request)
    }

    /// Takes the request back, of which not a byte was sent: it can be sent after all, whatever its method is.
    pub(super) fn put_back(&mut self, request: Request<Sent>) {
        let (head, body) = request.into_parts();
        match (&mut self.body, body) {
            (Kind::Once(once), Sent::Stream(body)) => *once = Some(body),
            (Kind::Replay(first, _), Sent::Replay(view)) => *first = Some(view),
            _ => {}
        }
        if self.copy.is_none() {
            *self.head = head;
            self.head_is_here = true;
        }
    }

    /// Whether [`Kept::take`] would give it.
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

    /// How the body broke, where it could without the HTTP library saying so.
    pub(super) fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// How long the client was waited for, over all attempts until now.
    pub(super) fn waited_for_client(&self) -> Duration {
        self.broken.as_ref().map_or(Duration::ZERO, Broken::waited_for_client)
    }

    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}
