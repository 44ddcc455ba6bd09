//! From the wire to the nouns: each part proves its names, addresses and enumerations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use model::config::{
    Backend, Breaker, Consumption, Delivery, Durability, External, ExternalTls, GatewayBackend, Inbound, Match,
    PathMatch, Protocol, Queue, Retry, RetryOn, Route, Source, Timeouts, Topic,
};
use model::identity::Subject;
use model::name::Name;
use model::snapshot::{BrokerPart, Endpoint, GatewayPart, InboundPart, ServicePart, Snapshot};

use super::{Error, Within as _};
use crate::control as wire;

impl TryFrom<wire::Snapshot> for Snapshot {
    type Error = Error;
    fn try_from(snapshot: wire::Snapshot) -> Result<Self, Error> {
        Ok(Self {
            revision: snapshot.revision,
            version: snapshot.version,
            mesh: parse("mesh", &snapshot.mesh)?,
            subject: parse("subject", &snapshot.subject)?,
            services: by_name("services", snapshot.services, service_part)?,
            declared: set("declared", &snapshot.declared)?,
            inbound: snapshot.inbound.map(inbound_part).transpose().within("inbound")?,
            gateway: snapshot.gateway.map(gateway_part).transpose().within("gateway")?,
            broker: snapshot.broker.map(broker_part).transpose().within("broker")?,
        })
    }
}

fn service_part(part: wire::ServicePart) -> Result<ServicePart, Error> {
    Ok(ServicePart {
        protocol: protocol(part.protocol)?,
        callable: part.callable,
        subject: optional("subject", &part.subject)?,
        external: part.external.map(external),
        routes: list("routes", part.routes, route)?,
        breaker: breaker(required("breaker", part.breaker)?),
        endpoints: list("endpoints", part.endpoints, endpoint)?,
    })
}

fn external(external: wire::External) -> External {
    let tls = external.tls.map(|wire::ExternalTls { name, roots }| ExternalTls { name, roots });
    External { addresses: external.addresses, tls }
}

fn endpoint(endpoint: wire::Endpoint) -> Result<Endpoint, Error> {
    Ok(Endpoint {
        instance: parse("instance", &endpoint.instance)?,
        address: parse("address", &endpoint.address)?,
        subset: optional("subset", &endpoint.subset)?,
    })
}

fn route(route: wire::Route) -> Result<Route, Error> {
    Ok(Route {
        name: route.name,
        matches: matches(route.matches),
        backends: list("backends", route.backends, backend)?,
        timeouts: Timeouts {
            request: route.request_timeout_ms.map(Duration::from_millis),
            attempt: route.attempt_timeout_ms.map(Duration::from_millis),
        },
        retry: retry(required("retry", route.retry)?).within("retry")?,
    })
}

fn matches(matches: Vec<wire::Match>) -> Vec<Match> {
    let read = |part: wire::Match| {
        let path = part.path.map(|path| match path {
            wire::r#match::Path::Exact(path) => PathMatch::Exact(path),
            wire::r#match::Path::Prefix(path) => PathMatch::Prefix(path),
        });
        Match { path, method: part.method, headers: part.headers }
    };
    matches.into_iter().map(read).collect()
}

fn backend(backend: wire::Backend) -> Result<Backend, Error> {
    Ok(Backend {
        service: parse("service", &backend.service)?,
        subset: optional("subset", &backend.subset)?,
        weight: backend.weight,
    })
}

fn retry(retry: wire::Retry) -> Result<Retry, Error> {
    if !(0.0..=1.0).contains(&retry.budget) {
        return Err(Error::new("budget", format!("{} is not between 0 and 1", retry.budget)));
    }
    Ok(Retry {
        attempts: retry.attempts,
        on: list("on", retry.on, retry_on)?.into_iter().collect(),
        budget: retry.budget,
        backoff: Duration::from_millis(retry.backoff_ms),
        non_idempotent: retry.non_idempotent,
    })
}

fn retry_on(on: wire::RetryOn) -> Result<RetryOn, Error> {
    use wire::retry_on::On;
    Ok(match required("on", on.on)? {
        On::ConnectFailure(_) => RetryOn::ConnectFailure,
        On::ResetBeforeProcessing(_) => RetryOn::ResetBeforeProcessing,
        On::Reset(_) => RetryOn::Reset,
        On::Status(status) => RetryOn::Status(narrow("status", status)?),
        On::Grpc(code) => RetryOn::Grpc(narrow("grpc", code)?),
    })
}

fn breaker(breaker: wire::Breaker) -> Breaker {
    Breaker {
        consecutive_failures: breaker.consecutive_failures,
        open: Duration::from_millis(breaker.open_ms),
        open_max: Duration::from_millis(breaker.open_ms_max),
        // A control plane, or a kept snapshot, that is older than the setting.
        max_ejected: breaker.max_ejected.unwrap_or(Breaker::default().max_ejected),
    }
}

fn inbound_part(part: wire::InboundPart) -> Result<InboundPart, Error> {
    Ok(InboundPart {
        protocol: protocol(part.protocol)?,
        callers: set("callers", &part.callers)?,
        limits: Inbound { body_bytes_max: part.body_bytes_max, concurrent_max: part.concurrent_max },
    })
}

