//! The broker's API: the same over HTTP and over gRPC, behind one handler. Who calls has been proven by the data plane in front.

mod grpc;
mod http;
mod problem;

use std::convert::Infallible;
use std::sync::Arc;

use ::http::{HeaderValue, Request, Response, header};
use model::identity::Subject;
use runtime::http::{Body, BoxFuture, Handler, Peer, SharedHandler, boxed};
use tower::ServiceExt as _;

use crate::core::Core;
use crate::refusal::Refusal;

/// Answers both kinds of requests.
struct Api {
    core: Arc<Core>,
    http: axum::Router,
    grpc: tonic::service::Routes,
}

/// The broker's API.
#[must_use]
pub fn handler(core: Arc<Core>) -> SharedHandler {
    Arc::new(Api { http: http::router(core.clone()), grpc: grpc::routes(core.clone()), core })
}

impl Handler for Api {
    fn call(&self, request: Request<Body>) -> BoxFuture<Response<Body>> {
        let media_type = request.headers().get(header::CONTENT_TYPE);
        let is_grpc = media_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if is_grpc {
            let answer = self.grpc.clone().oneshot(request.map(tonic::body::Body::new));
            Box::pin(async move {
                let mut response = answered(answer.await);
                problem::sign(response.headers_mut());
                response
            })
        } else {
            let request_id = request.headers().get("x-request-id").cloned();
            let answer = self.http.clone().oneshot(request.map(axum::body::Body::new));
            Box::pin(async move { told(answered(answer.await), request_id.as_ref()) })
        }
    }

    fn failure(&self) -> Option<String> {
        self.core.ledger.failure().map(|why| format!("the engine has failed: {why}"))
    }
}

fn answered<B>(answer: Result<Response<B>, Infallible>) -> Response<Body>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<runtime::http::BoxError>,
{
    match answer {
        Ok(response) => response.map(boxed),
        Err(never) => match never {},
    }
}

/// Writes the refusal, where the answer is one.
fn told(mut response: Response<Body>, request_id: Option<&HeaderValue>) -> Response<Body> {
    match response.extensions_mut().remove::<Refusal>() {
        None => response,
        Some(refusal) => problem::http(&refusal, request_id),
    }
}

/// Who calls.
fn caller(extensions: &::http::Extensions) -> Result<&Subject, Refusal> {
    extensions.get::<Peer>().map(|peer| &peer.0.subject).ok_or(Refusal::Anonymous)
}
