//! The session: a role's stream to the control plane, begun again for as long as the role lives.
//!
//! It reports health each second and at once when it changes, hands each snapshot to the role as an [`Offer`], and sends the
//! role's answer back. A snapshot that does not even parse is rejected here, with the field that is wrong.

use std::net::SocketAddr;
use std::time::Duration;

use api::control::discovery_client::DiscoveryClient;
use api::control::{self as wire, Applied, Heartbeat, Report, report};
use model::identity::Subject;
use model::name::Name;
use model::snapshot::Snapshot;
use runtime::clock;
use runtime::drain::Drain;
use runtime::identity::Identity;
use runtime::tls::Alpn;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::backoff::Backoff;
use super::{Error, connect};
use crate::registry::HEARTBEAT;

/// The wait after the first stream that broke.
const RETRY_INITIAL: Duration = Duration::from_millis(100);
/// The longest wait between two attempts; well below the time for which an instance is presumed to live after a restart of the control
/// plane, and below that in which the registry refills where nobody knows who lived.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How long the control plane may take to open the stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
/// Reports that wait to be sent.
const REPORTS_WAITING_MAX: usize = 16;
/// Snapshots that wait for the role to look at them.
const OFFERS_WAITING_MAX: usize = 1;
/// Largest snapshot, in bytes.
const SNAPSHOT_BYTES_MAX: usize = 64 << 20;
/// A role that has been on its own for this long carries traffic on what it has.
const SETTLED: Duration = Duration::from_secs(3);
/// How long the last report may take when the role ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a session needs.
#[derive(Debug)]
pub struct Options {
    /// The control plane, `host:port`.
    pub control: String,
    /// The role's identity; each new stream uses the one of that moment.
    pub identity: Identity,
    /// What the role says of itself.
    pub hello: Hello,
    /// How it is.
    pub health: watch::Receiver<Health>,
    /// Ends the session: the control plane is told that the instance drains, and the stream closes.
    pub drain: Drain,
}

/// What a role says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The instance's name, unique in the mesh; it begins with the subject's name.
    pub instance: Name,
    /// The subset of the service it belongs to.
    pub subset: Option<Name>,
    /// Where the mesh reaches it; `None`: nowhere, as with a gateway.
    pub address: Option<SocketAddr>,
    /// The version of the snapshot that it has kept and runs on when nothing newer comes; 0: none.
    pub version: u64,
}

/// How a role is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// Its application answers.
    pub healthy: bool,
    /// It is about to end: nothing new should come.
    pub draining: bool,
}

/// A snapshot to take up or to reject.
#[derive(Debug)]
pub struct Offer {
    /// The role's part of the mesh, whole.
    pub snapshot: Snapshot,
    /// For the outcome: the error says why the role stays on what it has. Dropping it answers nothing.
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// A running session; it ends with the drain, or when it is dropped.
#[derive(Debug)]
pub struct Session {
    offers: mpsc::Receiver<Offer>,
    contact: watch::Receiver<Contact>,
}

/// How the role stands with the control plane.
#[derive(Debug, Clone, Default)]
struct Contact {
    /// A stream broke or could not even be opened.
    lost: bool,
    /// The last attempt was answered, and the answer was no.
    refused: Option<Refusal>,
}

/// Why the control plane, or whoever answers in its place, wants nothing of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub why: String,
    /// Whether it is the control plane who says so, and not a stranger at its address.
    pub proven: bool,
}

