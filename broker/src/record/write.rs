//! Records as bytes, version 1: a tag, then the fields in their order. Numbers are LEB128, texts and lists have their length
//! in front. A record's tag fixes its layout for ever; a changed layout gets a tag of its own.

use api::broker::Event;
use bytes::Bytes;
use model::identity::Subject;
use model::position::Position;
use policy::schedule::Attempts;

use super::{Destination, Group, Identity, Published, Record};

pub(super) const PUBLISHED: u8 = 1;
pub(super) const CARRIED: u8 = 2;
/// Read only: an assignment without its fence.
pub(super) const ASSIGNED_UNFENCED: u8 = 3;
pub(super) const SETTLED: u8 = 4;
pub(super) const AGAIN: u8 = 5;
pub(super) const DEAD: u8 = 6;
pub(super) const REDRIVEN: u8 = 7;
pub(super) const FORGOTTEN: u8 = 8;
pub(super) const SUBSCRIBED: u8 = 9;
pub(super) const SOUGHT: u8 = 10;
pub(super) const PAUSED: u8 = 11;
pub(super) const CHECKPOINT: u8 = 12;
pub(super) const ASSIGNED: u8 = 13;

/// What the fields before the event take at most, names aside, for sizing a buffer once.
const HEADER_ROOM: usize = 160;

/// The record of a message that is being accepted: encoded once, in one allocation.
#[must_use]
pub fn published(header: &Published, event: &Event) -> Bytes {
    let mut buffer = Vec::with_capacity(HEADER_ROOM + api::convert::event::length(event));
    buffer.push(PUBLISHED);
    put_published(&mut buffer, header);
    api::convert::event::append(event, &mut buffer);
    buffer.into()
}

impl Record {
    /// The record as bytes. Of a message it is the part before the event.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(64);
        let to = &mut buffer;
        match self {
            Self::Published(published) => {
                to.push(PUBLISHED);
                put_published(to, published);
            }
            Self::Carried { position, published } => {
                to.push(CARRIED);
                put_number(to, position.0);
                put_published(to, published);
            }
            Self::Assigned { group, consumer, fence, messages } => {
                to.push(ASSIGNED);
                put_group(to, group);
                put_text(to, consumer.as_str());
                put_number(to, *fence);
                put_number(to, messages.len() as u64);
                for (position, attempts) in messages {
                    put_number(to, position.0);
                    put_attempts(to, *attempts);
                }
            }
            Self::Settled { group, positions } => put_positions(to, SETTLED, group, positions),
            Self::Redriven { group, positions } => put_positions(to, REDRIVEN, group, positions),
            Self::Forgotten { group, positions } => put_positions(to, FORGOTTEN, group, positions),
            Self::Again { group, position, attempts, due_ms } => {
                to.push(AGAIN);
                put_group(to, group);
                put_number(to, position.0);
                put_attempts(to, *attempts);
                put_number(to, *due_ms);
            }
            Self::Dead { group, position, attempts, reason, died_ms } => {
                to.push(DEAD);
                put_group(to, group);
                put_number(to, position.0);
                put_attempts(to, *attempts);
                put_text(to, reason);
                put_number(to, *died_ms);
            }
            Self::Subscribed { .. } | Self::Sought { .. } | Self::Paused { .. } => put_subscription(to, self),
            Self::Checkpoint { part, last, bytes } => {
                to.push(CHECKPOINT);
                put_number(to, u64::from(*part));
                to.push(u8::from(*last));
                to.extend_from_slice(bytes);
            }
        }
        buffer
    }
}

fn put_subscription(to: &mut Vec<u8>, record: &Record) {
    let (tag, topic, name, number) = match record {
        Record::Subscribed { topic, name, from } => (SUBSCRIBED, topic, name, from.0),
        Record::Sought { topic, name, to } => (SOUGHT, topic, name, to.0),
        Record::Paused { topic, name, paused } => (PAUSED, topic, name, u64::from(*paused)),
        _ => return,
    };
    to.push(tag);
    put_text(to, topic.as_str());
    put_text(to, name.as_str());
    put_number(to, number);
}

fn put_positions(to: &mut Vec<u8>, tag: u8, group: &Group, positions: &[Position]) {
    to.push(tag);
    put_group(to, group);
    put_number(to, positions.len() as u64);
    for position in positions {
        put_number(to, position.0);
    }
}

fn put_published(to: &mut Vec<u8>, published: &Published) {
    let (kind, name) = match &published.destination {
        Destination::Queue(name) => (0, name),
        Destination::Topic(name) => (1, name),
    };
    to.push(kind);
    put_text(to, name.as_str());
    put_subject(to, &published.publisher);
    put_number(to, published.published_ms);
    put_option(to, published.expires_ms);
    put_option(to, published.key);
    match &published.identity {
        None => to.push(0),
        Some(identity) => {
            to.push(1);
            put_identity(to, *identity);
        }
    }
}

pub(crate) fn put_identity(to: &mut Vec<u8>, identity: Identity) {
    to.extend_from_slice(&identity.id.to_le_bytes());
    to.extend_from_slice(&identity.check.to_le_bytes());
}

pub(crate) fn put_subject(to: &mut Vec<u8>, subject: &Subject) {
    // Not by its text: that would be formatted for each message.
    match subject {
        Subject::Service(name) => {
            to.push(0);
            put_text(to, name.as_str());
        }
        Subject::Gateway(name) => {
            to.push(1);
            put_text(to, name.as_str());
        }
        Subject::Broker => to.push(2),
        Subject::ControlPlane => to.push(3),
    }
}

fn put_group(to: &mut Vec<u8>, group: &Group) {
    match group {
        Group::Queue(name) => {
            to.push(0);
            put_text(to, name.as_str());
        }
        Group::Subscription { topic, name } => {
            to.push(1);
            put_text(to, topic.as_str());
            put_text(to, name.as_str());
        }
    }
}

pub(crate) fn put_attempts(to: &mut Vec<u8>, attempts: Attempts) {
    put_number(to, u64::from(attempts.assigned));
    put_number(to, u64::from(attempts.failed));
}

pub(crate) fn put_option(to: &mut Vec<u8>, number: Option<u64>) {
    to.push(u8::from(number.is_some()));
    if let Some(number) = number {
        put_number(to, number);
    }
}

pub(crate) fn put_text(to: &mut Vec<u8>, text: &str) {
    put_number(to, text.len() as u64);
    to.extend_from_slice(text.as_bytes());
}

pub(crate) fn put_number(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}
