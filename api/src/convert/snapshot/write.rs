//! From the nouns to the wire.

use std::time::Duration;

use model::config::{
    Backend, Breaker, Consumption, Delivery, Durability, External, ExternalTls, GatewayBackend, Match, PathMatch,
    Protocol, Queue, Retry, RetryOn, Route, Source, Topic,
};
use model::name::Name;
use model::snapshot::{BrokerPart, Endpoint, GatewayPart, InboundPart, ServicePart, Snapshot};

use crate::control as wire;

impl From<Snapshot> for wire::Snapshot {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            revision: snapshot.revision,
            version: snapshot.version,
            mesh: snapshot.mesh.into(),
            subject: snapshot.subject.to_string(),
            services: snapshot.services.into_iter().map(|(name, part)| (name.into(), part.into())).collect(),
            declared: snapshot.declared.into_iter().map(String::from).collect(),
            inbound: snapshot.inbound.map(Into::into),
            gateway: snapshot.gateway.map(Into::into),
            broker: snapshot.broker.map(Into::into),
        }
    }
}

impl From<ServicePart> for wire::ServicePart {
    fn from(part: ServicePart) -> Self {
        Self {
            protocol: protocol(part.protocol),
            callable: part.callable,
            subject: part.subject.map(|subject| subject.to_string()).unwrap_or_default(),
            external: part.external.map(Into::into),
            routes: part.routes.into_iter().map(Into::into).collect(),
            breaker: Some(part.breaker.into()),
            endpoints: part.endpoints.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<External> for wire::External {
    fn from(external: External) -> Self {
        let tls = external.tls.map(|ExternalTls { name, roots }| wire::ExternalTls { name, roots });
        Self { addresses: external.addresses, tls }
    }
}

impl From<Endpoint> for wire::Endpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            instance: endpoint.instance.into(),
            address: endpoint.address.to_string(),
            subset: optional_name(endpoint.subset),
        }
    }
}

impl From<Route> for wire::Route {
    fn from(route: Route) -> Self {
        Self {
            name: route.name,
            matches: route.matches.into_iter().map(Into::into).collect(),
            backends: route.backends.into_iter().map(Into::into).collect(),
            request_timeout_ms: route.timeouts.request.map(millis),
            attempt_timeout_ms: route.timeouts.attempt.map(millis),
            retry: Some(route.retry.into()),
        }
    }
}

impl From<Match> for wire::Match {
    fn from(part: Match) -> Self {
        let path = part.path.map(|path| match path {
            PathMatch::Exact(path) => wire::r#match::Path::Exact(path),
            PathMatch::Prefix(path) => wire::r#match::Path::Prefix(path),
        });
        Self { path, method: part.method, headers: part.headers }
    }
}

impl From<Backend> for wire::Backend {
    fn from(backend: Backend) -> Self {
        Self { service: backend.service.into(), subset: optional_name(backend.subset), weight: backend.weight }
    }
}

impl From<Retry> for wire::Retry {
    fn from(retry: Retry) -> Self {
        Self {
            attempts: retry.attempts,
            on: retry.on.into_iter().map(Into::into).collect(),
            budget: retry.budget,
            backoff_ms: millis(retry.backoff),
            non_idempotent: retry.non_idempotent,
        }
    }
}

impl From<RetryOn> for wire::RetryOn {
    fn from(on: RetryOn) -> Self {
        use wire::retry_on::On;
        let on = match on {
            RetryOn::ConnectFailure => On::ConnectFailure(true),
            RetryOn::ResetBeforeProcessing => On::ResetBeforeProcessing(true),
            RetryOn::Reset => On::Reset(true),
            RetryOn::Status(status) => On::Status(status.into()),
            RetryOn::Grpc(code) => On::Grpc(code.into()),
        };
        Self { on: Some(on) }
    }
}

impl From<Breaker> for wire::Breaker {
    fn from(breaker: Breaker) -> Self {
        Self {
            consecutive_failures: breaker.consecutive_failures,
            open_ms: millis(breaker.open),
            open_ms_max: millis(breaker.open_max),
            max_ejected: Some(breaker.max_ejected),
        }
    }
}

