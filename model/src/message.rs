//! Messages: CloudEvents 1.0 (CNCF, cloudevents/spec v1.0.2) as a noun. How one stands in HTTP or protobuf is left to
//! `api` and the broker's edge.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An event, or a message in a queue: its attributes and its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Unique together with `source`; the pair is what consumers deduplicate by.
    pub id: String,
    /// Who made it, a URI-reference: `spiffe://shop/service/orders` where the publisher gave none.
    pub source: String,
    /// What happened: `order.placed`.
    pub kind: String,
    /// What it is about.
    pub subject: Option<String>,
    /// RFC 3339; when it was made.
    pub time: Option<String>,
    /// Media type of `data`.
    pub data_content_type: Option<String>,
    /// A URI of the data's schema.
    pub data_schema: Option<String>,
    /// Extension attributes: lower-case letters and digits → text. `partitionkey`, `traceparent`, `sequence`, `expirytime` keep
    /// the meaning of the CloudEvents extensions of those names.
    pub extensions: BTreeMap<String, String>,
    /// The payload.
    #[serde(skip)]
    pub data: Vec<u8>,
}

impl Event {
    /// The key that orders it among its like: the `partitionkey` extension.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.extensions.get("partitionkey").map(String::as_str)
    }
}
