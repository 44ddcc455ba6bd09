//! The second conformance list: what every engine must do when its disk is full, and what it must have kept when its machine stops. An engine is
//! held to it on a disk that can be made to do both.

use bytes::Bytes;
use model::config::Durability;
use model::position::Position;

use super::{append, record};
use crate::engine::{Engine, Error, Room};

/// How many ways to stop are tried.
const SEEDS: u64 = 50;
/// How many small records a rig's disk has room for at most once it is full: it should be small.
const RECORDS_MAX: u64 = 100_000;
/// How often a record is refused at most when there is room again: an engine need not ask its disk each time.
const REFUSALS_MAX: u64 = 100;

/// An engine, and the disk under it.
pub trait Rig {
    /// Opens the engine, after the one before was dropped.
    fn open(&mut self) -> Box<dyn Engine>;
    /// From now on the disk has no more room.
    fn fill(&mut self);
    /// It has room again.
    fn relieve(&mut self);
    /// The machine stops. What is left of what was not synced, the seed decides.
    fn crash(&mut self, seed: u64);
}

/// What an engine should hold.
type Records = Vec<(Position, Bytes)>;

/// Holds an engine to the list. `make` gives an empty one each time.
///
/// # Panics
/// Where the engine does not do what it must.
pub fn check(make: &mut dyn FnMut() -> Box<dyn Rig>) {
    a_full_disk_refuses_what_is_new_and_takes_what_lets_go(&mut *make());
    what_does_not_fit_is_there_whole_or_not_at_all(&mut *make());
    (0..SEEDS).for_each(|seed| a_crash_leaves_what_was_committed_and_nothing_torn(&mut *make(), seed));
}

fn sure<T>(result: Result<T, Error>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}

/// Appends records; they wait for a commit.
fn put(engine: &mut dyn Engine, numbers: std::ops::Range<u64>, records: &mut Records) {
    for number in numbers {
        let at = sure(engine.append(&record(number), Room::Plain), "append");
        records.push((at, record(number)));
    }
}

fn held(engine: &dyn Engine, from: Position) -> Records {
    let mut held = Vec::new();
    let mut visit = |at, bytes: &[u8]| held.push((at, Bytes::copy_from_slice(bytes)));
    sure(engine.replay(from, &mut visit), "replay");
    held
}

fn check_holds(engine: &dyn Engine, records: &Records, what: &str) {
    let first = records.first().map_or(Position(0), |(at, _)| *at);
    assert_eq!(&held(engine, first), records, "{what}");
    for (at, record) in records {
        assert_eq!(engine.reader().read(*at).ok().as_ref(), Some(record), "{what}: at {at}");
    }
}

/// Room that has come back is used without a restart.
fn check_goes_on(engine: &mut dyn Engine, records: &mut Records) {
    let refused = (0..=REFUSALS_MAX).find_map(|_| engine.append(&record(0), Room::Plain).ok());
    let Some(at) = refused else { panic!("there is room again, and it refuses still") };
    records.push((at, record(0)));
    sure(engine.commit(Durability::Sync), "there is room again");
    check_holds(engine, records, "there is room again");
}

