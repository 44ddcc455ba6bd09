//! The details of a refusal in gRPC: a `google.rpc.Status` with one `google.rpc.ErrorInfo`. Those two messages have four fields between
//! them that are used here, so they are written by hand: this crate and the data plane know no protobuf beyond that.

use super::{Story, millis};

/// `google.rpc.Status { int32 code = 1; string message = 2; repeated Any details = 3; }`
pub(super) fn status(story: &Story<'_>) -> Vec<u8> {
    // `google.protobuf.Any { string type_url = 1; bytes value = 2; }`
    let mut any = Vec::new();
    bytes_field(&mut any, 1, b"type.googleapis.com/google.rpc.ErrorInfo");
    bytes_field(&mut any, 2, &error_info(story));
    let mut out = Vec::new();
    varint(&mut out, 1 << 3);
    varint(&mut out, u64::from(story.wire.grpc));
    bytes_field(&mut out, 2, story.detail.as_bytes());
    bytes_field(&mut out, 3, &any);
    out
}

/// `google.rpc.ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }`
fn error_info(story: &Story<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    bytes_field(&mut out, 1, story.wire.name.to_ascii_uppercase().replace('-', "_").as_bytes());
    bytes_field(&mut out, 2, b"meshwork");
    let mut entry = |key: &str, value: &str| {
        let mut pair = Vec::new();
        bytes_field(&mut pair, 1, key.as_bytes());
        bytes_field(&mut pair, 2, value.as_bytes());
        bytes_field(&mut out, 3, &pair);
    };
    entry("subject", &story.subject);
    if let Some(id) = story.request_id {
        entry("request_id", id);
    }
    if let Some(service) = story.service {
        entry("service", service);
    }
    for (nth, tried) in story.tried.iter().enumerate() {
        let text = format!("{}: {} after {} ms", tried.endpoint, tried.outcome, millis(tried.took));
        entry(&format!("tried_{}", nth + 1), &text);
    }
    if !story.near.is_empty() {
        entry("near", &story.near.join(", "));
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
    fn lengths_above_127_take_two_bytes() {
        let mut out = Vec::new();
        bytes_field(&mut out, 2, &[0; 300]);
        assert_eq!(&out[..3], &[0x12, 0xac, 0x02]);
    }
}
