//! The key of an event that stands in its data: one member of a JSON object. The rest of the object is passed over and not kept, since it
//! is read for every message of a topic with a key.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The member of that name as text; `None` where there is none, it is no scalar, or the data is no JSON object.
pub(super) fn in_data(name: &str, data: &[u8]) -> Option<String> {
    let mut from = serde_json::Deserializer::from_slice(data);
    let found = Member(name).deserialize(&mut from).ok()?;
    from.end().ok()?;
    let raw = found?.get();
    match serde_json::from_str(raw).ok()? {
        Value::String(text) => Some(text),
        // As it was written: two large numbers that a machine's cannot tell apart are two keys.
        Value::Number(_) => Some(raw.to_owned()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Looks for the member of that name.
struct Member<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_it) = object.next_key_seed(Is(self.0))? {
            if is_it {
                found = Some(object.next_value()?);
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Whether a member's name is that one.
struct Is<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_scalar_member_of_an_object() {
        for (data, key) in [
            (r#"{"a":[{"order":"no"}],"order":"o-7","b":{}}"#, Some("o-7")),
            (r#"{"ord\u0065r":"o-\u0037"}"#, Some("o-7")),
            (r#"{"order":1,"order":2.50}"#, Some("2.50")),
            (r#"{"order":12345678901234567890123}"#, Some("12345678901234567890123")),
            (r#"{"order":-7}"#, Some("-7")),
            (r#"{"order":true}"#, Some("true")),
            (r#"{"order":""}"#, Some("")),
            (r#"{"order":null}"#, None),
            (r#"{"order":["o-7"]}"#, None),
            (r#"{"orders":"o-7"}"#, None),
            (r#"["order"]"#, None),
            (r#"{"order":"o-7"} x"#, None),
            (r#"{"order":"o-7""#, None),
            ("", None),
        ] {
            assert_eq!(in_data("order", data.as_bytes()).as_deref(), key, "{data}");
        }
    }
}
