//! What the control plane serves: gRPC to roles over the mesh's own TLS, plain HTTP to an operator on loopback.

pub(crate) mod admin;
pub(crate) mod counters;
pub(crate) mod discovery;
pub(crate) mod enrolment;
pub(crate) mod listener;
mod publish;

use std::net::SocketAddr;
use std::time::Duration;

use model::identity::SpiffeId;
use model::name::Name;
use model::unit::write_duration;
use runtime::clock;
use runtime::tls::{Caller, Peer};
use tonic::Status;

/// Who sends a request, by its certificate; nothing in a message can say otherwise.
struct Member {
    id: SpiffeId,
    instance: Name,
    /// Where its connection comes from.
    from: SocketAddr,
}

/// Who sends a request. A connection outlives the certificate that it was begun with; what is asked on it does not.
fn member<T>(request: &tonic::Request<T>) -> Result<Member, Status> {
    member_within(request, Duration::ZERO)
}

/// The same, with a certificate that ended no longer than `grace` ago.
fn member_within<T>(request: &tonic::Request<T>, grace: Duration) -> Result<Member, Status> {
    let caller = request.extensions().get::<Caller>();
    let Some(Caller { peer: Some(peer), from }) = caller else {
        return Err(Status::unauthenticated("this needs a certificate of the mesh; enrol first"));
    };
    let Peer { id, instance, .. } = peer.clone();
    let ended = Duration::from_secs(peer.ended_for_s(clock::wall_s()));
    if ended > grace {
        return Err(Status::unauthenticated(format!("the certificate of {id} ended {} ago", write_duration(ended))));
    }
    let unnamed = || Status::unauthenticated("the certificate names no instance; enrol again");
    Ok(Member { id, instance: instance.ok_or_else(unnamed)?, from: *from })
}
