//! Every row of the table.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn status(status: u16) -> Ending {
    Ending::Status { status, come_again: false }
}

fn grpc_status(status: u8) -> Ending {
    Ending::Grpc { status, come_again: false }
}

/// Holds each ending once; a new one does not compile until it has a row here.
fn named(ending: Ending) -> Outcome {
    match ending {
        Ending::NotConnected => Outcome::LOCAL_FAULT,
        Ending::ConnectTimeout => Outcome::LOCAL_FAULT,
        Ending::Handshake => Outcome::LOCAL_FAULT,
        Ending::OwnMeans => Outcome::Unknown,
        Ending::Full => Outcome::Overloaded,
        Ending::IdleClosed => Outcome::Unknown,
        Ending::GoneAway => Outcome::Unknown,
        Ending::Broken => Outcome::LOCAL_FAULT,
        Ending::BrokenWithOthers => Outcome::Unknown,
        Ending::CutShort => Outcome::LOCAL_FAULT,
        Ending::Unreadable => Outcome::UPSTREAM_FAULT,
        Ending::HeadTooLong => Outcome::Served,
        Ending::NotPassedOn => Outcome::Served,
        Ending::Timeout => Outcome::LOCAL_FAULT,
        Ending::LeftoverTimeout => Outcome::Unanswered,
        Ending::ClientDeadline => Outcome::Unanswered,
        Ending::ClientSlow => Outcome::Unknown,
        Ending::ClientBody => Outcome::Unknown,
        Ending::ClientLeft => Outcome::Unknown,
        Ending::NoGrpcStatus => Outcome::Served,
        Ending::Peer(Peer::Busy) => Outcome::Overloaded,
        Ending::Peer(Peer::NotReached) => Outcome::LOCAL_FAULT,
        Ending::Peer(Peer::Broken) => Outcome::LOCAL_FAULT,
        Ending::Peer(Peer::Late) => Outcome::LOCAL_FAULT,
        Ending::Peer(Peer::NotPassedOn) => Outcome::Served,
        Ending::Peer(Peer::Request) => Outcome::Served,
        // In tables of their own below.
        Ending::Reset(_) | Ending::Status { .. } | Ending::Grpc { .. } => outcome(ending),
    }
}

#[test]
fn each_ending_has_its_row() {
    for ending in [
        Ending::NotConnected,
        Ending::ConnectTimeout,
        Ending::Handshake,
        Ending::OwnMeans,
        Ending::Full,
        Ending::IdleClosed,
        Ending::GoneAway,
        Ending::Broken,
        Ending::BrokenWithOthers,
        Ending::CutShort,
        Ending::Unreadable,
        Ending::HeadTooLong,
        Ending::NotPassedOn,
        Ending::Timeout,
        Ending::LeftoverTimeout,
        Ending::ClientDeadline,
        Ending::ClientSlow,
        Ending::ClientBody,
        Ending::ClientLeft,
        Ending::NoGrpcStatus,
        Ending::Peer(Peer::Busy),
        Ending::Peer(Peer::NotReached),
        Ending::Peer(Peer::Broken),
        Ending::Peer(Peer::Late),
        Ending::Peer(Peer::NotPassedOn),
        Ending::Peer(Peer::Request),
    ] {
        assert_eq!(outcome(ending), named(ending), "{ending:?}");
    }
}

#[test]
fn of_statuses_only_the_server_s_faults_are_the_server_s() {
    for (code, expected) in [
        (200, Outcome::Served),
        (302, Outcome::Served),
        (400, Outcome::Served),
        (403, Outcome::Served),
        (404, Outcome::Served),
        (408, Outcome::Served),
        (413, Outcome::Served),
        (429, Outcome::Overloaded),
        (431, Outcome::Served),
        (499, Outcome::Served),
        (500, Outcome::UPSTREAM_FAULT),
        (501, Outcome::Served),
        (502, Outcome::Dependency),
        (503, Outcome::UPSTREAM_FAULT),
        (504, Outcome::Dependency),
        (505, Outcome::Served),
        (506, Outcome::Served),
        (507, Outcome::Overloaded),
        (508, Outcome::Served),
        (510, Outcome::Served),
        (511, Outcome::Served),
        (520, Outcome::UPSTREAM_FAULT),
        (599, Outcome::UPSTREAM_FAULT),
        (600, Outcome::Served),
    ] {
        assert_eq!(outcome(status(code)), expected, "{code}");
    }
    for code in [429, 500, 502, 503, 507] {
        let asks = outcome(Ending::Status { status: code, come_again: true });
        let expected = if code == 503 { Outcome::Overloaded } else { outcome(status(code)) };
        assert_eq!(asks, expected, "{code}");
    }
}

