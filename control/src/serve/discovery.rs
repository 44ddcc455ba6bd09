//! Configuration and registry over gRPC: one stream for each role instance, one task for each stream.
//!
//! The task tells the hub what the role reports, and sends the role's part of the mesh at once and whenever the bell rings and
//! the part has changed. Only the latest is ever sent: while the role has not taken the last one off the stream, changes gather.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::control::discovery_server::Discovery as Wire;
use api::control::{self as wire, Report, WithdrawRequest, WithdrawResponse, report};
use model::identity::Subject;
use model::name::Name;
use runtime::drain::Drain;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Member;
use super::counters::Counters;
use crate::hub::Hub;
use crate::registry::{Hello, Stream};

/// Streams at a time.
pub(crate) const STREAMS_MAX: usize = 8_192;
/// Largest report, in bytes.
pub(crate) const REPORT_BYTES_MAX: usize = 64 * 1_024;
/// How long a role may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Changes within this time become one snapshot.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Snapshots that wait for a role to take them.
const SNAPSHOTS_WAITING_MAX: usize = 1;

/// Serves the streams.
#[derive(Debug)]
pub(crate) struct Discovery {
    hub: Arc<Hub>,
    counters: Counters,
    drain: Drain,
    streams: Arc<Semaphore>,
}

impl Discovery {
    pub(crate) fn new(hub: Arc<Hub>, counters: Counters, drain: Drain) -> Self {
        Self { hub, counters, drain, streams: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }
}

#[tonic::async_trait]
impl Wire for Discovery {
    type SyncStream = ReceiverStream<Result<wire::Snapshot, Status>>;

    async fn sync(&self, request: Request<Streaming<Report>>) -> Result<Response<Self::SyncStream>, Status> {
        let member = super::member(&request)?;
        let full = |_| Status::resource_exhausted(format!("{STREAMS_MAX} roles are connected already"));
        let permit = self.streams.clone().try_acquire_owned().map_err(full)?;
        let (snapshots, outgoing) = mpsc::channel(SNAPSHOTS_WAITING_MAX);
        let conversation = Conversation {
            member,
            hub: self.hub.clone(),
            counters: self.counters.clone(),
            drain: self.drain.clone(),
            reports: request.into_inner(),
            snapshots,
            bell: self.hub.bell(),
            _permit: permit,
        };
        self.drain.spawn(conversation.run());
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn withdraw(&self, request: Request<WithdrawRequest>) -> Result<Response<WithdrawResponse>, Status> {
        let member = super::member(&request)?;
        let instance = own_instance(&member, &request.into_inner().instance)?;
        tokio::select! {
            () = self.hub.withdrawn(&member.id.subject, &instance) => Ok(Response::new(WithdrawResponse {})),
            () = self.drain.requested() => Err(ending()),
        }
    }
}

/// One stream.
struct Conversation {
    member: Member,
    hub: Arc<Hub>,
    counters: Counters,
    drain: Drain,
    reports: Streaming<Report>,
    snapshots: mpsc::Sender<Result<wire::Snapshot, Status>>,
    bell: watch::Receiver<()>,
    _permit: OwnedSemaphorePermit,
}

/// What a hello says beyond the registry's part.
#[derive(Debug)]
struct Greeting {
    hello: Hello,
    serving: bool,
}

impl Conversation {
    fn subject(&self) -> &Subject {
        &self.member.id.subject
    }

    async fn run(mut self) {
        let end = match self.greet().await {
            Ok((stream, first)) => {
                tracing::info!(subject = %self.subject(), instance = %stream.instance(), "a role connected");
                self.counters.streams.inc();
                let end = self.talk(&stream, first).await;
                self.counters.streams.dec();
                self.hub.ended(&stream);
                let why = end.as_ref().err().map_or("it ended", |status| status.message()).to_owned();
                tracing::info!(subject = %self.subject(), instance = %stream.instance(), why, "a role disconnected");
                end
            }
            Err(status) => Err(status),
        };
        if let Err(status) = end {
            // The role may be gone, or not have taken the last snapshot yet; then nobody is there to be told.
            let _ = self.snapshots.try_send(Err(status));
        }
    }

