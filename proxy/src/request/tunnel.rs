//! Tunnels: WebSocket and other upgrades, which pass through, and CONNECT, whose content is served by the same pipeline.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Response, Version, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use policy::host::Authority;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};

use super::matching;
use crate::body::Answered;
use crate::edge::{Arrival, Direction, killed, serve_tunnel};
use crate::refusal::{Reason, Refusal};
use crate::table::Table;
use crate::upstream::Connection;

/// How long the two ends of a tunnel that is closed from here may take to hear of it.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// The client's side of an upgrade.
pub(super) struct Downstream(OnUpgrade);

/// Puts the upgrade that was taken off at the edge on again: it is re-made for the next hop (RFC 9110 §7.8).
pub(super) fn prepare(head: &mut Parts, protocol: HeaderValue) -> Option<Downstream> {
    let downstream = head.extensions.remove::<OnUpgrade>()?;
    if head.version != http::Version::HTTP_11 {
        return None;
    }
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(header::UPGRADE, protocol);
    Some(Downstream(downstream))
}

/// Lets bytes go both ways until both sides have ended (one may end first), nothing has come for too long
/// ([`crate::edge::TUNNEL_IDLE_TICKS_MAX`]), or the door is done waiting. Either end that breaks off takes the other with it.
pub(super) fn splice(arrival: &Arc<Arrival>, downstream: Downstream, upstream: OnUpgrade, connection: Connection) {
    let held = arrival.clone();
    if let Some(control) = &arrival.control {
        control.becomes_tunnel();
    }
    let task = async move {
        // The connection's driver hands its stream over only while someone holds the connection.
        let _connection = connection;
        let Ok((downstream, upstream)) = tokio::try_join!(downstream.0, upstream) else { return };
        let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
        tokio::select! {
            biased;
            _ = copy_bidirectional(&mut downstream, &mut upstream) => {}
            () = killed(held.control.as_deref()) => {
                let closing = async { tokio::join!(downstream.shutdown(), upstream.shutdown()) };
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
            }
        }
    };
    arrival.spawn(task);
}

/// Opens a tunnel into this very pipeline. A host that could not be reached through it is refused at once.
pub(super) fn connect(
    arrival: &Arc<Arrival>,
    table: &Table,
    head: &mut Parts,
) -> Result<Response<Answered>, Box<Refusal>> {
    if arrival.direction != Direction::Outbound {
        return Err(Reason::Connect.into());
    }
    let target = head.uri.authority().ok_or(Reason::NoHost)?.to_string();
    let authority = Authority::parse(&target).map_err(Reason::Host)?;
    if authority.host != model::config::SIDECAR {
        matching::service(&arrival.plane, table, &authority.host)?;
    }
    let upgrade = head.extensions.remove::<OnUpgrade>().ok_or(Reason::Tunnel("the connection cannot carry one"))?;
    let outer = arrival.control.clone().ok_or(Reason::Tunnel("the connection cannot carry one"))?;
    let control = arrival.enter().ok_or(Reason::Tunnel("this door holds as many connections as it may"))?;
    if head.version != Version::HTTP_2 {
        outer.becomes_tunnel();
    }
    let inner = arrival.inside_tunnel(target, control.clone());
    arrival.spawn(async move {
        // The connection around it is not idle while the tunnel stands.
        let _busy = outer.begin();
        if let Ok(upgraded) = upgrade.await {
            serve_tunnel(upgraded, inner, control).await;
        }
    });
    Ok(Response::new(Answered::empty()))
}