#[test]
fn of_grpc_statuses_too() {
    for (code, expected) in [
        (code::OK, Outcome::Served),
        (code::CANCELLED, Outcome::Unknown),
        (code::UNKNOWN, Outcome::Served),
        (code::DEADLINE_EXCEEDED, Outcome::UPSTREAM_FAULT),
        (code::PERMISSION_DENIED, Outcome::Served),
        (code::RESOURCE_EXHAUSTED, Outcome::Overloaded),
        (code::UNIMPLEMENTED, Outcome::Served),
        (code::INTERNAL, Outcome::UPSTREAM_FAULT),
        (code::UNAVAILABLE, Outcome::UPSTREAM_FAULT),
        (code::DATA_LOSS, Outcome::UPSTREAM_FAULT),
        (200, Outcome::Served),
    ] {
        assert_eq!(outcome(grpc_status(code)), expected, "{code}");
        assert_eq!(is_grpc_failure(code), matches!(expected, Outcome::Fault(_)), "{code}");
    }
    let unavailable = Ending::Grpc { status: code::UNAVAILABLE, come_again: true };
    assert_eq!(outcome(unavailable), Outcome::Overloaded);
}

#[test]
fn a_reset_is_the_endpoint_s_unless_its_code_says_otherwise() {
    for (code, expected) in [
        (0x0, Outcome::LOCAL_FAULT),
        (0x1, Outcome::Unknown),
        (0x2, Outcome::LOCAL_FAULT),
        (0x3, Outcome::LOCAL_FAULT),
        (0x4, Outcome::LOCAL_FAULT),
        (0x5, Outcome::LOCAL_FAULT),
        (0x6, Outcome::LOCAL_FAULT),
        (0x7, Outcome::Overloaded),
        (0x8, Outcome::LOCAL_FAULT),
        (0x9, Outcome::LOCAL_FAULT),
        (0xa, Outcome::LOCAL_FAULT),
        (0xb, Outcome::Overloaded),
        (0xc, Outcome::LOCAL_FAULT),
        (0xd, Outcome::Unknown),
        (0xffff, Outcome::LOCAL_FAULT),
    ] {
        assert_eq!(outcome(Ending::Reset(code)), expected, "{code:#x}");
    }
}

#[test]
fn a_peer_is_read_by_the_name_of_its_error() {
    for (error, expected) in [
        ("connection_limit_reached", Peer::Busy),
        ("connection_refused", Peer::NotReached),
        ("destination_unavailable", Peer::NotReached),
        ("proxy_configuration_error", Peer::NotReached),
        ("connection_terminated", Peer::Broken),
        ("http_response_timeout", Peer::Late),
        ("connection_write_timeout", Peer::Late),
        ("http_response_header_section_size", Peer::NotPassedOn),
        ("http_response_transfer_coding", Peer::NotPassedOn),
        ("http_upgrade_failed", Peer::NotPassedOn),
        ("http_request_error", Peer::Request),
        ("http_request_denied", Peer::Request),
        ("destination_not_found", Peer::Request),
        ("", Peer::Request),
    ] {
        assert_eq!(peer(error), expected, "{error}");
    }
}

#[test]
fn who_is_late_is_whoever_took_more_of_the_time() {
    for (bound, client, expected) in [
        (Bound::Route, Duration::ZERO, Ending::Timeout),
        (Bound::Route, SECOND / 2, Ending::Timeout),
        (Bound::Route, SECOND * 3 / 4, Ending::ClientSlow),
        (Bound::Leftover, Duration::ZERO, Ending::LeftoverTimeout),
        (Bound::Client, Duration::ZERO, Ending::ClientDeadline),
        (Bound::Client, SECOND, Ending::ClientSlow),
    ] {
        assert_eq!(late(bound, SECOND, client), expected, "{bound:?} {client:?}");
    }
    for (ending, took, client, expected) in [
        // A body that is a moment behind its head excuses nothing.
        (Ending::Broken, SECOND / 100, SECOND / 100, Ending::Broken),
        (Ending::Broken, SECOND * 5, SECOND * 5, Ending::ClientSlow),
        (Ending::Reset(2), SECOND * 5, SECOND * 5, Ending::ClientSlow),
        (Ending::Peer(Peer::Broken), SECOND * 5, SECOND * 5, Ending::ClientSlow),
        (Ending::Broken, SECOND * 5, SECOND, Ending::Broken),
        (Ending::NotConnected, SECOND * 5, SECOND * 5, Ending::NotConnected),
        (Ending::IdleClosed, SECOND / 100, Duration::ZERO, Ending::IdleClosed),
        (Ending::IdleClosed, SECOND * 5, Duration::ZERO, Ending::Broken),
        (Ending::IdleClosed, SECOND * 5, SECOND * 5, Ending::ClientSlow),
    ] {
        assert_eq!(broke_off(ending, took, client), expected, "{ending:?} {took:?} {client:?}");
    }
}
