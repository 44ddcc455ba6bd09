//! Words of the design that this version cannot keep yet. They are refused as such: an ignored setting would be a promise.

/// Struct of the document, its key, and what to do instead.
const KEYS: &[(&str, &str, &str)] = &[
    ("Document", "streams", "; queues and topics are"),
    ("Document", "views", "; queues and topics are"),
    ("Document", "sagas", "; queues and topics are"),
    ("Document", "policies", "; the declared graph alone decides who may talk to whom"),
    ("Inbound", "rate_limit", "; `concurrent_max` bounds the requests in progress"),
    ("Inbound", "bulkhead", "; `concurrent_max` bounds the requests in progress"),
    ("Route", "filters", ""),
    ("Route", "fallback", ""),
    ("Route", "faults", ""),
    ("Route", "mirror", ""),
    ("Route", "cache", ""),
    ("Topic", "kind", ""),
    ("Topic", "schema", ""),
    ("Topic", "when_unreachable", "; a publish that cannot reach the broker is refused"),
    ("Queue", "when_unreachable", "; a publish that cannot reach the broker is refused"),
    ("Consumption", "ordered_by", "; a topic is delivered in the order of its key as it is"),
    ("Broker", "servers", ": it belongs to other engines"),
    ("Broker", "replicas", ": it belongs to other engines"),
];

/// What to add to "is not built yet" when `key` of `owner` is such a word.
pub(super) fn key(owner: &str, key: &str) -> Option<&'static str> {
    KEYS.iter().find(|(struct_name, name, _)| *struct_name == owner && *name == key).map(|(_, _, hint)| *hint)
}
