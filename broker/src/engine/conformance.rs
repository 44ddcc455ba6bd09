//! The first conformance list: what every engine must do, as one function over a way to open one. What it must do on a disk that is full, or under
//! a machine that stops, is in [`faults`]; an engine's own tests add what only it can do.

pub mod faults;

use bytes::Bytes;
use model::config::Durability;
use model::position::Position;

use super::{Engine, Error, Room};

/// How many bytes may wait for a commit at most.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// Opens the same engine again, after the one before was dropped.
pub type Open<'a> = &'a mut dyn FnMut() -> Box<dyn Engine>;

/// Holds an engine to the list. `open` must begin with an empty one.
///
/// # Panics
/// Where the engine does not do what it must.
pub fn check(open: Open<'_>) {
    positions_follow_each_other_and_read_back(open);
    what_may_wait_is_bounded_and_what_was_taken_stays(open);
    what_was_answered_is_there_after_a_restart(open);
    what_is_released_is_gone_and_the_rest_stays(open);
}

fn record(number: u64) -> Bytes {
    Bytes::from(format!("record {number}"))
}

fn append(engine: &mut dyn Engine, numbers: std::ops::Range<u64>, durability: Durability) -> Position {
    let mut first = None;
    for number in numbers {
        match engine.append(&record(number), Room::Plain) {
            Ok(position) => first = first.or(Some(position)),
            Err(error) => panic!("{durability:?}: {error}"),
        }
    }
    match (first, engine.commit(durability)) {
        (Some(first), Ok(())) => first,
        other => panic!("{durability:?}: {other:?}"),
    }
}

fn positions_follow_each_other_and_read_back(open: Open<'_>) {
    let mut engine = open();
    let capabilities = engine.capabilities();
    let reader = engine.reader();
    let mut next = engine.usage().next;
    for (durability, has) in [(Durability::Sync, capabilities.sync), (Durability::Os, capabilities.os)] {
        if !has {
            continue;
        }
        for count in [1, 3, 100] {
            let first = append(&mut *engine, 0..count, durability);
            assert!(first >= next, "positions only grow");
            for number in 0..count {
                let read = reader.read(Position(first.0 + number));
                assert_eq!(read.ok(), Some(record(number)), "{durability:?}: what was answered can be read");
            }
            next = engine.usage().next;
            assert_eq!(next, Position(first.0 + count), "positions follow each other");
        }
    }
    assert!(matches!(reader.read(next), Err(Error::Absent(_))), "what was not written is absent");
    let large = Bytes::from(vec![7; 1 << 20]);
    match engine.append(&large, Room::Plain).and_then(|at| engine.commit(Durability::Sync).map(|()| at)) {
        Ok(at) => assert_eq!(reader.read(at).ok(), Some(large)),
        Err(error) => panic!("a record of a MiB: {error}"),
    }
}

fn what_may_wait_is_bounded_and_what_was_taken_stays(open: Open<'_>) {
    let mut engine = open();
    let large = |number: usize| Bytes::from(vec![number as u8; 1 << 20]);
    let mut taken = Vec::new();
    loop {
        assert!(taken.len() << 20 <= WAITING_BYTES_MAX, "what may wait for a commit is bounded");
        match engine.append(&large(taken.len()), Room::Plain) {
            Ok(at) => taken.push(at),
            Err(Error::Backlog) => break,
            Err(error) => panic!("as much as may waits, and that is: {error}"),
        }
    }
    let next = engine.usage().next;
    assert_eq!(taken.last().map(|last| last.0 + 1), Some(next.0), "what is refused takes no position");
    let committed = engine.commit(Durability::Sync);
    assert!(committed.is_ok(), "{committed:?}");
    for (number, at) in taken.into_iter().enumerate() {
        assert!(engine.reader().read(at).is_ok_and(|read| read == large(number)), "what was taken is written: at {at}");
    }
    assert_eq!(append(&mut *engine, 0..1, Durability::Sync), next, "after the commit it takes more");
}

fn what_was_answered_is_there_after_a_restart(open: Open<'_>) {
    let first = append(&mut *open(), 0..10, Durability::Sync);
    let mut engine = open();
    let mut seen = Vec::new();
    let replayed = engine.replay(first, &mut |position, bytes| seen.push((position, Bytes::copy_from_slice(bytes))));
    assert!(replayed.is_ok(), "{replayed:?}");
    let expected: Vec<_> = (0..10).map(|number| (Position(first.0 + number), record(number))).collect();
    assert_eq!(seen, expected, "replay gives what was written, in order, from where it is asked to");
    assert!(append(&mut *engine, 0..1, Durability::Sync) > Position(first.0 + 9), "positions grow across a restart");
}

fn what_is_released_is_gone_and_the_rest_stays(open: Open<'_>) {
    let mut engine = open();
    let reader = engine.reader();
    let first = append(&mut *engine, 0..1, Durability::Sync);
    let segments = [(); 3].map(|()| {
        let begun = engine.begin_segment();
        assert!(begun.is_ok(), "{begun:?}");
        append(&mut *engine, 0..5, Durability::Sync)
    });
    let [kept, hole, last] = segments;
    let firsts = |engine: &dyn Engine| engine.usage().segments.iter().map(|segment| segment.first).collect::<Vec<_>>();
    assert!(segments.iter().all(|segment| firsts(&*engine).contains(segment)), "a segment was begun where it should");
    let released = engine.release(&[hole, last]);
    assert!(released.is_ok(), "{released:?}");
    assert!(!firsts(&*engine).contains(&hole) && firsts(&*engine).contains(&last), "never the last");
    drop((reader, engine));
    let engine = open();
    for number in 0..5 {
        let read = |segment: Position| engine.reader().read(Position(segment.0 + number));
        assert_eq!((read(kept).ok(), read(last).ok()), (Some(record(number)), Some(record(number))), "the rest stays");
        assert!(matches!(read(hole), Err(Error::Absent(_))), "what was released is gone");
    }
    let mut replayed = Vec::new();
    assert!(engine.replay(first, &mut |position, _| replayed.push(position.0)).is_ok());
    let expected: Vec<u64> = (first.0..hole.0).chain(last.0..last.0 + 5).collect();
    assert_eq!(replayed, expected, "replay passes over it");
}
