//! Sending through the broker, which is a service like any other: a CloudEvent posted to a queue or topic.

use serde::Deserialize;

use crate::event::Outgoing;
use crate::mesh::Mesh;
use crate::problem::{self, Problem};
use crate::trace::Trace;

/// Where an event is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To one consumer.
    Queue(&'static str),
    /// To every subscription.
    Topic(&'static str),
}

/// The broker's word that it has the event, as safe as the destination asks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Receipt {
    /// Where it stands.
    pub position: u64,
    /// It had the event already.
    #[serde(default)]
    pub duplicate: bool,
}

/// Sends one event. Sending it again is harmless: the broker knows it by its source and id.
///
/// # Errors
/// 503: the broker cannot be reached, or did not take it.
pub async fn send(mesh: &Mesh, to: Destination, event: Outgoing, trace: &Trace) -> problem::Result<Receipt> {
    let uri = match to {
        Destination::Queue(queue) => format!("http://broker/v1/queues/{queue}/messages"),
        Destination::Topic(topic) => format!("http://broker/v1/topics/{topic}/messages"),
    };
    let request = event.into_request(&uri, trace).map_err(|error| Problem::malformed(error.to_string()))?;
    mesh.call(request, trace).await?.json("broker")
}
