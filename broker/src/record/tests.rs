//! Records read back, those of earlier versions too.

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn assigned(fence: u64) -> Record {
    let messages = vec![(Position(128), Attempts { assigned: 300, failed: 2 })];
    Record::Assigned { group: Group::Queue(name("work")), consumer: name("worker"), fence, messages }
}

fn every_record() -> Vec<Record> {
    let group = Group::Subscription { topic: name("orders"), name: name("mailer") };
    let queue = Group::Queue(name("work"));
    let attempts = Attempts { assigned: 300, failed: 2 };
    let published = Published {
        destination: Destination::Topic(name("orders")),
        publisher: Subject::Service(name("shop")),
        published_ms: 1_700_000_000_000,
        expires_ms: Some(u64::MAX),
        key: Some(0x0123_4567_89ab_cdef),
        identity: Some(Identity { id: u128::MAX - 1, check: 7 }),
    };
    let bare = Published {
        destination: Destination::Queue(name("work")),
        publisher: Subject::ControlPlane,
        published_ms: 0,
        expires_ms: None,
        key: None,
        identity: None,
    };
    let positions = vec![Position(1), Position(u64::MAX)];
    vec![
        Record::Published(published.clone()),
        Record::Published(bare),
        Record::Carried { position: Position(9), published },
        assigned(0x0123_4567_89ab_cdef),
        Record::Settled { group: group.clone(), positions: positions.clone() },
        Record::Redriven { group: group.clone(), positions: positions.clone() },
        Record::Forgotten { group: queue.clone(), positions },
        Record::Again { group: group.clone(), position: Position(3), attempts, due_ms: 5 },
        Record::Dead { group, position: Position(3), attempts, reason: "why".into(), died_ms: 6 },
        Record::Subscribed { topic: name("orders"), name: name("mailer"), from: Position(0) },
        Record::Sought { topic: name("orders"), name: name("mailer"), to: Position(77) },
        Record::Paused { topic: name("orders"), name: name("mailer"), paused: true },
        Record::Checkpoint { part: 2, last: true, bytes: vec![1, 2, 3] },
    ]
}

#[test]
fn every_record_reads_back() {
    for record in every_record() {
        let bytes = record.write();
        assert_eq!(Record::read(&bytes), Ok((record, &[][..])));
    }
}

#[test]
fn an_event_stands_behind_its_record() {
    let event = api::broker::Event { id: "7".into(), data: "data".into(), ..Default::default() };
    let Some(Record::Published(header)) = every_record().into_iter().next() else { unreachable!() };
    let bytes = published(&header, &event);
    let (record, rest) = Record::read(&bytes).unwrap();
    assert_eq!(record, Record::Published(header));
    assert_eq!(api::convert::event::read(bytes.slice_ref(rest)).unwrap(), event);
}

#[test]
fn a_record_that_is_cut_is_refused() {
    for record in every_record() {
        if matches!(record, Record::Checkpoint { .. }) {
            continue;
        }
        let bytes = record.write();
        for end in 0..bytes.len() {
            assert!(Record::read(&bytes[..end]).is_err(), "{record:?} cut at {end}");
        }
    }
    assert_eq!(Record::read(&[99]), Err(Error::Tag(99)));
}

/// As a line of hexadecimal digits.
pub(crate) fn unhex(line: &str) -> Vec<u8> {
    let byte = |index: usize| u8::from_str_radix(&line[index..index + 2], 16).unwrap();
    (0..line.len()).step_by(2).map(byte).collect()
}

/// What version 1 has written must be read by every later one.
#[test]
fn records_of_version_1_are_read() {
    let lines: Vec<&str> = include_str!("records-1.hex").lines().collect();
    let records = every_record();
    assert_eq!(lines.len(), records.len());
    for (line, record) in lines.into_iter().zip(records) {
        let bytes = unhex(line);
        assert_eq!(Record::read(&bytes), Ok((record.clone(), &[][..])), "{line}");
        assert_eq!(record.write(), bytes, "a changed layout needs a new tag: {record:?}");
    }
}

#[test]
fn an_assignment_without_its_fence_is_read() {
    let bytes = unhex("030004776f726b06776f726b6572018001ac0202");
    assert_eq!(Record::read(&bytes), Ok((assigned(0), &[][..])));
}
