//! The one shape in which roles hand HTTP to each other inside of a process: a request with a boxed body in, a response out.
//!
//! The broker serves its API behind the data plane's inbound pipeline, and pushes deliveries through the outbound one;
//! the planes never see each other, so both meet here. Sockets and HTTP versions stay the data plane's.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use model::identity::SpiffeId;

/// An error of a body or of a call, of any kind.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body of any kind.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A future of any kind.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Answers requests. A handler never fails: what goes wrong is a response.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. The caller's identity, when it has proven one, is the extension [`Peer`].
    fn call(&self, request: http::Request<Body>) -> BoxFuture<http::Response<Body>>;

    /// Why it cannot do its work any more, for whoever asks after its health; `None` while it can.
    fn failure(&self) -> Option<String> {
        None
    }
}

/// A handler that is shared.
pub type SharedHandler = Arc<dyn Handler>;

/// A request's extension: who the caller has proven to be in its TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer(pub SpiffeId);

/// An empty body.
#[must_use]
pub fn empty() -> Body {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body of these bytes.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Boxes a body.
pub fn boxed<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}
