//! A refusal as a gRPC status: trailers only (gRPC over HTTP2, "Responses"), with the details in `grpc-status-details-bin`.
//!
//! The details are a `google.rpc.Status` with one `google.rpc.ErrorInfo`. Those two messages have four fields between them that
//! are used here, so they are written by hand: this crate knows no protobuf beyond that.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderValue, Response, header};

use super::{Context, Refusal, Wire};
use crate::body::Answered;

/// The answer: status 200, no body, everything in the head.
pub(super) fn trailers_only(refusal: &Refusal, wire: &Wire, context: &Context<'_>) -> Response<Answered> {
    let message = refusal.reason.to_string();
    let mut response = Response::new(Answered::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(wire.grpc)));
    if let Ok(value) = HeaderValue::from_str(&percent_encode(&message)) {
        headers.insert("grpc-message", value);
    }
    let details = STANDARD_NO_PAD.encode(status(refusal, wire, context, &message));
    if let Ok(value) = HeaderValue::from_str(&details) {
        headers.insert("grpc-status-details-bin", value);
    }
    response
}

/// gRPC over HTTP2, "Percent-Byte-Encoded": everything but printable ASCII, and `%`.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// `google.rpc.Status { int32 code = 1; string message = 2; repeated Any details = 3; }`
fn status(refusal: &Refusal, wire: &Wire, context: &Context<'_>, message: &str) -> Vec<u8> {
    // `google.protobuf.Any { string type_url = 1; bytes value = 2; }`
    let mut any = Vec::new();
    bytes_field(&mut any, 1, b"type.googleapis.com/google.rpc.ErrorInfo");
    bytes_field(&mut any, 2, &error_info(refusal, wire, context));
    let mut out = Vec::new();
    varint(&mut out, 1 << 3);
    varint(&mut out, u64::from(wire.grpc));
    bytes_field(&mut out, 2, message.as_bytes());
    bytes_field(&mut out, 3, &any);
    out
}

/// `google.rpc.ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }`
fn error_info(refusal: &Refusal, wire: &Wire, context: &Context<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    bytes_field(&mut out, 1, wire.name.to_ascii_uppercase().replace('-', "_").as_bytes());
    bytes_field(&mut out, 2, b"meshwork");
    let mut entry = |key: &str, value: &str| {
        let mut pair = Vec::new();
        bytes_field(&mut pair, 1, key.as_bytes());
        bytes_field(&mut pair, 2, value.as_bytes());
        bytes_field(&mut out, 3, &pair);
    };
    entry("subject", &context.subject.to_string());
    if let Some(id) = context.request_id.and_then(|id| id.to_str().ok()) {
        entry("request_id", id);
    }
    if let Some(service) = &refusal.service {
        entry("service", service);
    }
    for (nth, tried) in refusal.tried.iter().enumerate() {
        let story = format!("{}: {} after {} ms", tried.endpoint, tried.outcome, tried.took.as_millis());
        entry(&format!("tried_{}", nth + 1), &story);
    }
    if !refusal.near.is_empty() {
        entry("near", &refusal.near.join(", "));
    }
    out
}

fn bytes_field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_printable() {
        assert_eq!(percent_encode("100% of \u{e9}\n"), "100%25 of %C3%A9%0A");
    }

    #[test]
    fn lengths_above_127_take_two_bytes() {
        let mut out = Vec::new();
        bytes_field(&mut out, 2, &[0; 300]);
        assert_eq!(&out[..3], &[0x12, 0xac, 0x02]);
    }
}