    /// Hears the hello. Answers when the first snapshot is due.
    async fn greet(&mut self) -> Result<(Stream, Instant), Status> {
        let first = tokio::select! {
            first = tokio::time::timeout(HELLO_TIMEOUT, self.reports.message()) => first,
            () = self.drain.requested() => return Err(ending()),
        };
        let first = first.map_err(|_| Status::deadline_exceeded("no hello came"))??;
        let Some(Report { report: Some(report::Report::Hello(hello)) }) = first else {
            return Err(Status::invalid_argument("the first report is a hello"));
        };
        let Greeting { hello, serving } = read(&self.member, &hello)?;
        if self.hub.snapshot(self.subject()).is_none() {
            return Err(undeclared(self.subject()));
        }
        let exhausted = |error: crate::registry::Error| Status::resource_exhausted(error.to_string());
        let stream = self.hub.hello(self.subject(), hello).map_err(exhausted)?;
        // A role that carries traffic keeps what it has until the registry knows as much as that.
        let refilled = self.hub.refilled().filter(|_| serving);
        Ok((stream, refilled.unwrap_or_else(Instant::now)))
    }

    /// Hears reports and sends snapshots until either side ends.
    async fn talk(&mut self, stream: &Stream, first: Instant) -> Result<(), Status> {
        let mut sent_version = 0;
        let mut due = Some(first);
        loop {
            let next = due;
            let snapshots = self.snapshots.clone();
            let room = async move {
                tokio::time::sleep_until(next.unwrap_or_else(Instant::now)).await;
                snapshots.reserve_owned().await
            };
            tokio::select! {
                report = self.reports.message() => match report? {
                    Some(report) => self.hear(stream, report)?,
                    None => return Ok(()),
                },
                rung = self.bell.changed(), if due.is_none() => {
                    if rung.is_err() {
                        return Err(ending());
                    }
                    due = Some(Instant::now() + DEBOUNCE);
                }
                room = room, if next.is_some() => {
                    let Ok(room) = room else { return Ok(()) };
                    due = None;
                    // What rang until now is in the snapshot that is cut now.
                    self.bell.mark_unchanged();
                    sent_version = self.tell(stream, sent_version, room)?;
                }
                () = self.drain.requested() => return Err(ending()),
            }
        }
    }

    fn hear(&self, stream: &Stream, report: Report) -> Result<(), Status> {
        match report.report {
            Some(report::Report::Heartbeat(beat)) => self
                .hub
                .heartbeat(stream, beat.healthy, beat.draining)
                .map_err(|error| Status::aborted(error.to_string())),
            Some(report::Report::Applied(applied)) => {
                let rejected = Some(applied.rejected.as_str()).filter(|why| !why.is_empty());
                if let Some(why) = rejected {
                    self.counters.rejections.inc();
                    tracing::error!(subject = %self.subject(), instance = %stream.instance(), version = applied.version, why, "a role rejected a snapshot");
                }
                self.hub.answered(stream, applied.version, rejected);
                Ok(())
            }
            Some(report::Report::Hello(_)) => Err(Status::invalid_argument("a stream has one hello")),
            // A report of a kind that a later release sends.
            None => Ok(()),
        }
    }

