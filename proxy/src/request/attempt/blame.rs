//! An attempt that got no answer: how it ended, whose fault that is, and what its client is told.

use std::sync::Arc;
use std::time::Duration;

use policy::breaker::Permit;
use policy::classify::{self, Bound, Ending};
use policy::retry::{Happened, is_idempotent};
use policy::time::Tick;

use super::{Call, Failed};
use crate::progress::Side;
use crate::refusal::Reason;
use crate::table::Endpoint;
use crate::upstream::{Full, Unreachable, ending};

impl Call<'_> {
    /// Tells the endpoint's breaker how an attempt ended.
    pub(super) fn settle(&self, endpoint: &Arc<Endpoint>, permit: Permit, ending: Ending, now: Tick) {
        endpoint.settle(permit, classify::outcome(ending), &self.arrival.plane, self.arrival.lane, now);
    }

    /// How long this attempt has taken, and how much of that it waited for the client.
    fn times(&self) -> (Duration, Duration) {
        (self.now().since(self.began), self.progress.client_took())
    }

    /// How an attempt ends that got no answer in time: by this side's clock, or by that of the endpoint's own sidecar.
    pub(super) fn late(&self) -> Ending {
        let (took, client) = self.times();
        let left = self.whole().remaining(self.began);
        let bound = match (self.route.timeouts.attempt, left) {
            (Some(attempt), None) if attempt <= took => Bound::Route,
            (Some(attempt), Some(left)) if attempt <= left => Bound::Route,
            _ if self.record.hurried => Bound::Client,
            _ if self.number > 1 => Bound::Leftover,
            _ => Bound::Route,
        };
        classify::late(bound, took, client)
    }

    pub(super) fn timed_out(&self, wait: Duration) -> Failed {
        Failed {
            happened: Happened::Timeout,
            ending: self.late(),
            reason: Reason::Timeout { service: self.backend.service.clone(), after: wait },
            why: "no answer in time".to_owned(),
        }
    }

    /// Nothing of the request's body has moved for too long.
    pub(super) fn idle(&self, side: Side) -> Failed {
        let after = self.progress.idle_max();
        let (ending, reason, why) = match side {
            Side::Client => (Ending::ClientSlow, Reason::BodyLate(after), "the client sent nothing more"),
            Side::Endpoint => (Ending::Timeout, Reason::Unread(after), "it took nothing more of the request"),
        };
        Failed { happened: Happened::Timeout, ending, reason, why: why.to_owned() }
    }

    pub(super) fn unreachable(&self, error: &Unreachable) -> Failed {
        Failed {
            happened: Happened::ConnectFailure,
            ending: ending::unreachable(error),
            reason: Reason::Unreachable(self.backend.service.clone()),
            why: error.to_string(),
        }
    }

    /// There was no connection in time.
    pub(super) fn unconnected(&mut self, endpoint: &Endpoint, after: Duration) -> Failed {
        self.waits = false;
        match endpoint.pool(self.arrival.lane).full(self.protocol) {
            Some(full) => self.full(full),
            // Nothing was sent, so that another endpoint may be asked whatever the method is.
            None => Failed {
                happened: Happened::ConnectFailure,
                why: "no connection in time".to_owned(),
                ..self.timed_out(after)
            },
        }
    }

    /// The endpoint has enough to do.
    pub(super) fn full(&self, full: Full) -> Failed {
        Failed {
            happened: Happened::ConnectFailure,
            ending: Ending::Full,
            why: full.to_string(),
            reason: Reason::Full { service: self.backend.service.clone(), full },
        }
    }

    /// The connection ended before it carried anything of the request.
    pub(super) fn unsent(&self, ending: Ending, why: String) -> Failed {
        let reason = Reason::Broken(self.backend.service.clone());
        Failed { happened: Happened::ResetBeforeProcessing, ending: self.broke_off(ending), reason, why }
    }

    pub(super) fn body_gone(&self) -> Failed {
        Failed {
            happened: Happened::Reset,
            ending: Ending::ClientBody,
            reason: Reason::Broken(self.backend.service.clone()),
            why: "the request's body could not be sent again".to_owned(),
        }
    }

    /// How an attempt ends whose endpoint broke off, as far as it was the endpoint that did.
    pub(super) fn broke_off(&self, ending: Ending) -> Ending {
        let (took, client) = self.times();
        classify::broke_off(ending, took, client)
    }

    pub(super) fn broke(&self, unprocessed: bool, ending: Ending, why: String) -> Failed {
        let service = || self.backend.service.clone();
        // Policy takes a reset before processing as safe for every method. On a reused connection that was written to, that is
        // likely but not proven, so only what is idempotent gets the benefit of it.
        let before_processing = unprocessed || (ending == Ending::IdleClosed && is_idempotent(self.request.method()));
        let (ending, reason) = match self.broke_off(ending) {
            _ if self.progress.is_too_long() => (Ending::ClientBody, Reason::BodyTooLong(self.request.bytes_max())),
            _ if self.progress.is_broken_off() => (Ending::ClientBody, Reason::ClientGone),
            Ending::HeadTooLong => (Ending::HeadTooLong, Reason::AnswerTooLong(service())),
            ending => (ending, Reason::Broken(service())),
        };
        let happened = match ending {
            _ if before_processing => Happened::ResetBeforeProcessing,
            // The endpoint did answer, and would answer so again.
            Ending::HeadTooLong => Happened::Status(502),
            _ => Happened::Reset,
        };
        Failed { happened, ending, reason, why }
    }
}
