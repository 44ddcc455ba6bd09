//! Events in headers and in JSON read back.

use api::broker::Event;

use super::*;

fn event(media_type: Option<&str>, data: &'static [u8]) -> Event {
    Event {
        id: "7".into(),
        source: "/orders".into(),
        r#type: "order.placed".into(),
        subject: Some("50 % \"Käse\"".into()),
        data_content_type: media_type.map(str::to_owned),
        extensions: [("partitionkey".to_owned(), "k 1".to_owned())].into(),
        data: data.into(),
        ..Event::default()
    }
}

#[test]
fn headers_carry_every_text() {
    let written = event(Some("text/plain"), b"hello");
    let mut headers = ::http::HeaderMap::new();
    http::write(&written, &mut headers).unwrap();
    assert_eq!(headers["ce-subject"], "50%20%25%20%22K%C3%A4se%22");
    let mut read = http::read(&headers).unwrap();
    read.data = written.data.clone();
    assert_eq!(read, written);
}

#[test]
fn json_carries_every_kind_of_data() {
    for (media_type, data, expected) in [
        (Some("application/json"), &b"{\"a\":[1,2]}"[..], r#""data":{"a":[1,2]}"#),
        (Some("application/vnd.x+json; charset=utf-8"), b"7", r#""data":7"#),
        (Some("text/plain"), b"hello", r#""data":"hello""#),
        // Byte for byte: the digits of numbers, the order of members, the spaces between them, and what is said twice.
        (
            Some("application/json"),
            b"{\"z\":19.90,\"a\":12345678901234567890123}",
            r#""data":{"z":19.90,"a":12345678901234567890123}"#,
        ),
        (Some("application/json"), b"{ \"a\" : 1.0e2,\n\"a\":-0.0 }", "\"data\":{ \"a\" : 1.0e2,\n\"a\":-0.0 }"),
        (Some("application/json"), b"\"\\u00e4\"", r#""data":"\u00e4""#),
        (Some("application/json"), b"not json", r#""data_base64":"bm90IGpzb24=""#),
        (Some("image/png"), b"\x00\xff", r#""data_base64":"AP8=""#),
        (None, b"\x00\xff", r#""data_base64":"AP8=""#),
    ] {
        let written = event(media_type, data);
        let text = serde_json::to_string(&json::Object(&written)).unwrap();
        assert!(text.contains(expected), "{text}");
        assert_eq!(json::read(text.as_bytes()).unwrap(), written, "{text}");
        assert_eq!(json::read_batch(format!("[{text},{text}]").as_bytes()).unwrap().len(), 2);
    }
}

#[test]
fn what_is_no_event_is_told_why() {
    for (text, why) in [
        ("{", "the body is no event"),
        (r#"{"specversion":"0.3"}"#, "specversion"),
        (r#"{"id":{}}"#, "id"),
        (r#"{"data":1,"data_base64":"AA=="}"#, "not both"),
        (r#"{"data_base64":"?"}"#, "data_base64"),
    ] {
        let mut batch = json::read_batch(format!("[{text}]").as_bytes());
        if let Ok(events) = &mut batch {
            assert!(events.remove(0).unwrap_err().0.contains(why), "{text}");
        }
        let error = json::read(text.as_bytes()).unwrap_err();
        assert!(error.0.contains(why), "{text}: {error}");
    }
}
