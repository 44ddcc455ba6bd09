//! Match: from a request's host and path to a service and one of its routes, in normal form.

use std::sync::Arc;

use http::header::HOST;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Uri, Version};
use model::config::SIDECAR;
use policy::host::Authority;
use policy::{authorize, path, route};

use crate::edge::{Arrival, Direction};
use crate::refusal::{Reason, Refusal};
use crate::status;
use crate::table::{Service, Table};

/// What a request is for.
pub(super) enum Matched {
    /// This sidecar itself.
    Sidecar,
    /// A service, and the index of its route.
    Service(Arc<Service>, usize),
}

/// Finds out, and brings the path into its normal form.
pub(super) fn of(arrival: &Arrival, table: &Table, head: &mut Parts) -> Result<Matched, Box<Refusal>> {
    normalise_path(head)?;
    let service = match arrival.direction {
        Direction::Inbound => table.application.clone().ok_or(Reason::NotReady)?,
        Direction::Gateway => let_through(table, head)?,
        // Nobody who was led here by a name of another machine, as a web page may be, is answered.
        Direction::Status => {
            let authority = match authority(arrival, head) {
                // Here there is no other answerer, whatever the host would be.
                None if head.version == Version::HTTP_10 => return Ok(Matched::Sidecar),
                None => return Err(Reason::NoHost.into()),
                Some(authority) => authority?,
            };
            let own = authority.host == SIDECAR || authority.is_loopback();
            return if own { Ok(Matched::Sidecar) } else { Err(Reason::OwnHost.into()) };
        }
        Direction::Outbound => {
            let authority = match authority(arrival, head) {
                // A host is only needed where there are several answerers: here it is the one that has these paths.
                None if head.version == Version::HTTP_10 && status::has(head.uri.path()) => {
                    return Ok(Matched::Sidecar);
                }
                None => return Err(Reason::NoHost.into()),
                Some(authority) => authority?,
            };
            match table.services.get(&*authority.host) {
                Some(service) => service.clone(),
                None if authority.host == SIDECAR || arrival.plane.is_own(&authority) => return Ok(Matched::Sidecar),
                None => return Err(may_not_call(table, &authority.host)),
            }
        }
    };
    let index = match &service.rules[..] {
        // Most services have one route that takes everything.
        [only] if only.matches.is_empty() => 0,
        rules => {
            let (method, path, headers) = (head.method.as_str(), head.uri.path(), &head.headers);
            let request = route::Request { method, path, headers: |name: &str| values(headers, name) };
            let index = route::choose(rules, &request);
            index.ok_or_else(|| not_let_through(service.name.as_str(), head))?
        }
    };
    Ok(Matched::Service(service, index))
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes)
}

/// The service that the host names, if this subject may name it.
pub(super) fn service(table: &Table, host: &str) -> Result<Arc<Service>, Box<Refusal>> {
    if let Some(service) = table.services.get(host) {
        return Ok(service.clone());
    }
    Err(may_not_call(table, host))
}

/// Why this subject may not name a service: there is none of that name, or the declared graph has no edge to it.
pub(super) fn may_not_call(table: &Table, name: &str) -> Box<Refusal> {
    let Err(refusal) = authorize::call(&table.snapshot, name) else { return Reason::NotReady.into() };
    let near = match &refusal {
        authorize::Refusal::NoSuchService { near, .. } => near.clone(),
        _ => Vec::new(),
    };
    Box::new(Refusal { service: Some(name.to_owned()), near, ..*Refusal::new(Reason::MayNotCall(refusal)) })
}

fn let_through(table: &Table, head: &Parts) -> Result<Arc<Service>, Box<Refusal>> {
    let gateway = table.snapshot.gateway.as_ref().ok_or(Reason::NotReady)?;
    let authority = match authority_text(head) {
        Some(text) => Some(Authority::parse(text).map_err(Reason::Host)?),
        // Some backends are for every host, and so for none.
        None if head.version == Version::HTTP_10 => None,
        None => return Err(Reason::NoHost.into()),
    };
    let host = authority.as_ref().map_or("", |authority| &authority.host);
    let (method, path, headers) = (head.method.as_str(), head.uri.path(), &head.headers);
    let request = route::Request { method, path, headers: |name: &str| values(headers, name) };
    let index = route::choose_backend(&gateway.backends, host, &request);
    let backend = index.map(|index| &gateway.backends[index]);
    let service = backend.and_then(|backend| table.services.get(&backend.service));
    service.cloned().ok_or_else(|| if host.is_empty() { Reason::NoHost.into() } else { not_let_through(host, head) })
}

fn not_let_through(host: &str, head: &Parts) -> Box<Refusal> {
    Reason::NotLetThrough { host: host.to_owned(), path: head.uri.path().to_owned() }.into()
}

/// Where the application wants to go: the request's own authority, or the tunnel's that it came through.
fn authority<'a>(arrival: &'a Arrival, head: &'a Parts) -> Option<Result<Authority<'a>, Box<Refusal>>> {
    let text = authority_text(head).or(arrival.tunnel.as_deref())?;
    Some(Authority::parse(text).map_err(|error| Reason::Host(error).into()))
}

/// In absolute form and in HTTP/2 the target carries it (RFC 9112 §3.2.2: `Host` is then ignored).
fn authority_text(head: &Parts) -> Option<&str> {
    match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => head.headers.get(HOST)?.to_str().ok(),
    }
}

fn normalise_path(head: &mut Parts) -> Result<(), Box<Refusal>> {
    let normal = match path::normalise(head.uri.path()).map_err(Reason::Path)? {
        std::borrow::Cow::Borrowed(same) if same.len() == head.uri.path().len() => return Ok(()),
        normal => normal.into_owned(),
    };
    let target = match head.uri.query() {
        Some(query) => format!("{normal}?{query}"),
        None => normal,
    };
    let target = PathAndQuery::try_from(target).map_err(|_| Reason::Path(path::Error::Relative))?;
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.path_and_query = Some(target);
    head.uri = Uri::from_parts(parts).map_err(|_| Reason::Path(path::Error::Relative))?;
    Ok(())
}