impl From<InboundPart> for wire::InboundPart {
    fn from(part: InboundPart) -> Self {
        Self {
            protocol: protocol(part.protocol),
            callers: part.callers.iter().map(ToString::to_string).collect(),
            body_bytes_max: part.limits.body_bytes_max,
            concurrent_max: part.limits.concurrent_max,
        }
    }
}

impl From<GatewayPart> for wire::GatewayPart {
    fn from(part: GatewayPart) -> Self {
        Self {
            listen: part.listen.to_string(),
            backends: part.backends.into_iter().map(Into::into).collect(),
            body_bytes_max: part.body_bytes_max,
        }
    }
}

impl From<GatewayBackend> for wire::GatewayBackend {
    fn from(backend: GatewayBackend) -> Self {
        Self {
            service: backend.service.into(),
            matches: backend.matches.into_iter().map(Into::into).collect(),
            hosts: backend.hosts,
        }
    }
}

impl From<BrokerPart> for wire::BrokerPart {
    fn from(part: BrokerPart) -> Self {
        let subjects = |set: std::collections::BTreeSet<model::identity::Subject>| wire::Subjects {
            subjects: set.iter().map(ToString::to_string).collect(),
        };
        let consumptions =
            |list: Vec<Consumption>| wire::Consumptions { consumptions: list.into_iter().map(Into::into).collect() };
        Self {
            queues: part.queues.into_iter().map(|(name, queue)| (name.into(), queue.into())).collect(),
            topics: part.topics.into_iter().map(|(name, topic)| (name.into(), topic.into())).collect(),
            publishers: part.publishers.into_iter().map(|(name, set)| (name.into(), subjects(set))).collect(),
            consumers: part.consumers.into_iter().map(|(name, list)| (name.into(), consumptions(list))).collect(),
            message_bytes_max: part.message_bytes_max,
        }
    }
}

impl From<Consumption> for wire::Consumption {
    fn from(consumption: Consumption) -> Self {
        let source = match consumption.source {
            Source::Queue(name) => wire::consumption::Source::Queue(name.into()),
            Source::Topic(name) => wire::consumption::Source::Topic(name.into()),
        };
        Self { source: Some(source), path: consumption.path, concurrency: consumption.concurrency.into() }
    }
}

impl From<Delivery> for wire::Delivery {
    fn from(delivery: Delivery) -> Self {
        Self {
            attempts: delivery.attempts,
            backoff_initial_ms: millis(delivery.backoff_initial),
            backoff_ms_max: millis(delivery.backoff_max),
            ack_timeout_ms: millis(delivery.ack_timeout),
        }
    }
}

impl From<Queue> for wire::Queue {
    fn from(queue: Queue) -> Self {
        Self {
            delivery: Some(queue.delivery.into()),
            dead_letter_keep_ms: millis(queue.dead_letter_keep),
            messages_max: queue.messages_max,
            durability: durability(queue.durability),
        }
    }
}

impl From<Topic> for wire::Topic {
    fn from(topic: Topic) -> Self {
        Self {
            key: topic.key,
            keep_ms: millis(topic.keep),
            delivery: Some(topic.delivery.into()),
            durability: durability(topic.durability),
        }
    }
}

fn protocol(protocol: Protocol) -> i32 {
    let wire = match protocol {
        Protocol::Http => wire::Protocol::Http,
        Protocol::Grpc => wire::Protocol::Grpc,
    };
    wire.into()
}

fn durability(durability: Durability) -> i32 {
    let wire = match durability {
        Durability::Sync => wire::Durability::Sync,
        Durability::Os => wire::Durability::Os,
    };
    wire.into()
}

fn optional_name(name: Option<Name>) -> String {
    name.map(String::from).unwrap_or_default()
}

fn millis(duration: Duration) -> u64 {
    // The mesh file counts in milliseconds and no setting reaches 584 million years.
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
