//! From an event that somebody sends to a message that the committer may write: who may, what is missing, what is too much.

mod key;

use std::sync::OnceLock;

use api::broker::Event;
use jiff::Timestamp;
use model::config::Topic;
use model::identity::{SpiffeId, Subject};
use model::name::Name;
use model::snapshot::BrokerPart;
use policy::authorize;

use crate::core::Core;
use crate::engine::embedded::RECORD_BYTES_MAX;
use crate::ledger::lock;
use crate::record::{self, Destination, Identity, Published};
use crate::refusal::Refusal;
use crate::verdict::Publication;

/// The type of a message whose publisher gave none.
const DEFAULT_TYPE: &str = "message";
/// What a record has besides its event, at most.
const HEADER_BYTES_MAX: u64 = 1 << 10;
/// Longest name of an extension attribute, in octets.
const EXTENSION_NAME_LENGTH_MAX: usize = 64;

/// What kind of destination the caller has named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/v1/queues/…`, or `Queues` of the gRPC API.
    Queue,
    /// `/v1/topics/…`, or `Topics`.
    Topic,
}

/// Who publishes, and what is made of it once for all messages.
#[derive(Debug)]
pub struct Publisher {
    subject: Subject,
    source: OnceLock<String>,
}

impl Publisher {
    /// Whoever the caller has proven to be.
    #[must_use]
    pub fn new(subject: Subject) -> Self {
        Self { subject, source: OnceLock::new() }
    }

    /// The `source` of its messages that name none: its SPIFFE id.
    fn source(&self, mesh: &Name) -> &String {
        self.source.get_or_init(|| SpiffeId { mesh: mesh.clone(), subject: self.subject.clone() }.to_string())
    }
}

/// Makes a message of an event: authorizes its publisher, fills in what is missing, checks the rest, encodes it.
///
/// # Errors
/// When the publisher may not, there is no such destination, or the event is not one.
pub fn accept(
    core: &Core,
    publisher: &Publisher,
    kind: Kind,
    to: &str,
    mut event: Event,
) -> Result<Publication, Refusal> {
    let part = core.part()?;
    let (destination, topic) = destination(&part, &publisher.subject, kind, to)?;
    let identity = complete(core, publisher, &mut event);
    check_extensions(&event)?;
    let key = topic.and_then(|topic| key_of(topic, &mut event));
    let length = api::convert::event::length(&event) as u64;
    let bytes_max = part.message_bytes_max.min(RECORD_BYTES_MAX as u64 - HEADER_BYTES_MAX);
    if length > bytes_max {
        return Err(Refusal::Large { bytes: length, bytes_max });
    }
    let header = Published {
        destination,
        publisher: publisher.subject.clone(),
        published_ms: runtime::clock::wall_ms(),
        expires_ms: event.extensions.get("expirytime").map(|text| expiry(text)).transpose()?,
        key,
        identity,
    };
    let record = record::published(&header, &event);
    Ok(Publication { header, record })
}

fn destination<'a>(
    part: &'a BrokerPart,
    publisher: &Subject,
    kind: Kind,
    to: &str,
) -> Result<(Destination, Option<&'a Topic>), Refusal> {
    authorize::publish(part, publisher, to)?;
    let (name, found) = authorize::destination(part, to)?;
    match (found, kind) {
        (authorize::Destination::Queue(_), Kind::Queue) => Ok((Destination::Queue(name.clone()), None)),
        (authorize::Destination::Topic(topic), Kind::Topic) => Ok((Destination::Topic(name.clone()), Some(topic))),
        (authorize::Destination::Queue(_), Kind::Topic) => Err(other_kind(to, "queue", "queues")),
        (authorize::Destination::Topic(_), Kind::Queue) => Err(other_kind(to, "topic", "topics")),
    }
}

fn other_kind(name: &str, kind: &str, folder: &str) -> Refusal {
    Refusal::Absent(format!("{name} is a {kind}: it is reached as /v1/{folder}/{name}"))
}

/// Fills in what the publisher left out. An id of the publisher's own makes the message known again.
fn complete(core: &Core, publisher: &Publisher, event: &mut Event) -> Option<Identity> {
    if event.r#type.is_empty() {
        DEFAULT_TYPE.clone_into(&mut event.r#type);
    }
    if event.source.is_empty() {
        event.source.clone_from(publisher.source(&core.mesh));
    }
    if event.id.is_empty() {
        let mut random = [0; 10];
        lock(&core.rng).fill(&mut random);
        let id = uuid::Builder::from_unix_timestamp_millis(runtime::clock::wall_ms(), &random).into_uuid();
        event.id = id.to_string();
        return None;
    }
    Some(identity(event))
}

/// What tells a message from others. The checksum leaves out what a second try may change: time and trace.
fn identity(event: &Event) -> Identity {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(event.source.as_bytes());
    hash.update(&[0]);
    hash.update(event.id.as_bytes());
    let digest = hash.finish();
    let half = digest.as_ref().first_chunk().copied().unwrap_or_default();
    let mut check = crc32c::crc32c(event.r#type.as_bytes());
    check = crc32c::crc32c_append(check, event.subject.as_deref().unwrap_or_default().as_bytes());
    check = crc32c::crc32c_append(check, &event.data);
    Identity { id: u128::from_le_bytes(half), check }
}

/// CloudEvents 1.0.2 §"Attribute Naming Convention": lower-case letters and digits.
fn check_extensions(event: &Event) -> Result<(), Refusal> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.len() <= EXTENSION_NAME_LENGTH_MAX
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    match event.extensions.keys().find(|name| !is_name(name)) {
        None => Ok(()),
        Some(odd) => Err(Refusal::Invalid(format!(
            "{odd:?} is not the name of an attribute: lower-case letters and digits, at most {EXTENSION_NAME_LENGTH_MAX}"
        ))),
    }
}

fn expiry(text: &str) -> Result<u64, Refusal> {
    let time: Timestamp =
        text.parse().map_err(|why| Refusal::Invalid(format!("expirytime {text:?} is no RFC 3339 time: {why}")))?;
    Ok(u64::try_from(time.as_millisecond()).unwrap_or(0))
}

/// The key's hash. A key that stands in the data is made the event's `partitionkey`, so that consumers see it too.
fn key_of(topic: &Topic, event: &mut Event) -> Option<u64> {
    if !event.extensions.contains_key("partitionkey")
        && let Some(key) = topic.key.as_deref().and_then(|attribute| key::in_data(attribute, &event.data))
    {
        event.extensions.insert("partitionkey".to_owned(), key);
    }
    event.extensions.get("partitionkey").filter(|key| !key.is_empty()).map(|key| fnv(key.as_bytes()))
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo). Two keys of one hash are merely not delivered beside each other.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
