//! The JSON format: one object, the data as JSON where it is JSON, as a string where it is text, else as base64.

use std::collections::BTreeMap;

use api::broker::Event;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Error, attributes, set};

/// The media type of one event.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";
/// The media type of several.
pub const BATCH_CONTENT_TYPE: &str = "application/cloudevents-batch+json";

/// An event as a JSON object. Data that is JSON stands in it as it was published, byte for byte: numbers keep their digits, members their
/// order. So it is written as text, and never as a [`Value`], which would read and write it anew.
#[derive(Debug)]
pub struct Object<'a>(pub &'a Event);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(event) = self;
        let mut object = to.serialize_map(None)?;
        for (name, value) in attributes(event) {
            object.serialize_entry(name, value)?;
        }
        if let Some(media_type) = &event.data_content_type {
            object.serialize_entry("datacontenttype", media_type)?;
        }
        if !event.data.is_empty() {
            match data(event) {
                Data::Json(json) => object.serialize_entry("data", json)?,
                Data::Text(text) => object.serialize_entry("data", text)?,
                Data::Bytes(bytes) => object.serialize_entry("data_base64", &BASE64_STANDARD.encode(bytes))?,
            }
        }
        object.end()
    }
}

/// Data in the form in which it stands in an object.
enum Data<'a> {
    Json(&'a RawValue),
    Text(&'a str),
    Bytes(&'a [u8]),
}

fn data(event: &Event) -> Data<'_> {
    let media_type = event.data_content_type.as_deref().unwrap_or("application/json");
    if is_json(media_type)
        && let Ok(json) = serde_json::from_slice(&event.data)
    {
        return Data::Json(json);
    }
    match std::str::from_utf8(&event.data) {
        Ok(text) if media_type.starts_with("text/") => Data::Text(text),
        _ => Data::Bytes(&event.data),
    }
}

/// The members of an event, each as it was written.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// Reads one event.
///
/// # Errors
/// When it is no JSON object, or an attribute is not what the format allows.
pub fn read(bytes: &[u8]) -> Result<Event, Error> {
    from_object(serde_json::from_slice(bytes).map_err(|why| Error(format!("the body is no event: {why}")))?)
}

/// Reads several: each is an event or why it is none, so that one does not hold back the others.
///
/// # Errors
/// When it is no JSON array.
pub fn read_batch(bytes: &[u8]) -> Result<Vec<Result<Event, Error>>, Error> {
    let events: Vec<&RawValue> =
        serde_json::from_slice(bytes).map_err(|why| Error(format!("the body is no batch of events: {why}")))?;
    Ok(events.into_iter().map(|event| read(event.get().as_bytes())).collect())
}

fn from_object(mut members: Members<'_>) -> Result<Event, Error> {
    let mut event = Event::default();
    let (data, data_base64) = (members.remove("data"), members.remove("data_base64"));
    for (name, raw) in members {
        let text = match parsed(raw)? {
            Value::Null => continue,
            Value::String(text) => text,
            // As it was written: a number that a machine's does not hold keeps its digits.
            Value::Number(_) => raw.get().to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Array(_) | Value::Object(_) => {
                return Err(Error(format!("the attribute {name:?} is neither a string, a number nor a boolean")));
            }
        };
        set(&mut event, &name, text)?;
    }
    event.data = match (data, data_base64) {
        (Some(_), Some(_)) => return Err(Error("an event has data or data_base64, not both".to_owned())),
        (Some(raw), None) => read_data(raw, &mut event.data_content_type)?,
        (None, Some(raw)) => match parsed(raw)? {
            Value::String(text) => {
                BASE64_STANDARD.decode(text).map_err(|why| Error(format!("data_base64: {why}")))?.into()
            }
            _ => return Err(Error("data_base64 is no string".to_owned())),
        },
        (None, None) => Bytes::new(),
    };
    Ok(event)
}

/// Data that stands in an object: text where its media type is none of JSON, else the JSON as it was written.
fn read_data(raw: &RawValue, media_type: &mut Option<String>) -> Result<Bytes, Error> {
    let is_text = raw.get().starts_with('"') && !media_type.as_deref().is_none_or(is_json);
    if is_text && let Value::String(text) = parsed(raw)? {
        return Ok(text.into());
    }
    media_type.get_or_insert_with(|| "application/json".to_owned());
    Ok(Bytes::copy_from_slice(raw.get().as_bytes()))
}

fn parsed(raw: &RawValue) -> Result<Value, Error> {
    serde_json::from_str(raw.get()).map_err(|why| Error(format!("the body is no event: {why}")))
}

/// Whether a media type is JSON: its subtype is `json`, or ends in `+json` (RFC 6839).
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}
