//! Messages on the disk: the broker's protobuf event, as it came over the wire.
//!
//! Whether an event is a good CloudEvent (an id, a type, names of extensions) is left to the broker's edge.

use bytes::Bytes;
use prost::Message as _;

use crate::broker::Event;

/// Bytes that are no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an event: {0}")]
pub struct Error(prost::DecodeError);

/// How many bytes [`append`] will write.
#[must_use]
pub fn length(event: &Event) -> usize {
    event.encoded_len()
}

/// Writes the stored form of an event behind what `buffer` holds.
pub fn append(event: &Event, buffer: &mut Vec<u8>) {
    // The one error there is, a buffer without room, does not happen to one that grows.
    event.encode_raw(buffer);
}

/// Reads the stored form; the data is shared with `bytes`, not copied.
///
/// # Errors
/// When the bytes are not an event.
pub fn read(bytes: Bytes) -> Result<Event, Error> {
    Event::decode(bytes).map_err(Error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            id: "7".into(),
            source: "spiffe://shop/service/orders".into(),
            r#type: "order.placed".into(),
            subject: Some("order/7".into()),
            time: Some("2026-11-24T02:00:00Z".into()),
            data_content_type: Some("application/json".into()),
            data_schema: None,
            extensions: [("partitionkey".to_owned(), "7".to_owned())].into(),
            data: Bytes::from_static(b"{}"),
        }
    }

    #[test]
    fn an_event_survives_the_disk() {
        let mut stored = b"head".to_vec();
        append(&event(), &mut stored);
        assert_eq!(stored.len(), 4 + length(&event()));
        assert_eq!(read(Bytes::from(stored).slice(4..)).unwrap(), event());
    }

    #[test]
    fn bytes_that_are_no_event_are_refused() {
        assert!(read(Bytes::from_static(&[0xff, 0xff, 0xff])).is_err());
    }
}
