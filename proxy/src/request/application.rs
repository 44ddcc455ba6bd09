//! A handler of this process in an application's place: the broker's API behind its own inbound pipeline.

use http::Response;
use http::request::Parts;
use runtime::http::{Peer, SharedHandler};

use super::outgoing;
use crate::body::{Answered, Source};
use crate::edge::Arrival;

pub(super) async fn call(
    handler: &SharedHandler,
    arrival: &Arrival,
    head: &mut Parts,
    body: Option<Source>,
) -> Response<Answered> {
    let mut request = outgoing::taken(head, body.map_or_else(runtime::http::empty, runtime::http::boxed));
    if let Some(peer) = &arrival.peer {
        request.extensions_mut().insert(Peer(peer.clone()));
    }
    handler.call(request).await.map(Answered::boxed)
}
