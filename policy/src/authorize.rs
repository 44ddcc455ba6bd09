//! Who may call, publish and consume: the edges of the declared graph, and nothing else (the default is to deny).
//!
//! Asked on both sides: by the caller's sidecar of its snapshot, by the called one of its own, and by the broker. A refusal
//! names the missing edge and where to add it, in the words that the client reads: the edges have none of their own. Who the subject
//! is, was proven by its certificate before; turning a refusal into 403, 404 or a gRPC status is left to the edge.

use model::config::{BROKER, Consumption, Queue, SIDECAR, Source, Topic};
use model::identity::Subject;
use model::name::{Name, nearest};
use model::snapshot::{BrokerPart, InboundPart, ServicePart, Snapshot};

/// Why somebody may not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No service has that name (404).
    #[error("no service is named {name:?}{}", did_you_mean(near))]
    NoSuchService {
        /// What was asked for.
        name: String,
        /// The declared names nearest to it.
        near: Vec<String>,
    },
    /// The declared graph has no edge from the caller to the service (403).
    #[error("{from} has no edge to {to}: {}", call_edge(from, to))]
    NoEdge {
        /// Who calls.
        from: Subject,
        /// Whom.
        to: String,
    },
    /// No queue and no topic has that name (404).
    #[error("no queue or topic is named {name:?}{}", did_you_mean(near))]
    NoSuchDestination {
        /// What was asked for.
        name: String,
        /// The declared names nearest to it.
        near: Vec<String>,
    },
    /// The declared graph does not let the subject publish there (403).
    #[error("{from} has no edge to publish to {to}: {}", publish_edge(from, to))]
    NoPublishEdge {
        /// Who publishes.
        from: Subject,
        /// The queue or topic.
        to: Name,
    },
    /// The declared graph does not let the subject consume from there (403).
    #[error("{by} has no edge to consume from {from}: {}", consume_edge(by, from, kind))]
    NoConsumeEdge {
        /// Who consumes.
        by: Subject,
        /// The queue or topic.
        from: Name,
        /// `queue` or `topic`, as the mesh file says it.
        kind: &'static str,
    },
}

impl Refusal {
    /// Whether the name is unknown (404), in contrast to a missing edge (403).
    #[must_use]
    pub const fn is_unknown_name(&self) -> bool {
        matches!(self, Self::NoSuchService { .. } | Self::NoSuchDestination { .. })
    }
}

/// A queue or a topic of the broker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Destination<'a> {
    /// A queue.
    Queue(&'a Queue),
    /// A topic.
    Topic(&'a Topic),
}

/// Whether the snapshot's subject may call the service of that name.
///
/// # Errors
/// When no such service is declared, or the graph has no edge to it.
pub fn call<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a ServicePart, Refusal> {
    if let Some(service) = snapshot.services.get(name).filter(|service| service.callable) {
        return Ok(service);
    }
    if name == BROKER || snapshot.services.contains_key(name) || snapshot.declared.contains(name) {
        return Err(Refusal::NoEdge { from: snapshot.subject.clone(), to: name.to_owned() });
    }
    let known = snapshot.declared.iter().map(Name::as_str).chain([BROKER, SIDECAR]);
    let near = owned(nearest(name, known));
    Err(Refusal::NoSuchService { name: name.to_owned(), near })
}

/// Whether a caller may call the one whose inbound part this is.
///
/// # Errors
/// When the graph has no edge from the caller to it.
pub fn be_called(inbound: &InboundPart, own: &Subject, caller: &Subject) -> Result<(), Refusal> {
    if inbound.callers.contains(caller) {
        return Ok(());
    }
    let to = match own {
        Subject::Service(name) | Subject::Gateway(name) => name.as_str().to_owned(),
        Subject::Broker | Subject::ControlPlane => own.to_string(),
    };
    Err(Refusal::NoEdge { from: caller.clone(), to })
}

/// Whether a subject may publish to the queue or topic of that name.
///
/// # Errors
/// When there is none, or the graph has no edge to it.
pub fn publish<'a>(broker: &'a BrokerPart, who: &Subject, name: &str) -> Result<Destination<'a>, Refusal> {
    let (to, destination) = destination(broker, name)?;
    if broker.publishers.get(to).is_some_and(|publishers| publishers.contains(who)) {
        return Ok(destination);
    }
    Err(Refusal::NoPublishEdge { from: who.clone(), to: to.clone() })
}

