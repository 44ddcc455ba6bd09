//! The gateway: a data plane without an application, the door for clients from outside.

use std::net::SocketAddr;
use std::sync::Arc;

use proxy::DataPlane;
use runtime::drain::{self, Drain};
use runtime::metrics::Metrics;
use tokio::sync::watch;

use super::deadline::{Deadline, Step};
use super::member::{self, Member};
use super::ready::Ready;
use super::{Ground, access_log};

/// How a gateway runs.
#[derive(Debug)]
pub struct Options {
    /// How it becomes a member; the subject is a gateway.
    pub member: member::Options,
    /// Listens here instead of where the mesh file says.
    pub listen: Option<SocketAddr>,
    /// Where an operator reads its metrics and status, on loopback.
    pub status: SocketAddr,
}

/// Runs until `stop`, then until its requests have ended.
///
/// # Errors
/// When it cannot become a member or cannot listen.
pub async fn run(options: Options, ground: Ground, stop: Drain) -> anyhow::Result<()> {
    let (ending, drain) = drain::channel();
    let member = Member::join(options.member, &ground, &drain, &stop).await?;
    let settings = member.options();
    let plane = DataPlane::start(proxy::Options {
        mesh: settings.mesh.clone(),
        subject: settings.subject.clone(),
        instance: settings.instance.clone(),
        identity: Some(member.identity.clone()),
        lanes: ground.lanes("gateway")?,
        metrics: Metrics::default(),
        access_log: access_log(settings.access_log),
        outbound: None,
        status: Some(options.status),
        inbound: None,
        gateway: options.listen,
        drain: drain.clone(),
    })
    .await
    .map_err(super::remedied)?;
    let plane = Arc::new(plane);
    // A gateway has no application: while it runs, it is well.
    let (_health, healthy) = watch::channel(control::client::Health { healthy: true, draining: false });
    let applying = plane.clone();
    let mut work = member.follow(None, healthy, &drain, move |snapshot| {
        let plane = applying.clone();
        async move { plane.apply(snapshot).map_err(|rejected| rejected.to_string()) }
    });
    let used = member::in_use(&mut work, &stop).await;
    if let Ok(true) = used {
        let addresses = [
            ("gateway", Some(plane.gateway_opened().await.map_err(super::remedied)?)),
            ("status", plane.status_address()),
        ];
        Ready::new("gateway", &settings.instance, addresses).tell(&*ground.disk, settings.ready_file.as_deref())?;
        stop.requested().await;
    }
    let deadline = Deadline::after(settings.stop_timeout);
    plane.stop_inbound(deadline.left_for(Step::Inbound)).await;
    plane.stop_outbound(deadline.left_for(Step::Outbound)).await;
    ending.drain(deadline.left_for(Step::Rest)).await?;
    used.map(|_| ())
}
