//! Kinds of addresses: where a gateway listens, where a service outside of the mesh is, which hosts a gateway serves.

use std::net::SocketAddr;

use schemars::{Schema, json_schema};

use super::text::bounded;
use super::{Kind, Written};
use crate::config::finding::{Mistake, code};

/// An address to listen on: `127.0.0.1:8080`, `[::1]:8080`; port 0 takes any free one.
#[derive(Debug)]
pub struct Listen;

impl Kind for Listen {
    type Value = SocketAddr;

    fn expected() -> String {
        "an IP address and a port, such as 127.0.0.1:8080".to_owned()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^.+:[0-9]+$"})
    }

    fn read(written: &Written) -> Result<SocketAddr, Mistake> {
        let text = bounded(written.as_any()?)?;
        text.parse().map_err(|_| {
            let mistake = Mistake::new(code::MALFORMED, format!("{text:?} is not an address to listen on"));
            mistake.nearest(nearest_listen(text))
        })
    }
}

/// `8080`, `:8080`, `localhost:8080` → `127.0.0.1:8080`; `*:8080` → `0.0.0.0:8080`.
fn nearest_listen(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port: u16 = port.parse().ok()?;
    match host {
        "" | "localhost" => Some(format!("127.0.0.1:{port}")),
        "*" => Some(format!("0.0.0.0:{port}")),
        _ => None,
    }
}

/// `host:port`.
#[derive(Debug)]
pub struct Address;

impl Kind for Address {
    type Value = String;

    fn expected() -> String {
        "a host and a port, such as tax.example.com:443".to_owned()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[^/\\s]+:[0-9]+$"})
    }

    fn read(written: &Written) -> Result<String, Mistake> {
        let text = bounded(written.as_any()?)?;
        let mistake = |message: String| Mistake::new(code::MALFORMED, message);
        if let Some((scheme, rest)) = text.split_once("://") {
            let rest = rest.trim_end_matches('/');
            let port = if scheme == "https" { ":443" } else { ":80" };
            let nearest = if Self::is_host_and_port(rest) { rest.to_owned() } else { format!("{rest}{port}") };
            let nearest = Self::is_host_and_port(&nearest).then_some(nearest);
            return Err(mistake(format!("{text:?} is a URL; an address has no scheme and no path")).nearest(nearest));
        }
        if !Self::is_host_and_port(text) {
            return Err(mistake(format!("{text:?} is not a host and a port")));
        }
        Ok(text.to_owned())
    }
}

impl Address {
    fn is_host_and_port(text: &str) -> bool {
        if text.parse::<SocketAddr>().is_ok_and(|address| address.port() > 0) {
            return true;
        }
        let Some((host, port)) = text.rsplit_once(':') else { return false };
        is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0)
    }
}

/// A host name without a port.
#[derive(Debug)]
pub struct Host;

impl Kind for Host {
    type Value = String;

    fn expected() -> String {
        "a host name without a port, such as shop.example.com".to_owned()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[^:/\\s]+$"})
    }

    fn read(written: &Written) -> Result<String, Mistake> {
        let text = bounded(written.as_text()?)?;
        let is_address = text.parse::<std::net::IpAddr>().is_ok();
        if is_address || is_host(text) {
            return Ok(text.to_ascii_lowercase());
        }
        let bare = text.rsplit_once(':').map(|(host, _)| host).filter(|host| is_host(host));
        Err(Mistake::new(code::MALFORMED, format!("{text:?} is not a host name")).nearest(bare))
    }
}

/// Labels with dots between them (RFC 1123 §2.1); underscores are seen in practice.
fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    text.len() <= 253 && text.trim_end_matches('.').split('.').all(is_label)
}
