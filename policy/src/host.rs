//! The normal form of a request's authority (`Host`, `:authority`, CONNECT target), before routing and authorization.
//! Which service a host means, is left to the caller.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Longest host name in octets (RFC 1035 §2.3.4).
pub const HOST_LENGTH_MAX: usize = 253;

/// An authority in its normal form: lower case, no trailing dot, IPv6 in the form of RFC 5952 and without brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority<'a> {
    /// The host.
    pub host: Cow<'a, str>,
    /// The port, where one was written.
    pub port: Option<u16>,
}

/// Why an authority is refused (400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no host in it.
    #[error("the authority names no host")]
    Empty,
    /// The host is longer than [`HOST_LENGTH_MAX`].
    #[error("the host is longer than 253 octets")]
    Long,
    /// `user@host`, which RFC 9110 §4.2.4 tells to treat as an error.
    #[error("the authority carries user information")]
    UserInfo,
    /// Not a decimal number up to 65535.
    #[error("the port is not a number from 0 to 65535")]
    Port,
    /// Brackets around something that is not an IPv6 address, or an address without them.
    #[error("the authority holds a broken IPv6 literal")]
    Ipv6,
    /// A character that no host name holds; escapes too, which servers read in different ways.
    #[error("the host holds {0:?}, which no host name may hold")]
    Character(char),
    /// An empty label: `a..b`, `.a`.
    #[error("the host holds an empty label")]
    Label,
}

impl<'a> Authority<'a> {
    /// Reads an authority and brings it into its normal form.
    ///
    /// # Errors
    /// When it is no authority of HTTP (RFC 9110 §4.2, RFC 3986 §3.2).
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        if text.contains('@') {
            return Err(Error::UserInfo);
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (address, after) = rest.split_once(']').ok_or(Error::Ipv6)?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(port),
                None if after.is_empty() => None,
                None => return Err(Error::Ipv6),
            };
            return Ok(Self { host: ipv6(address)?, port: port.map_or(Ok(None), parse_port)? });
        }
        let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
        if port.is_some_and(|port| port.contains(':')) {
            return Err(Error::Ipv6);
        }
        Ok(Self { host: name(host)?, port: port.map_or(Ok(None), parse_port)? })
    }

    /// Whether it names the machine that it is said on: `localhost` (RFC 6761 §6.3), or an address of loopback.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        &*self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
    }

    /// The port, or the scheme's own (`http` 80, `https` 443) where none was written.
    #[must_use]
    pub fn port_or(&self, default: u16) -> u16 {
        self.port.unwrap_or(default)
    }
}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// An empty port is no port (RFC 3986 §3.2.3).
fn parse_port(digits: &str) -> Result<Option<u16>, Error> {
    if digits.is_empty() {
        return Ok(None);
    }
    // `parse` alone would also take a sign.
    let all = digits.bytes().all(|digit| digit.is_ascii_digit());
    if all { digits.parse().map(Some).map_err(|_| Error::Port) } else { Err(Error::Port) }
}

/// Zones (`%eth0`) mean something on one machine only, and `Ipv6Addr` does not read them.
fn ipv6(address: &str) -> Result<Cow<'_, str>, Error> {
    let normal = address.parse::<Ipv6Addr>().map_err(|_| Error::Ipv6)?.to_string();
    Ok(if normal == address { Cow::Borrowed(address) } else { Cow::Owned(normal) })
}

/// Underscores are no part of host names (RFC 1123 §2.1), yet container names carry them.
fn name(host: &str) -> Result<Cow<'_, str>, Error> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return Err(Error::Empty);
    }
    if host.len() > HOST_LENGTH_MAX {
        return Err(Error::Long);
    }
    let (mut upper, mut last) = (false, b'.');
    for (index, byte) in host.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'A'..=b'Z' => upper = true,
            b'.' if last == b'.' => return Err(Error::Label),
            b'.' => {}
            // Every byte before this one is ASCII, so a character begins here.
            _ => return Err(Error::Character(host[index..].chars().next().unwrap_or_default())),
        }
        last = byte;
    }
    if last == b'.' {
        return Err(Error::Label);
    }
    Ok(if upper { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_way_of_writing_an_authority_has_one_form() {
        for (text, host, port, normal) in [
            ("payments", "payments", None, "payments"),
            ("Payments.:80", "payments", Some(80), "payments:80"),
            ("tax.example.com:443", "tax.example.com", Some(443), "tax.example.com:443"),
            ("tax.example.com:", "tax.example.com", None, "tax.example.com"),
            ("127.0.0.1:8080", "127.0.0.1", Some(8080), "127.0.0.1:8080"),
            ("[::1]", "::1", None, "[::1]"),
            ("[2001:DB8:0:0::1]:8443", "2001:db8::1", Some(8443), "[2001:db8::1]:8443"),
            ("my_app", "my_app", None, "my_app"),
        ] {
            let authority = Authority::parse(text).unwrap();
            assert_eq!((authority.host.as_ref(), authority.port), (host, port), "{text}");
            assert_eq!(authority.to_string(), normal);
        }
    }

    #[test]
    fn what_names_this_machine() {
        for (text, expected) in [
            ("localhost", true),
            ("LocalHost.:8080", true),
            ("127.0.0.1:8080", true),
            ("127.8.7.6", true),
            ("[::1]:80", true),
            ("[::ffff:127.0.0.1]", true),
            ("localhost.example.com", false),
            ("127.0.0.1.example.com", false),
            ("0.0.0.0:80", false),
            ("10.0.0.1", false),
            ("[::]", false),
            ("sidecar", false),
        ] {
            assert_eq!(Authority::parse(text).unwrap().is_loopback(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        let long = "a".repeat(254);
        for (text, error) in [
            ("", Error::Empty),
            (".", Error::Empty),
            (":80", Error::Empty),
            (long.as_str(), Error::Long),
            ("user@host", Error::UserInfo),
            ("user:secret@host:80", Error::UserInfo),
            ("host:port", Error::Port),
            ("host:+1", Error::Port),
            ("host:65536", Error::Port),
            ("::1", Error::Ipv6),
            ("a:1:2", Error::Ipv6),
            ("[::1", Error::Ipv6),
            ("[::1]x", Error::Ipv6),
            ("[fe80::1%eth0]", Error::Ipv6),
            ("[127.0.0.1]", Error::Ipv6),
            ("a%2eb", Error::Character('%')),
            ("a b", Error::Character(' ')),
            ("a/b", Error::Character('/')),
            ("münchen", Error::Character('ü')),
            ("a..b", Error::Label),
            (".a", Error::Label),
            ("a..", Error::Label),
        ] {
            assert_eq!(Authority::parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn normal_means_normal(text in prop_oneof![
            "[aB1_-][aB1_-]{0,8}(\\.[aB1_-]{1,3}){0,2}\\.?(:[0-9]{0,5})?",
            "\\[[0-9A-Fa-f:]{0,3}::[0-9A-Fa-f:.]{0,3}\\](:[0-9]{0,5})?",
            "[aB1.:\\[\\]_%@-]{0,20}",
        ]) {
            if let Ok(authority) = Authority::parse(&text) {
                let written = authority.to_string();
                prop_assert_eq!(Authority::parse(&written), Ok(authority));
            }
        }
    }
}
