//! A handler of this process in an application's place: the broker's API behind its own inbound pipeline.

use http::request::Parts;
use http::{Request, Response};
use runtime::http::{Peer, SharedHandler};

use crate::body::{Answered, Source};
use crate::edge::Arrival;

pub(super) async fn call(handler: &SharedHandler, arrival: &Arrival, head: Parts, body: Source) -> Response<Answered> {
    let mut request = Request::from_parts(head, runtime::http::boxed(body));
    if let Some(peer) = &arrival.peer {
        request.extensions_mut().insert(Peer(peer.clone()));
    }
    handler.call(request).await.map(Answered::boxed)
}
