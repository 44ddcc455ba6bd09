//! Queues, topics and the broker as proven.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::context::{Context, inner};
use crate::config::document::{self, Located};
use crate::config::finding::{Mistake, code};
use crate::config::{Broker, Config, Delivery, Durability, Queue, Topic};
use crate::name::Name;

/// How long dead letters are kept where the file does not say: 14 days.
const DEAD_LETTER_KEEP: Duration = Duration::from_secs(14 * 86_400);
/// How long a topic keeps events where the file does not say: 7 days.
const TOPIC_KEEP: Duration = Duration::from_secs(7 * 86_400);
/// Most messages that wait in a queue where the file does not say.
const QUEUE_MESSAGES_MAX: u64 = 1_000_000;

pub(super) fn queues(context: &mut Context<'_, '_>) -> BTreeMap<Name, Queue> {
    let declared = context.mesh.queues.clone();
    declared
        .into_iter()
        .filter_map(|(key, located)| {
            let name = context.read(key);
            let queue = queue(context, located.value.as_ref()?);
            Some((name?, queue))
        })
        .collect()
}

fn queue(context: &mut Context<'_, '_>, written: &document::Queue) -> Queue {
    let keep = inner(written.dead_letter.as_ref()).and_then(|dead_letter| dead_letter.keep.as_ref());
    Queue {
        delivery: delivery(context, written.delivery.as_ref()),
        dead_letter_keep: context.read_or(keep, DEAD_LETTER_KEEP),
        messages_max: context.read_or(written.messages_max.as_ref(), QUEUE_MESSAGES_MAX),
        durability: context.read_or(written.durability.as_ref(), Durability::default()),
    }
}

pub(super) fn topics(context: &mut Context<'_, '_>) -> BTreeMap<Name, Topic> {
    let declared = context.mesh.topics.clone();
    declared
        .into_iter()
        .filter_map(|(key, located)| {
            let name = context.read(key);
            let topic = topic(context, located.value.as_ref()?);
            Some((name?, topic))
        })
        .collect()
}

fn topic(context: &mut Context<'_, '_>, written: &document::Topic) -> Topic {
    Topic {
        key: written.key.as_ref().and_then(|key| context.read(key)),
        keep: context.read_or(written.keep.as_ref(), TOPIC_KEEP),
        delivery: delivery(context, written.delivery.as_ref()),
        durability: context.read_or(written.durability.as_ref(), Durability::default()),
    }
}

fn delivery(context: &mut Context<'_, '_>, written: Option<&Located<document::Delivery>>) -> Delivery {
    let default = Delivery::default();
    let Some(written) = inner(written) else { return default };
    let (initial, max) = match inner(written.backoff.as_ref()) {
        Some(backoff) => (backoff.initial.as_ref(), backoff.max.as_ref()),
        None => (None, None),
    };
    // Where only one of the two is given, the default of the other yields to it.
    let given_max = max.and_then(|scalar| context.read(scalar));
    let initial = context.read_or(initial, default.backoff_initial.min(given_max.unwrap_or(default.backoff_initial)));
    let backoff_max = given_max.unwrap_or_else(|| default.backoff_max.max(initial));
    if let Some(scalar) = max.filter(|_| backoff_max < initial) {
        context.error(scalar.at, Mistake::new(code::TIMEOUT_ORDER, "the longest wait is shorter than the first"));
    }
    Delivery {
        attempts: context.number_or(written.attempts.as_ref(), default.attempts),
        backoff_initial: initial,
        backoff_max,
        ack_timeout: context.read_or(written.ack_timeout.as_ref(), default.ack_timeout),
    }
}

pub(super) fn broker(context: &mut Context<'_, '_>) -> Broker {
    let default = Broker::default();
    let Some(written) = inner(context.mesh.broker) else { return default };
    Broker {
        engine: context.read_or(written.engine.as_ref(), default.engine),
        message_bytes_max: context.read_or(written.message_max.as_ref(), default.message_bytes_max),
    }
}

/// Warns of queues and topics to which nothing is sent, or from which nothing is taken.
pub(super) fn unused(context: &mut Context<'_, '_>, config: &Config) {
    let publications = config.services.values().flat_map(|service| &service.publishes);
    let published: BTreeSet<&str> = publications.map(Name::as_str).collect();
    let consumptions = config.services.values().flat_map(|service| &service.consumes);
    let consumed: BTreeSet<&str> = consumptions.map(|consumption| consumption.source.name().as_str()).collect();
    let queues = context.mesh.queues.iter().map(|(key, _)| ("queue", *key));
    let declared: Vec<_> = queues.chain(context.mesh.topics.iter().map(|(key, _)| ("topic", *key))).collect();
    for (what, key) in declared {
        let name = key.text();
        if !published.contains(name) {
            let mistake = Mistake::new(code::NO_PUBLISHER, format!("no service publishes to the {what} `{name}`"));
            context.warning(key.at, mistake.expected(format!("`publishes: [{name}]` in a service")));
        }
        if !consumed.contains(name) {
            let mistake = Mistake::new(code::NO_CONSUMER, format!("no service consumes the {what} `{name}`"));
            context.warning(key.at, mistake.expected(format!("`consumes: [{{{what}: {name}}}]` in a service")));
        }
    }
}
