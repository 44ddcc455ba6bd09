//! Attempt: pick an endpoint, send, judge what came of it, and try again where that is safe.

mod blame;
mod replayable;
mod verdict;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::request::Parts;
use http::{Response, StatusCode, header};
use model::config::Protocol;
use policy::balance::{self, Candidate, NoEndpoint, Picked};
use policy::breaker::Permit;
use policy::classify::{self, Ending};
use policy::deadline::{Clocks, Deadline, Waits};
use policy::retry::Happened;
use policy::time::Tick;
use policy::traceparent::TraceParent;

use super::headers::{self, Wishes};
use super::outgoing::{self, Stamp};
use super::tunnel;
use crate::body::{ResponseBody, Source};
use crate::edge::Arrival;
use crate::plane::Plane;
use crate::progress::{Progress, Side};
use crate::record::Record;
use crate::refusal::{Reason, Refusal, Tried};
use crate::table::{Backend, Endpoint, Lease, Route, Service};
use crate::upstream::{Connection, UpstreamBody};
use replayable::ReplayableRequest;
use verdict::Seen;

/// Longest wait for a connection to an endpoint that has none to spare, where no deadline is sooner.
const CONNECTION_WAIT_MAX: Duration = Duration::from_secs(30);
/// How often an attempt looks for another connection when one ends just before it carries the request.
const CONNECTIONS_TRIED_MAX: u32 = 3;

/// All attempts of one request.
struct Call<'a> {
    record: &'a mut Record,
    arrival: &'a Arc<Arrival>,
    progress: &'a Arc<Progress>,
    service: &'a Service,
    route: &'a Route,
    backend: &'a Backend,
    /// What is spoken to its endpoints.
    protocol: Protocol,
    clocks: Clocks,
    trace: TraceParent,
    request: ReplayableRequest<'a>,
    /// The attempt that is made now waits for a connection.
    waits: bool,
    /// The attempt that is made now, from 1.
    number: u32,
    /// When it began.
    began: Tick,
    /// Endpoints that earlier attempts went to, by their index.
    been_to: Vec<usize>,
    tried: Vec<Tried>,
}

/// An attempt that got no answer.
struct Failed {
    happened: Happened,
    /// How it ended.
    ending: Ending,
    /// What the client is told if it was the last one.
    reason: Reason,
    why: String,
}

/// Why an attempt is given up.
enum Over {
    /// A clock has run out.
    Time,
    /// Nothing of the request's body has moved for too long.
    Idle(Side),
}

/// An attempt that got one.
struct Answer {
    response: Response<UpstreamBody>,
    connection: Connection,
    endpoint: Arc<Endpoint>,
    permit: Permit,
    /// What its head says.
    seen: Seen,
    took: Duration,
    /// When its head was there.
    at: Tick,
}

