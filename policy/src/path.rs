//! The normal form of a request's path, before any rule looks at it, and the form that goes upstream: so that no rule can be
//! passed by writing a path in another way (RFC 3986 §6.2.2; Envoy edge best practices).
//!
//! What this leaves alone: the query, letters' case, `%2F` and `%5C` (they stay encoded: a slash inside of a segment is
//! not a separator), parameters such as `;v=1`.

use std::borrow::Cow;

/// Why a path is refused (400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not begin with `/`.
    #[error("the path does not begin with '/'")]
    Relative,
    /// A `%` without two hexadecimal digits.
    #[error("a '%' in the path is not followed by two hexadecimal digits")]
    Escape,
    /// A control character or NUL, raw or encoded; a raw backslash, space, `?` or `#`.
    #[error("the path holds the character {0:#04x}, raw or encoded, which no path may hold")]
    Character(u8),
}

/// Brings a path (without its query) into its normal form, borrowing it when it has that form already.
///
/// Encoded unreserved characters are decoded, the remaining escapes get upper-case digits, repeated slashes are merged, and
/// then dot segments are removed (RFC 3986 §5.2.4: above the root is the root). `*` (RFC 9112 §3.2.4) stays, the empty
/// path becomes `/`. Bringing the result into its normal form again changes nothing.
///
/// # Errors
/// When the path is relative, an escape is broken, or a character is one that servers read in different ways.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, Error> {
    match path.as_bytes() {
        b"" => return Ok(Cow::Borrowed("/")),
        b"*" => return Ok(Cow::Borrowed(path)),
        [b'/', ..] => {}
        _ => return Err(Error::Relative),
    }
    if is_plain(path)? { Ok(Cow::Borrowed(path)) } else { rewrite(path).map(Cow::Owned) }
}

/// Whether nothing in the path can need a change: no escape, no empty segment, no segment that begins with a dot.
fn is_plain(path: &str) -> Result<bool, Error> {
    let (mut plain, mut last) = (true, 0);
    for &byte in path.as_bytes() {
        refuse(byte, b" \\?#")?;
        plain &= byte != b'%' && !(last == b'/' && matches!(byte, b'/' | b'.'));
        last = byte;
    }
    Ok(plain)
}

fn refuse(byte: u8, others: &[u8]) -> Result<(), Error> {
    if byte.is_ascii_control() || others.contains(&byte) { Err(Error::Character(byte)) } else { Ok(()) }
}

fn rewrite(path: &str) -> Result<String, Error> {
    let decoded = decode(path)?;
    let mut out = String::with_capacity(decoded.len());
    let mut segments = decoded.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | "" => {}
            ".." => out.truncate(out.rfind('/').unwrap_or(0)),
            _ => {
                out.push('/');
                out.push_str(segment);
                continue;
            }
        }
        // What ends in an empty or a dot segment names a folder, and keeps its slash.
        if is_last {
            out.push('/');
        }
    }
    Ok(out)
}

/// Decodes unreserved characters and writes the digits of the other escapes in upper case.
fn decode(path: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let digits = after.get(..2).ok_or(Error::Escape)?;
        let byte = hexadecimal(digits).ok_or(Error::Escape)?;
        refuse(byte, b"")?;
        if is_unreserved(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.extend(digits.chars().map(|digit| digit.to_ascii_uppercase()));
        }
        rest = &after[2..];
    }
    out.push_str(rest);
    Ok(out)
}

fn hexadecimal(digits: &str) -> Option<u8> {
    // `from_str_radix` alone would also take a sign.
    let all = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    all.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// RFC 3986 §2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_way_of_writing_a_path_has_one_form() {
        for (path, normal) in [
            ("", "/"),
            ("*", "*"),
            ("/", "/"),
            ("//", "/"),
            ("///", "/"),
            ("/a/b", "/a/b"),
            ("/a//b", "/a/b"),
            ("//a///b//", "/a/b/"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/a/b/../", "/a/"),
            ("/..", "/"),
            ("/../..//../a", "/a"),
            ("/.", "/"),
            ("/./", "/"),
            ("/a//../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/%2e%2e%2fa", "/..%2Fa"),
            ("/.hidden", "/.hidden"),
            ("/a/...", "/a/..."),
            ("/a/..b", "/a/..b"),
            ("/a.b/c..", "/a.b/c.."),
            ("/%61%2d%7E", "/a-~"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%5cb", "/a%5Cb"),
            ("/a%25%32e", "/a%252e"),
            ("/a%252e", "/a%252e"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café", "/café"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/a%20b", "/a%20b"),
            ("/a%3Fb%23", "/a%3Fb%23"),
            ("/shop.Inventory/Reserve", "/shop.Inventory/Reserve"),
        ] {
            assert_eq!(normalise(path).as_deref(), Ok(normal), "{path}");
        }
    }

    #[test]
    fn what_servers_read_in_different_ways_is_refused() {
        for (path, error) in [
            ("a", Error::Relative),
            ("http://a/", Error::Relative),
            ("/%", Error::Escape),
            ("/%2", Error::Escape),
            ("/%zz", Error::Escape),
            ("/%+f", Error::Escape),
            ("/%é", Error::Escape),
            ("/%00", Error::Character(0)),
            ("/a%0d%0ab", Error::Character(13)),
            ("/a%7f", Error::Character(127)),
            ("/a\0", Error::Character(0)),
            ("/a\tb", Error::Character(9)),
            ("/a b", Error::Character(32)),
            ("/a\\..\\b", Error::Character(92)),
            ("/a?b", Error::Character(63)),
            ("/a#b", Error::Character(35)),
        ] {
            assert_eq!(normalise(path), Err(error), "{path}");
        }
    }

    #[test]
    fn a_normal_path_is_borrowed() {
        for path in ["/", "/a/b", "/orders/17.json", "/v1/queues/fulfilment/messages"] {
            assert!(matches!(normalise(path), Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    proptest! {
        #[test]
        fn normal_means_normal(path in "/([ab./%]|%2[eEfF]|%5c|%4[1-9]|//|/\\./|/\\.\\./){0,24}") {
            if let Ok(normal) = normalise(&path) {
                prop_assert_eq!(normalise(&normal), Ok(normal.clone()));
                prop_assert!(normal.starts_with('/'));
                prop_assert!(!normal.contains("//"));
                prop_assert!(normal.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }

        #[test]
        fn any_text_gets_an_answer(path: String) {
            let _ = normalise(&path);
        }
    }
}