fn a_full_disk_refuses_what_is_new_and_takes_what_lets_go(rig: &mut dyn Rig) {
    let (mut engine, mut records) = (rig.open(), Records::new());
    put(&mut *engine, 0..1, &mut records);
    sure(engine.commit(Durability::Sync), "commit");
    rig.fill();
    let full = (1..RECORDS_MAX).find(|number| match engine.append(&record(*number), Room::Plain) {
        Ok(at) => {
            records.push((at, record(*number)));
            sure(engine.commit(Durability::Sync), "what was taken has room");
            false
        }
        Err(Error::Full(_)) => true,
        Err(error) => panic!("a full disk is Full, not: {error}"),
    });
    assert!(full.is_some(), "a full disk refuses at last");
    let next = engine.usage().next;
    assert_eq!(records.last().map(|(at, _)| at.0 + 1), Some(next.0), "what is refused takes no position");
    for _ in 0..REFUSALS_MAX {
        let again = engine.append(&record(0), Room::Plain);
        assert!(matches!(again, Err(Error::Full(_))), "it stays full: {again:?}");
    }
    sure(engine.commit(Durability::Sync), "a refusal leaves nothing that could fail");
    assert!(engine.usage().bytes_left.is_some(), "it says that room is short");
    check_holds(&*engine, &records, "what is refused changes nothing");
    let let_go = Bytes::from_static(b"let go");
    for what in ["the reserve is for what lets go", "also after a restart"] {
        let at = sure(engine.append(&let_go, Room::Reserve), what);
        assert!(records.last().is_some_and(|(last, _)| *last < at), "{what}");
        sure(engine.commit(Durability::Sync), what);
        records.push((at, let_go.clone()));
        check_holds(&*engine, &records, what);
        drop(engine);
        engine = rig.open();
        check_holds(&*engine, &records, "opened again while the disk is full");
    }
    rig.relieve();
    check_goes_on(&mut *engine, &mut records);
}

/// A record, or what gathered for a commit, may be larger than what an engine takes of its disk at a time.
fn what_does_not_fit_is_there_whole_or_not_at_all(rig: &mut dyn Rig) {
    let (mut engine, mut records) = (rig.open(), Records::new());
    put(&mut *engine, 0..100, &mut records);
    sure(engine.commit(Durability::Sync), "commit");
    rig.fill();
    for bytes in [1 << 10, 4 << 10, 64 << 10, 1 << 20] {
        let (next, large) = (engine.usage().next, Bytes::from(vec![7; bytes]));
        let taken = engine.append(&large, Room::Plain);
        match taken.and_then(|at| engine.commit(Durability::Sync).map(|()| at)) {
            Ok(at) => records.push((at, large)),
            Err(Error::Full(_)) => assert_eq!(engine.usage().next, next, "{bytes} bytes that were dropped"),
            Err(error) => panic!("{bytes} bytes: a full disk is Full, not: {error}"),
        }
        check_holds(&*engine, &records, "a full disk drops nothing that it has taken");
    }
    rig.relieve();
    check_goes_on(&mut *engine, &mut records);
    drop(engine);
    check_holds(&*rig.open(), &records, "after a restart");
}

fn a_crash_leaves_what_was_committed_and_nothing_torn(rig: &mut dyn Rig, seed: u64) {
    let (mut engine, mut records) = (rig.open(), Records::new());
    let capabilities = engine.capabilities();
    for numbers in [0..1, 1..150, 150..157] {
        put(&mut *engine, numbers, &mut records);
        sure(engine.commit(Durability::Sync), "commit");
    }
    let synced = records.len();
    if capabilities.os {
        put(&mut *engine, 200..230, &mut records);
        sure(engine.commit(Durability::Os), "commit");
    }
    let committed = records.len();
    put(&mut *engine, 300..305, &mut records);
    let early = engine.reader().read(records[committed].0);
    assert!(matches!(early, Err(Error::Absent(_))), "what was not committed cannot be read: {early:?}");
    rig.crash(seed);
    drop(engine);
    let mut engine = rig.open();
    let left = held(&*engine, records[0].0);
    assert!(left.len() >= synced, "seed {seed}: of {synced} synced records {} are left", left.len());
    assert!(records.starts_with(&left), "seed {seed}: the rest is a beginning of what was appended, each record whole");
    if capabilities.atomic_batches {
        assert!([synced, committed, records.len()].contains(&left.len()), "seed {seed}: batches are whole");
    }
    let last = left.last().map(|(at, _)| *at);
    assert!(Some(append(&mut *engine, 0..1, Durability::Sync)) > last, "seed {seed}: positions grow across a crash");
}