/// Sends the request until there is an answer to pass on.
pub(super) async fn run(
    record: &mut Record,
    arrival: &Arc<Arrival>,
    (service, route): (&Service, &Route),
    head: &mut Parts,
    body: Option<Source>,
    Wishes { upgrade, trailers }: Wishes,
) -> Result<Response<ResponseBody>, Box<Refusal>> {
    let chosen = route.split.choose(if route.backends.len() > 1 { record.random() } else { 0 });
    let backend = &route.backends[chosen.unwrap_or(0)];
    let started = record.started;
    service.budget.deposit(started);
    let asked = if record.is_grpc { outgoing::asked_timeout(&head.headers) } else { None };
    record.hurried = asked.is_some_and(|asked| route.timeouts.request.is_none_or(|own| asked <= own));
    let trace = outgoing::trace(&head.headers, || record.random());
    // HTTP/1.1 carries only trailers that `Trailer` has announced (hyper), so that HTTP/2 is worth its while between sidecars. A
    // client that waits to be told to go on is told so by HTTP/1.1 alone.
    let carries_trailers = trailers && upgrade.is_none() && !head.headers.contains_key(header::EXPECT);
    let protocol = backend.protocol_for(record.is_grpc || carries_trailers);
    outgoing::address(head, protocol, &backend.service, trailers);
    let downstream = upgrade.and_then(|protocol| tunnel::prepare(head, protocol, arrival));
    let progress = &record.progress.clone();
    let mut call = Call {
        clocks: Clocks {
            started,
            asked: Deadline::after(started, asked),
            request: route.timeouts.request,
            attempt: route.timeouts.attempt,
        },
        request: ReplayableRequest::new(head, body, progress, route, backend),
        record,
        arrival,
        progress,
        service,
        route,
        backend,
        protocol,
        trace,
        waits: false,
        number: 1,
        began: started,
        been_to: Vec::new(),
        tried: Vec::new(),
    };
    loop {
        // What a match looks at stays in the future for as long as an arm waits; so only the rare arm does.
        let answer = match call.attempt().await? {
            Ok(answer) => answer,
            Err(failed) => {
                call.again_or_refuse(failed).await?;
                continue;
            }
        };
        if downstream.is_some() {
            return Ok(call.upgraded(answer, downstream));
        }
        if let Some(reason) = call.unfit(&answer.response) {
            call.note(&answer.endpoint, reason.to_string(), answer.took);
            call.settle(&answer.endpoint, answer.permit, Ending::NotPassedOn, answer.at);
            return Err(call.refusal(reason));
        }
        if let Some(response) = call.judge(answer).await {
            return Ok(response);
        }
    }
}