fn gateway_part(part: wire::GatewayPart) -> Result<GatewayPart, Error> {
    Ok(GatewayPart {
        listen: parse("listen", &part.listen)?,
        backends: list("backends", part.backends, gateway_backend)?,
        body_bytes_max: part.body_bytes_max,
    })
}

fn gateway_backend(backend: wire::GatewayBackend) -> Result<GatewayBackend, Error> {
    Ok(GatewayBackend {
        service: parse("service", &backend.service)?,
        matches: matches(backend.matches),
        hosts: backend.hosts,
    })
}

fn broker_part(part: wire::BrokerPart) -> Result<BrokerPart, Error> {
    Ok(BrokerPart {
        queues: by_name("queues", part.queues, queue)?,
        topics: by_name("topics", part.topics, topic)?,
        publishers: by_name("publishers", part.publishers, subjects)?,
        consumers: by_name("consumers", part.consumers, |list_of| {
            list("consumptions", list_of.consumptions, consumption)
        })?,
        message_bytes_max: part.message_bytes_max,
    })
}

fn subjects(subjects: wire::Subjects) -> Result<BTreeSet<Subject>, Error> {
    set("subjects", &subjects.subjects)
}

fn consumption(consumption: wire::Consumption) -> Result<Consumption, Error> {
    let source = match required("source", consumption.source)? {
        wire::consumption::Source::Queue(name) => Source::Queue(parse("queue", &name)?),
        wire::consumption::Source::Topic(name) => Source::Topic(parse("topic", &name)?),
    };
    Ok(Consumption { source, path: consumption.path, concurrency: narrow("concurrency", consumption.concurrency)? })
}

fn delivery(delivery: wire::Delivery) -> Delivery {
    Delivery {
        attempts: delivery.attempts,
        backoff_initial: Duration::from_millis(delivery.backoff_initial_ms),
        backoff_max: Duration::from_millis(delivery.backoff_ms_max),
        ack_timeout: Duration::from_millis(delivery.ack_timeout_ms),
    }
}

fn queue(queue: wire::Queue) -> Result<Queue, Error> {
    Ok(Queue {
        delivery: delivery(required("delivery", queue.delivery)?),
        dead_letter_keep: Duration::from_millis(queue.dead_letter_keep_ms),
        messages_max: queue.messages_max,
        durability: durability(queue.durability)?,
    })
}

fn topic(topic: wire::Topic) -> Result<Topic, Error> {
    Ok(Topic {
        key: topic.key,
        keep: Duration::from_millis(topic.keep_ms),
        delivery: delivery(required("delivery", topic.delivery)?),
        durability: durability(topic.durability)?,
    })
}

fn protocol(protocol: i32) -> Result<Protocol, Error> {
    match wire::Protocol::try_from(protocol) {
        Ok(wire::Protocol::Http) => Ok(Protocol::Http),
        Ok(wire::Protocol::Grpc) => Ok(Protocol::Grpc),
        _ => Err(Error::new("protocol", format!("{protocol} is not a protocol that is known here"))),
    }
}

fn durability(durability: i32) -> Result<Durability, Error> {
    match wire::Durability::try_from(durability) {
        Ok(wire::Durability::Sync) => Ok(Durability::Sync),
        Ok(wire::Durability::Os) => Ok(Durability::Os),
        _ => Err(Error::new("durability", format!("{durability} is not a level that is known here"))),
    }
}

fn required<T>(field: &str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| Error::new(field, "is missing"))
}

fn parse<T>(field: &str, text: &str) -> Result<T, Error>
where
    T: std::str::FromStr,
    T::Err: Display,
{
    text.parse().map_err(|why| Error::new(field, format!("{text:?}: {why}")))
}

/// Empty: none.
fn optional<T>(field: &str, text: &str) -> Result<Option<T>, Error>
where
    T: std::str::FromStr,
    T::Err: Display,
{
    if text.is_empty() { Ok(None) } else { parse(field, text).map(Some) }
}

fn narrow<T: TryFrom<u32>>(field: &str, number: u32) -> Result<T, Error> {
    T::try_from(number).map_err(|_| Error::new(field, format!("{number} is too large")))
}

fn list<W, T>(field: &str, items: Vec<W>, read: impl Fn(W) -> Result<T, Error>) -> Result<Vec<T>, Error> {
    let numbered = items.into_iter().enumerate();
    numbered.map(|(index, item)| read(item).within(index).within(field)).collect()
}

fn set<T>(field: &str, texts: &[String]) -> Result<BTreeSet<T>, Error>
where
    T: std::str::FromStr + Ord,
    T::Err: Display,
{
    texts.iter().map(|text| parse(field, text)).collect()
}

fn by_name<W, T>(
    field: &str,
    parts: BTreeMap<String, W>,
    read: impl Fn(W) -> Result<T, Error>,
) -> Result<BTreeMap<Name, T>, Error> {
    let read_one = |(name, part): (String, W)| {
        let key = parse(field, &name)?;
        Ok((key, read(part).within(&name).within(field)?))
    };
    parts.into_iter().map(read_one).collect()
}
