//! The gRPC API: the same resources. The two streams are the fast way in.

mod queues;
mod stream;
mod topics;

use std::sync::Arc;

use api::broker::queues_server::QueuesServer;
use api::broker::topics_server::TopicsServer;
use model::config;
use model::identity::Subject;
use tonic::service::Routes;
use tonic::{Request, Status};

use super::problem::status;
use crate::core::Core;
use crate::refusal::Refusal;
use crate::verdict::Receipt;

/// Largest request; what a message may be is decided when its destination is known.
const REQUEST_BYTES_MAX: usize = crate::engine::embedded::RECORD_BYTES_MAX;

/// All services.
pub fn routes(core: Arc<Core>) -> Routes {
    let queues = QueuesServer::new(queues::Queues(core.clone())).max_decoding_message_size(REQUEST_BYTES_MAX);
    let topics = TopicsServer::new(topics::Topics(core)).max_decoding_message_size(REQUEST_BYTES_MAX);
    Routes::new(queues).add_service(topics).prepare()
}

fn caller<T>(request: &Request<T>) -> Result<Subject, Status> {
    let peer = request.extensions().get::<runtime::http::Peer>();
    peer.map(|peer| peer.0.subject.clone()).ok_or_else(|| status(&Refusal::Anonymous))
}

fn missing_event() -> Refusal {
    Refusal::Invalid("the request has no event".to_owned())
}

fn receipt(receipt: Receipt) -> api::broker::Receipt {
    let durability = match receipt.durability {
        config::Durability::Sync => api::broker::Durability::Sync,
        config::Durability::Os => api::broker::Durability::Os,
    };
    api::broker::Receipt { position: receipt.position.0, durability: durability.into(), duplicate: receipt.duplicate }
}