impl Call<'_> {
    fn now(&self) -> Tick {
        self.arrival.plane.now()
    }

    fn random(&self) -> u64 {
        self.record.random()
    }

    /// One attempt. The outer error ends the request, the inner one may be tried again.
    async fn attempt(&mut self) -> Result<Result<Answer, Failed>, Box<Refusal>> {
        let now = if self.number == 1 { self.record.started } else { self.now() };
        if self.whole().has_passed(now) {
            return Err(self.refusal(Reason::Deadline));
        }
        self.began = now;
        let (endpoint, permit) = self.pick(now)?;
        let in_progress = endpoint.load(self.arrival.lane).start(now);
        let (clocks, progress, plane) = (self.clocks, self.progress, &self.arrival.plane);
        let result = {
            let exchange = pin!(self.exchange(&endpoint, now));
            in_time(plane, clocks, progress, now, exchange).await
        };
        let done = self.now();
        let failed = match result {
            Ok(Ok((response, connection))) => {
                let (took, seen) = (done.since(now), self.seen(&response, &endpoint));
                in_progress.end(seen.outcome(), done);
                return Ok(Ok(Answer { response, connection, endpoint, permit, seen, took, at: done }));
            }
            Ok(Err(failed)) => failed,
            Err(Over::Time) if self.waits => self.unconnected(&endpoint, done.since(now)),
            Err(Over::Time) => self.timed_out(self.waited(now, done)),
            Err(Over::Idle(side)) => self.idle(side),
        };
        in_progress.end(classify::outcome(failed.ending), done);
        self.settle(&endpoint, permit, failed.ending, done);
        self.note(&endpoint, failed.why.clone(), done.since(now));
        let late = matches!(failed.reason, Reason::BodyLate(_)) || self.whole().has_passed(done);
        if late && failed.happened == Happened::Timeout {
            return Err(self.refusal(failed.reason));
        }
        Ok(Err(failed))
    }

    /// When the request as a whole is over, as far as is known.
    fn whole(&self) -> Deadline {
        self.clocks.whole(self.progress.offered())
    }

    /// How long the endpoint was waited for that has not answered in time.
    fn waited(&self, begun: Tick, done: Tick) -> Duration {
        let waits = self.progress.waits();
        let since = if let Waits::Answer(since) = waits { begun.max(since) } else { begun };
        self.clocks.expiry(begun, waits).at().unwrap_or(done).since(since)
    }

    /// Power of two choices among the endpoints that no earlier attempt went to; among all when there is no other.
    fn pick(&mut self, now: Tick) -> Result<(Arc<Endpoint>, Permit), Box<Refusal>> {
        let (endpoints, slot) = (&self.backend.endpoints, self.arrival.lane);
        let ejected = endpoints.first().map_or(1.0, |endpoint| endpoint.breaker.settings().max_ejected);
        // A breaker that half-opens may be asked by two lanes at once and lets one pass: as many rounds as endpoints suffice.
        for _ in 0..=endpoints.len() {
            let candidate = |index: usize| {
                if self.been_to.contains(&index) {
                    return Candidate::Tried;
                }
                let endpoint: &Endpoint = &endpoints[index];
                balance::candidate(endpoint.load(slot), &endpoint.breaker, now)
            };
            let random = if endpoints.len() > 1 { self.random() } else { 0 };
            match balance::pick(endpoints.len(), random, ejected, candidate) {
                Ok(Picked { index, in_spite }) => {
                    let breaker = &endpoints[index].breaker;
                    let permit = if in_spite { Ok(breaker.pass(now)) } else { breaker.admit(now) };
                    if let Ok(permit) = permit {
                        self.been_to.push(index);
                        return Ok((endpoints[index].clone(), permit));
                    }
                }
                Err(NoEndpoint::AllTried) => self.been_to.clear(),
                Err(NoEndpoint::AllOpen) => break,
                Err(NoEndpoint::None) => {
                    let (service, subset) = (self.backend.service.clone(), self.backend.subset.clone());
                    return Err(self.refusal(Reason::NoEndpoint { service, subset }));
                }
            }
        }
        Err(self.refusal(Reason::BreakersOpen(self.backend.service.clone())))
    }

    /// Gets a connection and sends the request on it.
    async fn exchange(
        &mut self,
        endpoint: &Arc<Endpoint>,
        now: Tick,
    ) -> Result<(Response<UpstreamBody>, Connection), Failed> {
        let mut pooled = endpoint.pool(self.arrival.lane).take(self.protocol, now);
        let mut tried = 0;
        loop {
            let (mut connection, now) = match pooled.take() {
                Some(connection) => (connection, now),
                // Boxed: the rare path keeps the future of every request small.
                None => (Box::pin(self.wait_for_connection(endpoint)).await?, self.now()),
            };
            let stamp = Stamp {
                span: self.trace.child(self.random()),
                remaining: self.clocks.asked.remaining(now),
                host: endpoint.host.as_ref(),
                before: self.number - 1,
                is_grpc: self.record.is_grpc,
            };
            let Some(mut request) = self.request.take(&stamp) else {
                return Err(self.body_gone());
            };
            let broke = match connection.send(&mut request).await {
                Ok(response) => return Ok((response, connection)),
                Err(broke) => broke,
            };
            if !broke.unsent {
                return Err(self.broke(broke.unprocessed, broke.ending, broke.why));
            }
            self.request.put_back(request);
            tried += 1;
            // A connection that had closed while it was idle is no failure: another takes its place, and nobody need know.
            if !broke.reused || tried == CONNECTIONS_TRIED_MAX {
                return Err(self.unsent(broke.ending, broke.why));
            }
        }
    }

    async fn wait_for_connection(&mut self, endpoint: &Endpoint) -> Result<Connection, Failed> {
        let waiting = match endpoint.pool(self.arrival.lane).wait(self.protocol) {
            Ok(waiting) => waiting,
            Err(full) => return Err(self.full(full)),
        };
        self.waits = true;
        let waited = tokio::time::timeout(CONNECTION_WAIT_MAX, waiting).await;
        let connection = match waited {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.unreachable(&error)),
            Err(_) => Err(self.unconnected(endpoint, CONNECTION_WAIT_MAX)),
        };
        self.waits = false;
        connection
    }

    fn note(&mut self, endpoint: &Endpoint, outcome: String, took: Duration) {
        self.tried.push(Tried { endpoint: endpoint.name.clone(), outcome, took });
    }

    fn refusal(&mut self, reason: Reason) -> Box<Refusal> {
        let service = Some(self.service.name.to_string());
        Box::new(Refusal { reason, service, tried: std::mem::take(&mut self.tried), near: Vec::new() })
    }

    /// The client asked for another protocol: whatever the answer is, it is the last.
    fn upgraded(&mut self, answer: Answer, downstream: Option<tunnel::Downstream>) -> Response<ResponseBody> {
        let Answer { mut response, connection, endpoint, permit, seen, at, .. } = answer;
        self.settle(&endpoint, permit, seen.ending.unwrap_or(Ending::NoGrpcStatus), at);
        if let Some(downstream) = downstream
            && response.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            let around = self.record.release();
            tunnel::splice(self.arrival, downstream, hyper::upgrade::on(&mut response), connection, around);
            return response.map(|_| ResponseBody::empty());
        }
        self.record.lease = Some(Lease::new(endpoint, self.arrival.lane, connection, None, None));
        headers::depart(response.headers_mut());
        response.map(ResponseBody::received)
    }

    /// Why an answer cannot be passed on, whatever it says; its connection goes with it.
    fn unfit(&self, response: &Response<UpstreamBody>) -> Option<Reason> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Some(Reason::Tunnel("the endpoint switched protocols, which nobody had asked for"));
        }
        let coding = headers::strange_coding(response.headers())?;
        Some(Reason::AnswerCoding { service: self.backend.service.clone(), coding })
    }

    fn log(&mut self, endpoint: &Endpoint) {
        if let Some(line) = &mut self.record.log {
            line.endpoint = Some(endpoint.name.clone());
            line.attempts = self.number;
        }
    }
}

