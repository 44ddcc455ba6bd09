//! The JSON format: one object, the data as JSON where it is JSON, as a string where it is text, else as base64.

use api::broker::Event;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::{Error, attributes, set};

/// The media type of one event.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";
/// The media type of several.
pub const BATCH_CONTENT_TYPE: &str = "application/cloudevents-batch+json";

/// An event as a JSON object.
#[must_use]
pub fn write(event: &Event) -> Value {
    let mut object = Map::new();
    for (name, value) in attributes(event) {
        object.insert(name.to_owned(), Value::from(value));
    }
    if let Some(media_type) = &event.data_content_type {
        object.insert("datacontenttype".to_owned(), Value::from(media_type.as_str()));
    }
    if !event.data.is_empty() {
        let (name, value) = data(event);
        object.insert(name.to_owned(), value);
    }
    Value::Object(object)
}

fn data(event: &Event) -> (&'static str, Value) {
    let media_type = event.data_content_type.as_deref().unwrap_or("application/json");
    if is_json(media_type)
        && let Ok(value) = serde_json::from_slice(&event.data)
    {
        return ("data", value);
    }
    match std::str::from_utf8(&event.data) {
        Ok(text) if media_type.starts_with("text/") => ("data", Value::from(text)),
        _ => ("data_base64", Value::from(BASE64_STANDARD.encode(&event.data))),
    }
}

/// Reads one event.
///
/// # Errors
/// When it is no JSON object, or an attribute is not what the format allows.
pub fn read(bytes: &[u8]) -> Result<Event, Error> {
    from_object(serde_json::from_slice(bytes).map_err(|why| Error(format!("the body is no event: {why}")))?)
}

/// Reads several.
///
/// # Errors
/// As [`read`], for the first that is not one.
pub fn read_batch(bytes: &[u8]) -> Result<Vec<Event>, Error> {
    let objects: Vec<Map<String, Value>> =
        serde_json::from_slice(bytes).map_err(|why| Error(format!("the body is no batch of events: {why}")))?;
    objects.into_iter().map(from_object).collect()
}

fn from_object(mut object: Map<String, Value>) -> Result<Event, Error> {
    let mut event = Event::default();
    let (data, data_base64) = (object.remove("data"), object.remove("data_base64"));
    for (name, value) in object {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Array(_) | Value::Object(_) => {
                return Err(Error(format!("the attribute {name:?} is neither a string, a number nor a boolean")));
            }
        };
        set(&mut event, &name, text)?;
    }
    event.data = match (data, data_base64) {
        (Some(_), Some(_)) => return Err(Error("an event has data or data_base64, not both".to_owned())),
        (Some(Value::String(text)), None) if !event.data_content_type.as_deref().is_none_or(is_json) => text.into(),
        (Some(value), None) => {
            event.data_content_type.get_or_insert_with(|| "application/json".to_owned());
            value.to_string().into()
        }
        (None, Some(Value::String(text))) => {
            BASE64_STANDARD.decode(text).map_err(|why| Error(format!("data_base64: {why}")))?.into()
        }
        (None, Some(_)) => return Err(Error("data_base64 is no string".to_owned())),
        (None, None) => Bytes::new(),
    };
    Ok(event)
}

/// Whether a media type is JSON: its subtype is `json`, or ends in `+json` (RFC 6839).
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}
