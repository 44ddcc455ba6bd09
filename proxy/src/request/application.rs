//! A handler of this process in an application's place: the broker's API behind its own inbound pipeline.

use http::Response;
use http::request::Parts;
use http_body::Body as _;
use runtime::http::{Peer, SharedHandler};

use super::outgoing;
use crate::body::{ResponseBody, Source};
use crate::progress::Side;
use crate::record::Record;
use crate::refusal::{Reason, Refusal};

pub(super) async fn call(
    handler: &SharedHandler,
    record: &Record,
    head: &mut Parts,
    mut body: Option<Source>,
) -> Result<Response<ResponseBody>, Box<Refusal>> {
    let (arrival, progress) = (&record.arrival, &record.progress);
    if let Some(body) = body.as_mut().filter(|body| !body.is_end_stream()) {
        body.report_to(progress.clone());
    }
    let mut request = outgoing::taken(head, body.map_or_else(runtime::http::empty, runtime::http::boxed));
    if let Some(peer) = &arrival.peer {
        request.extensions_mut().insert(Peer(peer.clone()));
    }
    tokio::select! {
        biased;
        answer = handler.call(request) => Ok(answer.map(ResponseBody::boxed)),
        side = progress.becomes_idle() => Err(match side {
            Side::Client => Reason::BodyLate(progress.idle_max()),
            Side::Endpoint => Reason::Unread(progress.idle_max()),
        }.into()),
    }
}
