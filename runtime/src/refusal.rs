//! How a refusal stands on the wire, whoever makes it: `Proxy-Status` (RFC 9209) with a problem document (RFC 9457), or with a
//! gRPC status of the same details. So the data plane's refusals and the broker's are read in one way.
//!
//! What is refused and why, and which status fits it, is left to the planes.

mod details;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

/// Where a refusal says so (RFC 9209).
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// The media type of a problem document.
pub const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
/// The error type that has a parameter of its own, the status (RFC 9209 §2.3.19).
const REQUEST_ERROR: &str = "http_request_error";

/// How one reason looks on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wire {
    /// The HTTP status.
    pub status: StatusCode,
    /// The registered error type (RFC 9209 §2.3).
    pub error: &'static str,
    /// The gRPC code.
    pub grpc: u8,
    /// The last part of the problem's type, and the reason in metrics.
    pub name: &'static str,
    /// The problem's title.
    pub title: &'static str,
}

/// One attempt that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The instance, or `host:port` outside of the mesh.
    pub endpoint: String,
    /// What happened.
    pub outcome: String,
    /// How long it took.
    pub took: Duration,
}

/// Who refuses, why, and what was tried.
#[derive(Debug)]
pub struct Story<'a> {
    /// The part of Meshwork that refuses, as the token in `Proxy-Status`: `meshwork` for a data plane, `broker`.
    pub by: &'static str,
    /// Whose part it is.
    pub subject: String,
    /// How it looks.
    pub wire: Wire,
    /// Why, in a sentence.
    pub detail: String,
    /// Which request, as far as it is known.
    pub request_id: Option<&'a str>,
    /// The service that was meant, as far as it is known.
    pub service: Option<&'a str>,
    /// What was tried.
    pub tried: &'a [Tried],
    /// Names that the client may have meant.
    pub near: &'a [String],
}

impl Story<'_> {
    /// The problem document, as JSON.
    #[must_use]
    pub fn problem(&self) -> Value {
        let mut members = Map::new();
        let mut put = |name: &str, value: Value| {
            members.insert(name.to_owned(), value);
        };
        put("type", json!(format!("urn:meshwork:problem:{}", self.wire.name)));
        put("title", json!(self.wire.title));
        put("status", json!(self.wire.status.as_u16()));
        put("detail", json!(self.detail));
        put("subject", json!(self.subject));
        if let Some(id) = self.request_id {
            put("instance", json!(id));
        }
        if let Some(service) = self.service {
            put("service", json!(service));
        }
        if !self.tried.is_empty() {
            let one = |t: &Tried| json!({"endpoint": t.endpoint, "outcome": t.outcome, "ms": millis(t.took)});
            put("tried", self.tried.iter().map(one).collect());
        }
        if !self.near.is_empty() {
            put("near", json!(self.near));
        }
        Value::Object(members)
    }

    /// The answer to an HTTP client.
    #[must_use]
    pub fn http(&self) -> Response<String> {
        let mut response = Response::new(self.problem().to_string());
        *response.status_mut() = self.wire.status;
        response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM);
        self.sign(response.headers_mut());
        response
    }

    /// The answer to a gRPC client: trailers only (gRPC over HTTP2, "Responses"), so status 200 and everything in the head.
    #[must_use]
    pub fn grpc(&self) -> Response<()> {
        let mut response = Response::new(());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(u16::from(self.wire.grpc)));
        if let Ok(value) = HeaderValue::from_str(&percent_encode(&self.detail)) {
            headers.insert("grpc-message", value);
        }
        if let Ok(value) = HeaderValue::from_str(&STANDARD_NO_PAD.encode(self.status_details())) {
            headers.insert("grpc-status-details-bin", value);
        }
        self.sign(headers);
        response
    }

    /// What stands in `grpc-status-details-bin` in base64: a `google.rpc.Status` with one `google.rpc.ErrorInfo`.
    #[must_use]
    pub fn status_details(&self) -> Vec<u8> {
        details::status(self)
    }

    /// The value of [`PROXY_STATUS`].
    #[must_use]
    pub fn proxy_status(&self) -> Option<HeaderValue> {
        proxy_status(self.by, self.wire.error, self.wire.status, &self.detail)
    }

    fn sign(&self, headers: &mut HeaderMap) {
        if let Some(value) = self.proxy_status() {
            headers.insert(PROXY_STATUS, value);
        }
    }
}

/// The value of [`PROXY_STATUS`]: a structured list with one member (RFC 9209 §2.1, RFC 8941), whose string holds printable
/// ASCII only.
#[must_use]
pub fn proxy_status(by: &str, error: &str, status: StatusCode, details: &str) -> Option<HeaderValue> {
    let details: String = details.chars().filter(|c| matches!(c, ' '..='~')).collect();
    let details = details.replace('\\', "\\\\").replace('"', "\\\"");
    let code = if error == REQUEST_ERROR { format!("; status-code={}", status.as_u16()) } else { String::new() };
    HeaderValue::try_from(format!("{by}; error={error}{code}; details=\"{details}\"")).ok()
}

/// gRPC over HTTP2, "Percent-Byte-Encoded": everything but printable ASCII, and `%`.
#[must_use]
pub fn percent_encode(text: &str) -> String {
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

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(error: &'static str, detail: &str) -> Story<'static> {
        let wire = Wire { status: StatusCode::CONFLICT, error, grpc: 6, name: "id-in-use", title: "In use" };
        let (subject, detail) = ("broker".to_owned(), detail.to_owned());
        Story { by: "broker", subject, wire, detail, request_id: Some("r"), service: None, tried: &[], near: &[] }
    }

    #[test]
    fn a_message_stays_printable() {
        assert_eq!(percent_encode("100% of \u{e9}\n"), "100%25 of %C3%A9%0A");
    }

    #[test]
    fn who_refuses_and_why_is_one_item_of_a_structured_list() {
        for (error, detail, value) in [
            ("http_request_denied", "no", r#"broker; error=http_request_denied; details="no""#),
            ("http_request_error", "", r#"broker; error=http_request_error; status-code=409; details="""#),
            ("x", "a \"b\" \\ \u{e9}\n", r#"broker; error=x; details="a \"b\" \\ ""#),
        ] {
            assert_eq!(story(error, detail).proxy_status().unwrap(), value);
        }
    }

    #[test]
    fn both_forms_say_the_same() {
        let story = story("http_request_denied", "no");
        let (http, grpc) = (story.http(), story.grpc());
        assert_eq!((http.status(), grpc.status()), (StatusCode::CONFLICT, StatusCode::OK));
        assert_eq!(http.headers()[PROXY_STATUS], grpc.headers()[PROXY_STATUS]);
        let document: Value = serde_json::from_str(http.body()).unwrap();
        assert_eq!(document["instance"], "r");
        let details = STANDARD_NO_PAD.decode(&grpc.headers()["grpc-status-details-bin"]).unwrap();
        for word in ["ID_IN_USE", "meshwork", "subject", "broker", "request_id"] {
            assert!(String::from_utf8_lossy(&details).contains(word), "{word}");
        }
    }
}