impl Session {
    /// Starts the session's task on the current runtime.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let (sender, offers) = mpsc::channel(OFFERS_WAITING_MAX);
        let (writer, contact) = watch::channel(Contact::default());
        let drain = options.drain.clone();
        drain.spawn(run(options, sender, writer));
        Self { offers, contact }
    }

    /// Resolves once a stream broke or could not even be opened: what the role needs now may be long in coming.
    pub fn away(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut contact = self.contact.clone();
        async move {
            let is_away = |contact: &Contact| contact.lost && contact.refused.as_ref().is_none_or(|no| !no.proven);
            if contact.wait_for(is_away).await.is_err() {
                // The session has ended; that is not for this to tell.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Resolves once someone has answered and wants nothing of this role. A later revision of the mesh may want it again, so the
    /// session goes on; a role that has nothing to work on has no reason to.
    pub fn refused(&self) -> impl Future<Output = Refusal> + Send + use<> {
        let mut contact = self.contact.clone();
        async move {
            let refused = contact.wait_for(|contact| contact.refused.is_some()).await;
            match refused.ok().and_then(|contact| contact.refused.clone()) {
                Some(refusal) => refusal,
                None => std::future::pending().await,
            }
        }
    }

    /// The next snapshot; `None` when the session has ended.
    pub async fn next(&mut self) -> Option<Offer> {
        self.offers.recv().await
    }
}

/// Why a stream came to its end.
enum End {
    /// The role ends or has dropped the session.
    Asked,
    Broken(Error),
}

async fn run(options: Options, offers: mpsc::Sender<Offer>, contact: watch::Sender<Contact>) {
    let started = Instant::now();
    let mut state = Life { options, offers, started, applied: false };
    let mut backoff = Backoff::new(RETRY_INITIAL, RETRY_MAX);
    let mut told = String::new();
    loop {
        let opened = Instant::now();
        let broken = match state.stream().await {
            End::Asked => return,
            End::Broken(error) => error,
        };
        // A stream that stood for a while says that the control plane was well.
        if opened.elapsed() > SETTLED {
            backoff.reset();
            told.clear();
        }
        // Once for each reason: the last one is what keeps the role on its own now.
        if told != broken.to_string() {
            told = broken.to_string();
            if broken.is_temporary() {
                tracing::warn!(error = told, "the control plane is away; working on with what is here");
            } else {
                tracing::error!(
                    error = told,
                    "the control plane does not take this role; working on with what is here"
                );
            }
        }
        let proven = !matches!(broken, Error::Unproven { .. });
        let refused = (!broken.is_temporary()).then(|| Refusal { why: told.clone(), proven });
        contact.send_replace(Contact { lost: true, refused });
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            () = state.options.drain.requested() => return,
            () = state.offers.closed() => return,
        }
    }
}

struct Life {
    options: Options,
    offers: mpsc::Sender<Offer>,
    started: Instant,
    // A snapshot was taken up in this life of the role.
    applied: bool,
}

/// A snapshot that the role is looking at.
struct Pending {
    version: u64,
    outcome: oneshot::Receiver<Result<(), String>>,
}

impl Life {
    /// One stream from its beginning to its end.
    async fn stream(&mut self) -> End {
        let drain = self.options.drain.clone();
        let offers = self.offers.clone();
        let opened = tokio::select! {
            opened = self.open() => opened,
            () = drain.requested() => return End::Asked,
            () = offers.closed() => return End::Asked,
        };
        match opened {
            Ok((reports, snapshots)) => self.follow(reports, snapshots).await,
            Err(error) => End::Broken(error),
        }
    }

    async fn open(&self) -> Result<(mpsc::Sender<Report>, Streaming<wire::Snapshot>), Error> {
        let Options { control, identity, .. } = &self.options;
        let tls = identity.current().client(&Subject::ControlPlane, Alpn::Http2)?;
        let channel = connect::connect(control, tls).await?;
        let (reports, outgoing) = mpsc::channel(REPORTS_WAITING_MAX);
        // The channel is new and has room for both.
        let _ = reports.try_send(self.hello());
        let _ = reports.try_send(self.beat(*self.options.health.borrow()));
        let mut client = DiscoveryClient::new(channel).max_decoding_message_size(SNAPSHOT_BYTES_MAX);
        let opened = tokio::time::timeout(OPEN_TIMEOUT, client.sync(ReceiverStream::new(outgoing))).await;
        let late = |_| Error::Unreachable { control: control.clone(), why: "it did not open the stream".to_owned() };
        let snapshots = opened.map_err(late)?.map_err(|status| Error::of(control, &status))?;
        Ok((reports, snapshots.into_inner()))
    }

    fn hello(&self) -> Report {
        let Hello { instance, subset, address, version } = self.options.hello.clone();
        let serving = self.applied || self.started.elapsed() > SETTLED;
        let hello = wire::Hello {
            instance: instance.into(),
            subset: subset.map(String::from).unwrap_or_default(),
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            version,
            serving,
        };
        Report { report: Some(report::Report::Hello(hello)) }
    }

    /// How the role is. One whose certificate has ended is of no use to a caller that does not have a connection yet, however well its
    /// application is.
    fn beat(&self, health: Health) -> Report {
        let certified = self.options.identity.current().ended_for_s(clock::wall_s()) == 0;
        heartbeat(Health { healthy: health.healthy && certified, ..health })
    }

    async fn follow(&mut self, reports: mpsc::Sender<Report>, mut snapshots: Streaming<wire::Snapshot>) -> End {
        let mut health = self.options.health.clone();
        let drain = self.options.drain.clone();
        let offers = self.offers.clone();
        let mut beats = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pending: Option<Pending> = None;
        // Of a role that no longer says how it is, the last word holds.
        let mut speaks = true;
        loop {
            let report = tokio::select! {
                snapshot = snapshots.message(), if pending.is_none() => match self.offer(snapshot, &mut pending).await {
                    Ok(rejection) => rejection,
                    Err(end) => return end,
                },
                outcome = settled(&mut pending) => self.answer(outcome),
                _ = beats.tick() => Some(self.beat(*health.borrow())),
                changed = health.changed(), if speaks => {
                    speaks = changed.is_ok();
                    speaks.then(|| self.beat(*health.borrow_and_update()))
                }
                () = offers.closed() => return farewell(reports, snapshots).await,
                () = drain.requested() => return farewell(reports, snapshots).await,
            };
            if let Some(report) = report
                && reports.send(report).await.is_err()
            {
                return self.broken("the stream broke");
            }
        }
    }

    /// Hands a snapshot to the role. Answers the rejection of one that does not parse.
    async fn offer(
        &self,
        received: Result<Option<wire::Snapshot>, tonic::Status>,
        pending: &mut Option<Pending>,
    ) -> Result<Option<Report>, End> {
        let received = received.map_err(|status| End::Broken(Error::of(&self.options.control, &status)))?;
        let Some(received) = received else { return Err(self.broken("it ended the stream")) };
        let version = received.version;
        let snapshot = match Snapshot::try_from(received) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::error!(%error, version, "a snapshot does not parse");
                return Ok(Some(applied(version, error.to_string())));
            }
        };
        let (answer, outcome) = oneshot::channel();
        // At most one offer is out, so there is room unless the role is gone.
        self.offers.send(Offer { snapshot, answer }).await.map_err(|_| End::Asked)?;
        *pending = Some(Pending { version, outcome });
        Ok(None)
    }

    fn answer(&mut self, (version, outcome): (u64, Option<Result<(), String>>)) -> Option<Report> {
        match outcome? {
            Ok(()) => {
                self.applied = true;
                self.options.hello.version = version;
                Some(applied(version, String::new()))
            }
            Err(why) if why.is_empty() => Some(applied(version, "rejected without a reason".to_owned())),
            Err(why) => Some(applied(version, why)),
        }
    }

    fn broken(&self, why: &str) -> End {
        End::Broken(Error::Unreachable { control: self.options.control.clone(), why: why.to_owned() })
    }
}

/// The outcome of the snapshot that the role is looking at, when there is one.
async fn settled(pending: &mut Option<Pending>) -> (u64, Option<Result<(), String>>) {
    let Some(waiting) = pending else { return std::future::pending().await };
    let outcome = (&mut waiting.outcome).await.ok();
    let version = waiting.version;
    *pending = None;
    (version, outcome)
}

/// Says that the instance drains and ends the stream from this side, so that it is out of the registry at once.
async fn farewell(reports: mpsc::Sender<Report>, mut snapshots: Streaming<wire::Snapshot>) -> End {
    let goodbye = async move {
        let said = reports.send(heartbeat(Health { healthy: false, draining: true })).await;
        drop(reports);
        // When the control plane has read the end it ends its side too.
        while said.is_ok() && matches!(snapshots.message().await, Ok(Some(_))) {}
    };
    let _ = tokio::time::timeout(FAREWELL, goodbye).await;
    End::Asked
}

fn heartbeat(health: Health) -> Report {
    let Health { healthy, draining } = health;
    Report { report: Some(report::Report::Heartbeat(Heartbeat { healthy, draining })) }
}

fn applied(version: u64, rejected: String) -> Report {
    Report { report: Some(report::Report::Applied(Applied { version, rejected })) }
}