/// Waits for an answer as long as an attempt that began at `begun` may take. One timer, which is moved only when it has run out:
/// a body that is on its way holds the clocks, and none that begins later is over before the next look.
async fn in_time<T>(
    plane: &Plane,
    clocks: Clocks,
    progress: &Progress,
    begun: Tick,
    mut exchange: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Over> {
    let first = clocks.expiry(begun, progress.waits()).at();
    let mut armed = first.is_some();
    let mut timer = pin!(tokio::time::sleep_until(plane.instant(first.unwrap_or(begun))));
    poll_fn(|cx| {
        if let Poll::Ready(answer) = exchange.as_mut().poll(cx) {
            return Poll::Ready(Ok(answer));
        }
        if let Poll::Ready(side) = progress.poll_idle(cx) {
            return Poll::Ready(Err(Over::Idle(side)));
        }
        while armed && timer.as_mut().poll(cx).is_ready() {
            let (now, waits) = (plane.now(), progress.waits());
            let expiry = clocks.expiry(begun, waits);
            if expiry.has_passed(now) {
                return Poll::Ready(Err(Over::Time));
            }
            let look = if waits == Waits::Body { Deadline::after(now, clocks.shortest()) } else { Deadline::NEVER };
            match expiry.or(look).at() {
                Some(next) => timer.as_mut().reset(plane.instant(next)),
                None => armed = false,
            }
        }
        Poll::Pending
    })
    .await
}

/// The server's wish about trying again.
fn pushback(response: &Response<UpstreamBody>) -> policy::pushback::Pushback {
    let headers = response.headers();
    if let Some(value) = headers.get("grpc-retry-pushback-ms") {
        return policy::pushback::grpc(value.as_bytes());
    }
    let value = headers.get(header::RETRY_AFTER);
    value.map_or_else(Default::default, |value| {
        policy::pushback::retry_after(value.as_bytes(), runtime::clock::wall_s())
    })
}
