//! Tunnels: WebSocket and other upgrades, which pass through, and CONNECT, whose content is served by the same pipeline.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Version, header};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use policy::bulkhead::Permit;
use policy::host::Authority;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};

use super::matching;
use crate::body::ResponseBody;
use crate::edge::{Arrival, Control, Direction, InFlight, Io, killed, serve_tunnel};
use crate::refusal::{Reason, Refusal};
use crate::table::Table;
use crate::upstream::Connection;

const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");
/// How long the two ends of a tunnel that is closed from here may take to hear of it.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// The client's side of an upgrade.
pub(super) struct Downstream {
    upgrade: OnUpgrade,
    /// The tunnel's own: the connection that it came on may carry other requests.
    control: Arc<Control>,
}

/// A WebSocket over HTTP/2 (RFC 8441) is brought into the form of HTTP/1.1 before any rule looks at it; says whether it was one.
pub(super) fn from_http2(head: &mut Parts, mut random: impl FnMut() -> u64) -> Result<bool, Box<Refusal>> {
    let Some(protocol) = head.extensions.remove::<Protocol>() else { return Ok(false) };
    if protocol.as_str() != "websocket" {
        return Err(Reason::Protocol(protocol.as_str().to_owned()).into());
    }
    let nonce = [random().to_be_bytes(), random().to_be_bytes()].concat();
    let key = HeaderValue::from_str(&STANDARD.encode(nonce)).map_err(|_| Reason::Tunnel("no key could be made"))?;
    head.method = Method::GET;
    head.version = Version::HTTP_11;
    head.headers.insert(header::CONNECTION, UPGRADE);
    head.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    head.headers.insert(header::SEC_WEBSOCKET_KEY, key);
    Ok(true)
}

/// The answer to it in the form of HTTP/2, where success is a 2xx and 101 is unknown.
pub(super) fn to_http2(mut response: Response<ResponseBody>) -> Result<Response<ResponseBody>, Box<Refusal>> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        *response.status_mut() = StatusCode::OK;
        for name in [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT] {
            response.headers_mut().remove(name);
        }
    } else if response.status().is_success() {
        return Err(Reason::Tunnel("the application answered, but did not switch protocols").into());
    }
    Ok(response)
}

/// Puts the upgrade that was taken off at the edge on again: it is re-made for the next hop (RFC 9110 §7.8).
pub(super) fn prepare(head: &mut Parts, protocol: HeaderValue, arrival: &Arrival) -> Option<Downstream> {
    let upgrade = head.extensions.remove::<OnUpgrade>()?;
    if head.version != Version::HTTP_11 {
        return None;
    }
    let control = arrival.enter()?;
    // There are no trailers to what follows.
    head.headers.remove(header::TE);
    head.headers.insert(header::CONNECTION, UPGRADE);
    head.headers.insert(header::UPGRADE, protocol);
    Some(Downstream { upgrade, control })
}

/// Lets bytes go both ways until both sides have ended (one may end first), nothing has come for too long
/// ([`crate::edge::TUNNEL_IDLE_TICKS_MAX`]), or the door is done waiting. Either end that breaks off takes the other with it. Its
/// place in the bulkhead is the tunnel's for as long as it stands.
pub(super) fn splice(
    arrival: &Arc<Arrival>,
    downstream: Downstream,
    upstream: OnUpgrade,
    connection: Connection,
    place: Option<Permit>,
) {
    let Downstream { upgrade, control } = downstream;
    let around = stands(arrival);
    let task = async move {
        // The connection's driver hands its stream over only while someone holds the connection.
        let (_connection, _around, _place) = (connection, around, place);
        let upgraded = tokio::select! {
            biased;
            upgraded = async { tokio::try_join!(upgrade, upstream) } => upgraded,
            () = killed(Some(&control)) => return,
        };
        let Ok((downstream, upstream)) = upgraded else { return };
        control.becomes_tunnel();
        let mut downstream = Io::new(TokioIo::new(downstream), control.clone());
        let mut upstream = TokioIo::new(upstream);
        tokio::select! {
            biased;
            _ = copy_bidirectional(&mut downstream, &mut upstream) => {}
            () = killed(Some(&control)) => {
                let closing = async { tokio::join!(downstream.shutdown(), upstream.shutdown()) };
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
            }
        }
    };
    arrival.spawn(task);
}

/// The connection around a tunnel is not idle while the tunnel stands.
fn stands(arrival: &Arrival) -> Option<InFlight> {
    let around = arrival.control.as_ref()?;
    around.carries_tunnel();
    Some(around.begin())
}

/// The port at which TLS is spoken.
const HTTPS: u16 = 443;

/// Opens a tunnel into this very pipeline. A host that could not be reached through it is refused at once, and so is the port of
/// TLS: inside of it nothing could be read, and so no rule asked. (On another port TLS gets an alert: `edge/first_bytes`.)
pub(super) fn connect(
    arrival: &Arc<Arrival>,
    table: &Table,
    head: &mut Parts,
) -> Result<Response<ResponseBody>, Box<Refusal>> {
    if arrival.direction != Direction::Outbound {
        return Err(Reason::Connect.into());
    }
    let target = head.uri.authority().ok_or(Reason::NoHost)?.to_string();
    let authority = Authority::parse(&target).map_err(Reason::Host)?;
    if authority.host != model::config::SIDECAR {
        matching::service(table, &authority.host)?;
    }
    if authority.port == Some(HTTPS) {
        return Err(Reason::TlsInside(authority.host.into_owned()).into());
    }
    let upgrade = head.extensions.remove::<OnUpgrade>().ok_or(Reason::Tunnel("the connection cannot carry one"))?;
    let control = arrival.enter().ok_or(Reason::Tunnel("this door holds as many connections as it may"))?;
    let inner = arrival.inside_tunnel(target, control.clone());
    let around = stands(arrival);
    arrival.spawn(async move {
        let _around = around;
        if let Ok(upgraded) = upgrade.await {
            serve_tunnel(upgraded, inner, control).await;
        }
    });
    Ok(Response::new(ResponseBody::empty()))
}
