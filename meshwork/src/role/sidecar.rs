//! The sidecar: a data plane beside one instance of a service.
//!
//! It starts its application only when it can carry the application's traffic, and at the end it drains in the order that loses
//! nothing: it serves on until its callers know that it goes, then closes inbound, then ends the application, and closes outbound
//! only when the application has exited (semantics known from istio#51855 and from Linkerd's graceful shutdown, which refuses the
//! application's own last calls).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use control::client;
use model::config;
use proxy::{DataPlane, Target};
use runtime::drain::{self, Drain};
use runtime::metrics::Metrics;
use tokio::sync::watch;

use super::application::{self, Application};
use super::deadline::{Deadline, Step};
use super::member::{self, Member};
use super::ready::Ready;
use super::{Ground, access_log, health};

/// A request that was given this endpoint a moment before its sidecar took up the snapshot without it may still be on its way to
/// connect: some round trips of a network within one region, and a turn of a busy processor.
const LAST_CONNECTIONS: Duration = Duration::from_millis(100);

/// How a sidecar runs.
#[derive(Debug)]
pub struct Options {
    /// How it becomes a member; the subject is a service.
    pub member: member::Options,
    /// Where its application reaches it, on loopback.
    pub outbound: SocketAddr,
    /// Where the mesh reaches it.
    pub inbound: SocketAddr,
    /// The port on loopback where its application listens.
    pub application_port: u16,
    /// How it asks its application whether it can serve.
    pub health: config::Health,
    /// What it starts; `None`: the application is started by someone else.
    pub command: Option<application::Command>,
}

/// Runs until `stop` or until its application ends by itself; answers with the application's exit code, or 0.
///
/// # Errors
/// When it cannot become a member, cannot listen, or cannot start its application.
pub async fn run(options: Options, ground: Ground, stop: Drain) -> anyhow::Result<i32> {
    options.member.reached_at(options.inbound)?;
    let (ending, drain) = drain::channel();
    let member = Member::join(options.member.clone(), &ground, &drain, &stop).await?;
    let plane = Arc::new(start_plane(&options, &member, &ground, &drain).await?);
    let (well, health) = watch::channel(client::Health { healthy: false, draining: false });
    let applying = plane.clone();
    let mut work = member.follow(plane.inbound_address(), health, &drain, move |snapshot| {
        let plane = applying.clone();
        async move { plane.apply(snapshot).map_err(|rejected| rejected.to_string()) }
    });
    let (mut application, mut end) = (None, End::Unused);
    let used = member::in_use(&mut work, &stop).await;
    if let Ok(true) = used {
        application = start_application(&options, &plane)?;
        end = serve(&options, &ground, &plane, &well, application.as_mut(), &stop).await?;
    }
    let deadline = Deadline::after(options.member.stop_timeout);
    well.send_modify(|health| health.draining = true);
    if end == End::Asked {
        withdraw(&member, deadline.left_for(Step::Withdraw)).await;
    }
    plane.stop_inbound(deadline.left_for(Step::Inbound)).await;
    let code = match application {
        Some(application) => application.stop(deadline.left_for(Step::Application)).await?,
        None => 0,
    };
    plane.stop_outbound(deadline.left_for(Step::Outbound)).await;
    ending.drain(deadline.left_for(Step::Rest)).await?;
    used.map(|_| code)
}

async fn start_plane(options: &Options, member: &Member, ground: &Ground, drain: &Drain) -> anyhow::Result<DataPlane> {
    let application = SocketAddr::from((Ipv4Addr::LOCALHOST, options.application_port));
    let plane = DataPlane::start(proxy::Options {
        mesh: options.member.mesh.clone(),
        subject: options.member.subject.clone(),
        instance: options.member.instance.clone(),
        identity: Some(member.identity.clone()),
        lanes: ground.lanes("sidecar")?,
        metrics: Metrics::default(),
        access_log: access_log(options.member.access_log),
        outbound: Some(options.outbound),
        status: None,
        inbound: Some(proxy::Inbound { listen: options.inbound, target: Target::Application(application) }),
        gateway: None,
        drain: drain.clone(),
    });
    plane.await.map_err(super::remedied).context("the sidecar's data plane could not start")
}

fn start_application(options: &Options, plane: &DataPlane) -> anyhow::Result<Option<Application>> {
    let Some(command) = &options.command else { return Ok(None) };
    let outbound = plane.outbound_address().context("the sidecar has no outbound listener")?;
    let application = application::start(command, options.application_port, outbound)?;
    Ok(Some(application))
}

/// Why a sidecar serves no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It never did.
    Unused,
    /// It was asked to end.
    Asked,
    /// Its application is gone; there is nothing to serve callers with.
    ByItself,
}

/// Waits until no caller sends here any more. Where the control plane cannot tell when that is, nobody knows who still does, and
/// all of `bound` is waited.
async fn withdraw(member: &Member, bound: Duration) {
    let withdrawn = async {
        let member::Options { control, instance, .. } = member.options();
        match client::withdrawn(control, &member.identity, instance).await {
            Ok(()) => tokio::time::sleep(LAST_CONNECTIONS).await,
            Err(error) => {
                tracing::warn!(%error, "callers may not know yet that this instance ends; serving on for a while");
                std::future::pending().await
            }
        }
    };
    if tokio::time::timeout(bound, withdrawn).await.is_err() {
        tracing::warn!(?bound, "callers that still send here are refused from now on");
    }
}

/// Serves until `stop` or the application's own end. Watches the application's health all the while, and tells that the
/// sidecar is ready when the application first is.
async fn serve(
    options: &Options,
    ground: &Ground,
    plane: &DataPlane,
    well: &watch::Sender<client::Health>,
    application: Option<&mut Application>,
    stop: &Drain,
) -> anyhow::Result<End> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.application_port));
    let watching = health::watch(address, options.health.clone(), well);
    let telling = tell_when_healthy(options, ground, plane, well.subscribe());
    let ended = async {
        match application {
            Some(application) => application.ended().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = stop.requested() => Ok(End::Asked),
        code = ended => {
            let code = code?;
            tracing::warn!(code, "the application ended by itself");
            Ok(End::ByItself)
        }
        () = watching => Ok(End::Asked),
        told = telling => match told {
            Ok(never) => match never {},
            Err(error) => Err(error),
        },
    }
}

async fn tell_when_healthy(
    options: &Options,
    ground: &Ground,
    plane: &DataPlane,
    mut well: watch::Receiver<client::Health>,
) -> anyhow::Result<std::convert::Infallible> {
    well.wait_for(|health| health.healthy).await.context("nobody watches the application's health")?;
    let addresses = [("outbound", plane.outbound_address()), ("inbound", plane.inbound_address())];
    Ready::new("sidecar", &options.member.instance, addresses)
        .tell(&*ground.disk, options.member.ready_file.as_deref())?;
    std::future::pending().await
}