/// Whether a subject may consume from the queue or topic of that name: lease, acknowledge, seek.
///
/// # Errors
/// When there is none, or the graph has no edge from it.
pub fn consume<'a>(broker: &'a BrokerPart, who: &Subject, name: &str) -> Result<&'a Consumption, Refusal> {
    let (from, destination) = destination(broker, name)?;
    let declared = match who {
        Subject::Service(service) => broker.consumers.get(service).map_or(&[][..], Vec::as_slice),
        _ => &[],
    };
    let edge = declared.iter().find(|consumption| match (&consumption.source, destination) {
        (Source::Queue(source), Destination::Queue(_)) | (Source::Topic(source), Destination::Topic(_)) => {
            source == from
        }
        _ => false,
    });
    edge.ok_or_else(|| Refusal::NoConsumeEdge { by: who.clone(), from: from.clone(), kind: destination.kind() })
}

/// The queue or topic of that name; a name is either a queue's or a topic's.
///
/// # Errors
/// When there is none.
pub fn destination<'a>(broker: &'a BrokerPart, name: &str) -> Result<(&'a Name, Destination<'a>), Refusal> {
    let queue = broker.queues.get_key_value(name).map(|(name, queue)| (name, Destination::Queue(queue)));
    let topic = || broker.topics.get_key_value(name).map(|(name, topic)| (name, Destination::Topic(topic)));
    queue.or_else(topic).ok_or_else(|| {
        let known = broker.queues.keys().chain(broker.topics.keys()).map(Name::as_str);
        Refusal::NoSuchDestination { name: name.to_owned(), near: owned(nearest(name, known)) }
    })
}

impl Destination<'_> {
    /// `queue` or `topic`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Queue(_) => "queue",
            Self::Topic(_) => "topic",
        }
    }
}

fn owned(names: Vec<&str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}

fn did_you_mean(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) }
}

/// What to write into the mesh file so that the call is allowed.
fn call_edge(from: &Subject, to: &str) -> String {
    match from {
        Subject::Service(name) if to == BROKER => {
            format!("declare what it sends or receives in services.{name}.publishes or services.{name}.consumes")
        }
        Subject::Service(name) if to == name.as_str() => {
            "a service does not call itself through the mesh; it reaches its own port on loopback".to_owned()
        }
        Subject::Service(name) => format!("add {to:?} to services.{name}.calls"),
        Subject::Gateway(_) if to == BROKER => {
            "a gateway has no way to the broker; clients from outside call a service, and that publishes".to_owned()
        }
        Subject::Gateway(name) => format!("add {{service: {to}}} to gateways.{name}.backends"),
        Subject::Broker => format!("give services.{to}.consumes an entry with a path"),
        Subject::ControlPlane => "the control plane calls no service".to_owned(),
    }
}

fn publish_edge(from: &Subject, to: &Name) -> String {
    match from {
        Subject::Service(name) => format!("add \"{to}\" to services.{name}.publishes"),
        _ => "only a service publishes".to_owned(),
    }
}

fn consume_edge(by: &Subject, from: &Name, kind: &str) -> String {
    match by {
        // Events are pushed; only a queue's messages can be leased.
        Subject::Service(name) if kind == "topic" => {
            format!("add {{topic: {from}, path: /…}} to services.{name}.consumes")
        }
        Subject::Service(name) => format!("add {{{kind}: {from}}} to services.{name}.consumes"),
        _ => "only a service consumes".to_owned(),
    }
}

#[cfg(test)]
mod tests;
