//! What the control plane serves: gRPC to roles over the mesh's own TLS, plain HTTP to an operator on loopback.

pub(crate) mod admin;
pub(crate) mod counters;
pub(crate) mod discovery;
pub(crate) mod enrolment;
pub(crate) mod listener;
mod publish;

use model::identity::SpiffeId;
use tonic::Status;

/// Who sends a request, by its certificate; nothing in a message can say otherwise.
fn peer<T>(request: &tonic::Request<T>) -> Result<SpiffeId, Status> {
    let peer = request.extensions().get::<Option<SpiffeId>>().cloned().flatten();
    peer.ok_or_else(|| Status::unauthenticated("this needs a certificate of the mesh; enrol first"))
}
