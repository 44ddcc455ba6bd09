//! The broker's role: its API stands behind an inbound pipeline and its deliveries go out through an outbound one, so that
//! identity, authorization, retries, breakers and traces hold for messages as they hold for calls.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use control::client::Health;
use model::snapshot::Snapshot;
use proxy::{DataPlane, Target};
use runtime::drain::{self, Drain};
use runtime::http::{Body, BoxFuture, Handler, SharedHandler};
use runtime::metrics::Metrics;
use tokio::sync::watch;

use super::deadline::{Deadline, Step};
use super::member::{self, Member};
use super::ready::Ready;
use super::{Ground, access_log};

/// How a broker runs.
#[derive(Debug)]
pub struct Options {
    /// How it becomes a member; the subject is the broker.
    pub member: member::Options,
    /// Where the mesh reaches it.
    pub inbound: SocketAddr,
    /// Where an operator reads its metrics and status, on loopback.
    pub status: SocketAddr,
}

/// Runs until `stop`, then until its requests and deliveries have ended.
///
/// # Errors
/// When it cannot become a member, cannot listen, or finds its log damaged.
pub async fn run(options: Options, ground: Ground, stop: Drain) -> anyhow::Result<()> {
    options.member.reached_at(options.inbound)?;
    let (ending, drain) = drain::channel();
    let member = Member::join(options.member.clone(), &ground, &drain, &stop).await?;
    let metrics = Metrics::default();
    let entry = Arc::new(Entry::default());
    let broker = broker::Broker::start(broker::Options {
        mesh: options.member.mesh.clone(),
        disk: ground.disk.clone(),
        dir: options.member.data.join("log"),
        place: ground.place(),
        metrics: metrics.clone(),
        caller: entry.clone(),
        drain: drain.clone(),
    })?;
    let plane = Arc::new(start_plane(&options, &member, &ground, metrics, broker.handler(), &drain).await?);
    entry.open(plane.caller());
    let broker = Arc::new(broker);
    let (well, healthy) = watch::channel(Health { healthy: true, draining: false });
    drain.spawn(tell_failure(broker.clone(), well, drain.clone()));
    let (applying, serving) = (plane.clone(), broker.clone());
    let mut work = member.follow(plane.inbound_address(), healthy, &drain, move |snapshot| {
        let (plane, broker) = (applying.clone(), serving.clone());
        async move { apply(&plane, &broker, snapshot).await }
    });
    let used = member::in_use(&mut work, &stop).await;
    if let Ok(true) = used {
        let addresses = [("inbound", plane.inbound_address()), ("status", plane.status_address())];
        Ready::new("broker", &options.member.instance, addresses)
            .tell(&*ground.disk, options.member.ready_file.as_deref())?;
        stop.requested().await;
    }
    let deadline = Deadline::after(options.member.stop_timeout);
    plane.stop_inbound(deadline.left_for(Step::Inbound)).await;
    plane.stop_outbound(deadline.left_for(Step::Outbound)).await;
    ending.drain(deadline.left_for(Step::Rest)).await?;
    used.map(|_| ())
}

/// A broker that takes nothing any more must not be called any more: the registry is told, and it says why to whoever asks its own
/// `/healthz`. It stays as it is, since only somebody who has looked at its disk should start it again.
async fn tell_failure(broker: Arc<broker::Broker>, well: watch::Sender<Health>, ending: Drain) {
    tokio::select! {
        why = broker.failed() => {
            tracing::error!(why, "the broker is not healthy any more; look at its disk, then start it again");
            well.send_modify(|health| health.healthy = false);
            ending.requested().await;
        }
        () = ending.requested() => {}
    }
}

async fn start_plane(
    options: &Options,
    member: &Member,
    ground: &Ground,
    metrics: Metrics,
    api: SharedHandler,
    drain: &Drain,
) -> anyhow::Result<DataPlane> {
    let plane = DataPlane::start(proxy::Options {
        mesh: options.member.mesh.clone(),
        subject: options.member.subject.clone(),
        instance: options.member.instance.clone(),
        identity: Some(member.identity.clone()),
        lanes: ground.lanes("broker")?,
        metrics,
        access_log: access_log(options.member.access_log),
        outbound: None,
        status: Some(options.status),
        inbound: Some(proxy::Inbound { listen: options.inbound, target: Target::Handler(api) }),
        gateway: None,
        drain: drain.clone(),
    });
    plane.await.map_err(super::remedied).context("the broker's data plane could not start")
}

/// Whole or not at all: what the data plane rejects, the broker is never told.
async fn apply(plane: &DataPlane, broker: &broker::Broker, snapshot: Arc<Snapshot>) -> Result<(), String> {
    let part = snapshot.broker.clone().ok_or("the snapshot has no part for the broker")?;
    plane.apply(snapshot).map_err(|rejected| rejected.to_string())?;
    broker.apply(Arc::new(part)).map_err(|error| error.to_string())
}

/// The way out for deliveries. The broker is started before its data plane, which serves the broker's API; so the way
/// opens a moment later, and what comes before is refused like any endpoint that is not there yet.
#[derive(Default)]
struct Entry(OnceLock<SharedHandler>);

impl Entry {
    fn open(&self, way: SharedHandler) {
        // It is opened once; a second time would change nothing.
        let _ = self.0.set(way);
    }
}

impl Handler for Entry {
    fn call(&self, request: http::Request<Body>) -> BoxFuture<http::Response<Body>> {
        match self.0.get() {
            Some(way) => way.call(request),
            None => Box::pin(async {
                let mut response = http::Response::new(runtime::http::full("the data plane is starting"));
                *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                response
            }),
        }
    }
}

#[cfg(test)]
mod tests;
