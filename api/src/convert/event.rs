//! Messages over the wire and on the disk: the broker's protobuf event and the noun are the same thing attribute by attribute.
//!
//! Whether an event is a good CloudEvent (an id, a type, names of extensions) is left to the broker's edge.

use bytes::Bytes;
use model::message::Event;
use prost::Message as _;

use crate::broker as wire;

/// Bytes that are no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an event: {0}")]
pub struct Error(prost::DecodeError);

impl From<Event> for wire::Event {
    fn from(event: Event) -> Self {
        Self {
            id: event.id,
            source: event.source,
            r#type: event.kind,
            subject: event.subject,
            time: event.time,
            data_content_type: event.data_content_type,
            data_schema: event.data_schema,
            extensions: event.extensions,
            data: event.data.into(),
        }
    }
}

impl From<wire::Event> for Event {
    fn from(event: wire::Event) -> Self {
        Self {
            id: event.id,
            source: event.source,
            kind: event.r#type,
            subject: event.subject,
            time: event.time,
            data_content_type: event.data_content_type,
            data_schema: event.data_schema,
            extensions: event.extensions,
            data: event.data.into(),
        }
    }
}

/// How many bytes [`append`] will write.
#[must_use]
pub fn length(event: &wire::Event) -> usize {
    event.encoded_len()
}

/// Writes the stored form of an event behind what `buffer` holds.
pub fn append(event: &wire::Event, buffer: &mut Vec<u8>) {
    // The one error there is, a buffer without room, does not happen to one that grows.
    event.encode_raw(buffer);
}

/// Reads the stored form; the data is shared with `bytes`, not copied.
///
/// # Errors
/// When the bytes are not an event.
pub fn read(bytes: Bytes) -> Result<wire::Event, Error> {
    wire::Event::decode(bytes).map_err(Error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            id: "7".into(),
            source: "spiffe://shop/service/orders".into(),
            kind: "order.placed".into(),
            subject: Some("order/7".into()),
            time: Some("2026-11-24T02:00:00Z".into()),
            data_content_type: Some("application/json".into()),
            data_schema: None,
            extensions: [("partitionkey".to_owned(), "7".to_owned())].into(),
            data: b"{}".to_vec(),
        }
    }

    #[test]
    fn an_event_survives_the_wire_and_the_disk() {
        let wire = wire::Event::from(event());
        let mut stored = b"head".to_vec();
        append(&wire, &mut stored);
        assert_eq!(stored.len(), 4 + length(&wire));
        let read = read(Bytes::from(stored).slice(4..)).unwrap();
        assert_eq!(Event::from(read), event());
    }

    #[test]
    fn bytes_that_are_no_event_are_refused() {
        assert!(read(Bytes::from_static(&[0xff, 0xff, 0xff])).is_err());
    }
}