    /// Sends the role's part if it is not the one that was sent last. Answers the version it has been sent.
    fn tell(
        &self,
        stream: &Stream,
        sent_version: u64,
        room: mpsc::OwnedPermit<Result<wire::Snapshot, Status>>,
    ) -> Result<u64, Status> {
        if !self.hub.is_current(stream) {
            return Err(Status::aborted("the instance has begun another stream since"));
        }
        let snapshot = self.hub.snapshot(self.subject()).ok_or_else(|| undeclared(self.subject()))?;
        if snapshot.version == sent_version {
            return Ok(sent_version);
        }
        self.hub.sent(stream, &snapshot);
        self.counters.snapshots.inc();
        let version = snapshot.version;
        room.send(Ok(wire::Snapshot::from(Arc::unwrap_or_clone(snapshot))));
        Ok(version)
    }
}

/// What a role says of itself, as far as it may say it.
fn read(member: &Member, hello: &wire::Hello) -> Result<Greeting, Status> {
    let odd = |field: &str, why: &dyn std::fmt::Display| Status::invalid_argument(format!("hello.{field}: {why}"));
    let instance = own_instance(member, &hello.instance)?;
    let subset = Some(&hello.subset).filter(|subset| !subset.is_empty());
    let subset = subset.map(|subset| Name::new(subset).map_err(|why| odd("subset", &why))).transpose()?;
    let address = Some(&hello.address).filter(|address| !address.is_empty());
    let address = address.map(|address| address.parse().map_err(|why| odd("address", &why))).transpose()?;
    if let Some(address) = address {
        reachable(address, member.from.ip()).map_err(|why| odd("address", &format_args!("{address} {why}")))?;
    }
    let serving = hello.serving && hello.version > 0;
    Ok(Greeting { hello: Hello { instance, subset, address }, serving })
}

/// A role speaks for the instance that its certificate names, and for no other.
fn own_instance(member: &Member, named: &str) -> Result<Name, Status> {
    if member.instance.as_str() == named {
        return Ok(member.instance.clone());
    }
    Err(Status::permission_denied(format!(
        "the certificate is of {}, which does not speak for {named:?}",
        member.instance
    )))
}

/// Whether others can reach an instance there that itself comes from `from`.
fn reachable(address: SocketAddr, from: IpAddr) -> Result<(), &'static str> {
    let there = address.ip().to_canonical();
    if there.is_unspecified() || address.port() == 0 {
        return Err(
            "is no address at which anybody is reached; `--advertise` says where the mesh reaches this instance",
        );
    }
    if there.is_multicast() || matches!(there, IpAddr::V4(address) if address.is_broadcast()) {
        return Err("is not the address of one instance");
    }
    if there.is_loopback() && !from.to_canonical().is_loopback() {
        return Err("is on another machine's loopback; `--advertise` says where the mesh reaches this instance");
    }
    Ok(())
}

fn undeclared(subject: &Subject) -> Status {
    Status::permission_denied(format!("the mesh declares no {subject}"))
}

fn ending() -> Status {
    Status::unavailable("the control plane is ending")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_registers_where_others_reach_it() {
        let (near, far) = ("127.0.0.1", "10.0.0.7");
        for (address, from, why) in [
            ("10.0.0.7:15008", far, ""),
            // Behind an address translation it is reached elsewhere.
            ("192.0.2.1:15008", far, ""),
            ("10.0.0.7:15008", near, ""),
            ("127.0.0.1:15008", near, ""),
            ("[::1]:15008", "::1", ""),
            ("127.0.0.2:15008", "::ffff:127.0.0.1", ""),
            ("127.0.0.1:15008", far, "another machine's loopback"),
            ("[::1]:15008", far, "another machine's loopback"),
            ("[::ffff:127.0.0.1]:15008", far, "another machine's loopback"),
            ("0.0.0.0:15008", near, "--advertise"),
            ("0.0.0.0:15008", far, "--advertise"),
            ("[::]:15008", far, "--advertise"),
            ("[::ffff:0.0.0.0]:15008", far, "--advertise"),
            ("10.0.0.7:0", far, "--advertise"),
            ("224.0.0.1:15008", far, "not the address of one instance"),
            ("255.255.255.255:15008", far, "not the address of one instance"),
        ] {
            let found = reachable(address.parse().unwrap(), from.parse().unwrap());
            match found {
                Ok(()) => assert_eq!(why, "", "{address} from {from}"),
                Err(found) => assert!(!why.is_empty() && found.contains(why), "{address} from {from}: {found}"),
            }
        }
    }
}
