//! What the errors of sockets and of the HTTP libraries come to, in the words of [`policy::classify`].

use std::io;

use h2::Reason;
use policy::classify::Ending;
use runtime::http::BoxError;

use super::dial::Unreachable;

/// Errors of the operating system that say that this process, or its machine, has no more of something: file descriptors
/// (ENFILE, EMFILE) or buffers (ENOBUFS on Linux). Rust has no kinds for them.
const OWN_MEANS: [i32; 3] = [23, 24, 105];

/// There is no connection.
pub(crate) fn unreachable(error: &Unreachable) -> Ending {
    match error {
        Unreachable::Resolve(..) | Unreachable::Refused => Ending::NotConnected,
        Unreachable::Timeout => Ending::ConnectTimeout,
        Unreachable::Connect(error) if is_of_own_means(error) => Ending::OwnMeans,
        Unreachable::Connect(_) => Ending::NotConnected,
        Unreachable::Tls(_) | Unreachable::Start(_) | Unreachable::Settings => Ending::Handshake,
        Unreachable::NoIdentity | Unreachable::Identity(_) => Ending::OwnMeans,
        Unreachable::FoundByAnother(_) => Ending::BrokenWithOthers,
    }
}

fn is_of_own_means(error: &io::Error) -> bool {
    let of_kind = matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory);
    of_kind || error.raw_os_error().is_some_and(|code| OWN_MEANS.contains(&code))
}

/// An HTTP/1.1 request got no answer.
pub(super) fn http1(error: &hyper::Error, reused: bool) -> Ending {
    if error.is_parse_too_large() {
        Ending::HeadTooLong
    } else if error.is_parse() {
        Ending::Unreadable
    } else if error.is_user() {
        Ending::ClientBody
    } else if reused {
        Ending::IdleClosed
    } else {
        Ending::Broken
    }
}

/// An HTTP/2 request got no answer. `idle`: nothing else was on the connection, which had carried requests before; `first`: no
/// other request was counted for the end of this connection.
pub(super) fn http2(error: &h2::Error, idle: bool, first: impl FnOnce() -> bool) -> Ending {
    match stream(error) {
        Some(ending) => ending,
        // h2 has one word for a head that is malformed and for one that is too long. Lists of fields are what grows.
        None if error.is_reset() && error.reason() == Some(Reason::PROTOCOL_ERROR) => Ending::HeadTooLong,
        None if error.is_reset() => Ending::Unreadable,
        None if error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR) => Ending::GoneAway,
        None if !first() => Ending::BrokenWithOthers,
        None if idle => Ending::IdleClosed,
        None => Ending::Broken,
    }
}

/// An answer broke off behind its head.
pub(crate) fn answer(error: &BoxError, first: impl FnOnce() -> bool) -> Ending {
    match error.downcast_ref::<h2::Error>() {
        Some(error) if !error.is_reset() && !first() => Ending::BrokenWithOthers,
        Some(error) => stream(error).unwrap_or(Ending::CutShort),
        None => Ending::CutShort,
    }
}

/// What ended one stream and left the connection as it was, where it was not h2 itself that found fault with the endpoint.
fn stream(error: &h2::Error) -> Option<Ending> {
    let reason = error.reason().filter(|_| error.is_reset())?;
    match (error.is_remote(), error.is_library()) {
        (true, _) => Some(Ending::Reset(reason.into())),
        (false, true) => None,
        // By this side, which resets a stream only for a request's body that broke.
        (false, false) => Some(Ending::ClientBody),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_this_process_lacks_is_not_the_endpoint_s() {
        for (error, expected) in [
            (io::Error::from_raw_os_error(24), Ending::OwnMeans),
            (io::Error::from_raw_os_error(23), Ending::OwnMeans),
            (io::ErrorKind::AddrNotAvailable.into(), Ending::OwnMeans),
            (io::ErrorKind::HostUnreachable.into(), Ending::NotConnected),
            (io::ErrorKind::ConnectionReset.into(), Ending::NotConnected),
        ] {
            let of = error.to_string();
            assert_eq!(unreachable(&Unreachable::Connect(error)), expected, "{of}");
        }
        for (error, expected) in [
            (Unreachable::Refused, Ending::NotConnected),
            (Unreachable::Timeout, Ending::ConnectTimeout),
            (Unreachable::Tls("who is this".to_owned()), Ending::Handshake),
            (Unreachable::NoIdentity, Ending::OwnMeans),
            (Unreachable::Identity("expired".to_owned()), Ending::OwnMeans),
            (Unreachable::Settings, Ending::Handshake),
            (Unreachable::FoundByAnother(Arc::new(Unreachable::Refused)), Ending::BrokenWithOthers),
        ] {
            assert_eq!(unreachable(&error), expected, "{error:?}");
        }
    }

    #[test]
    fn an_answer_that_ends_early_is_cut_short_unless_its_end_has_a_reason() {
        let reset: BoxError = h2::Error::from(Reason::INTERNAL_ERROR).into();
        assert_eq!(answer(&reset, || true), Ending::CutShort);
        assert_eq!(answer(&reset, || false), Ending::BrokenWithOthers);
        assert_eq!(answer(&"anything else".into(), || true), Ending::CutShort);
    }
}
