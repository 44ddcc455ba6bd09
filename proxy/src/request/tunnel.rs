//! Tunnels: WebSocket and other upgrades, which pass through, and CONNECT, whose content is served by the same pipeline.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Response, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use policy::host::Authority;
use tokio::io::copy_bidirectional;

use super::matching;
use crate::body::Answered;
use crate::edge::{Arrival, killed, serve_tunnel};
use crate::refusal::{Reason, Refusal};
use crate::table::Table;
use crate::upstream::Connection;

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

/// Lets bytes go both ways until both sides have ended, or the door is done waiting.
pub(super) fn splice(arrival: &Arc<Arrival>, downstream: Downstream, upstream: OnUpgrade, connection: Connection) {
    let held = arrival.clone();
    let task = async move {
        // The connection's driver hands its stream over only while someone holds the connection.
        let _connection = connection;
        let Ok((downstream, upstream)) = tokio::try_join!(downstream.0, upstream) else { return };
        let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
        tokio::select! {
            biased;
            // Either end may break off; the other is closed with it.
            _ = copy_bidirectional(&mut downstream, &mut upstream) => {}
            () = killed(held.control.as_deref()) => {}
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
    let target = head.uri.authority().ok_or(Reason::NoHost)?.to_string();
    let authority = Authority::parse(&target).map_err(Reason::Host)?;
    if authority.host != model::config::SIDECAR {
        matching::service(&arrival.plane, table, &authority.host)?;
    }
    let upgrade = head.extensions.remove::<OnUpgrade>().ok_or(Reason::Tunnel("the connection cannot carry one"))?;
    let control = arrival.control.clone().ok_or(Reason::Tunnel("the connection cannot carry one"))?;
    let inner = arrival.inside_tunnel(target);
    arrival.spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            serve_tunnel(upgraded, inner, control).await;
        }
    });
    Ok(Response::new(Answered::empty()))
}
