//! The HTTP binding's binary mode: attributes as `ce-` headers, the data as the body.

use std::fmt::Write as _;

use api::broker::Event;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::{Error, attributes, set};

const PREFIX: &str = "ce-";

/// Writes the attributes as headers.
///
/// # Errors
/// When an extension's name is no header's name; the broker accepts none such.
pub fn write(event: &Event, headers: &mut HeaderMap) -> http::Result<()> {
    for (name, value) in attributes(event) {
        headers.insert(HeaderName::try_from(format!("{PREFIX}{name}"))?, encode(value)?);
    }
    if let Some(media_type) = &event.data_content_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::try_from(media_type)?);
    }
    Ok(())
}

/// Reads the attributes from headers; a request without `ce-` headers gives an event without attributes.
///
/// # Errors
/// When a value is not what the binding allows.
pub fn read(headers: &HeaderMap) -> Result<Event, Error> {
    let mut event = Event::default();
    for (name, value) in headers {
        let Some(attribute) = name.as_str().strip_prefix(PREFIX) else { continue };
        let text = decode(value.as_bytes()).ok_or_else(|| Error(format!("the header {name} is not UTF-8")))?;
        set(&mut event, attribute, text)?;
    }
    if let Some(media_type) = headers.get(header::CONTENT_TYPE) {
        let text = media_type.to_str().map_err(|_| Error("the content-type is not text".to_owned()))?;
        event.data_content_type = Some(text.to_owned());
    }
    Ok(event)
}

/// Percent-encodes what the binding (§3.1.3.2) asks for: space, double quote, percent, and all outside of printable ASCII.
fn encode(value: &str) -> http::Result<HeaderValue> {
    let is_plain = |byte: u8| (0x21..=0x7e).contains(&byte) && byte != b'"' && byte != b'%';
    if value.bytes().all(is_plain) {
        return Ok(HeaderValue::try_from(value)?);
    }
    let mut text = String::with_capacity(value.len() + 16);
    for byte in value.bytes() {
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    Ok(HeaderValue::try_from(text)?)
}

/// The reverse; a percent sign that begins no escape stands for itself.
fn decode(value: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, behind)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| behind.get(..2).and_then(hex)).flatten();
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8(bytes).ok()
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(digits[0])? << 4 | digit(digits[1])?).ok()
}
