//! Whatever a crash takes, what was committed with a sync is there afterwards, in order, with a prefix of the rest behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use storage::disk::memory::{MemoryDisk, Operation};
use storage::log::{Level, Log, Options, SegmentInfo};

use crate::{FOLDER, open};

const SEGMENT_BYTES: u64 = 3_000;
const RESERVE_BYTES: u64 = 5_000;

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Commit(Level),
    /// Of the oldest segments those may go whose bit is set.
    Release(u8),
    /// Another thread gets to write zeros over the next segment.
    Fill,
    /// The process ends in order.
    End,
    /// The process dies, the machine does not.
    Kill,
    /// The machine dies.
    Crash(u64),
    /// The machine dies in the middle of what comes next: at the disk's n-th operation from here.
    CrashAt(Operation, u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let operation = prop_oneof![Just(Operation::Write), Just(Operation::Sync), Just(Operation::Allocate)];
    prop_oneof![
        8 => (0..900usize).prop_map(Step::Append),
        4 => Just(Step::Commit(Level::Sync)),
        2 => Just(Step::Commit(Level::Os)),
        1 => any::<u8>().prop_map(Step::Release),
        2 => Just(Step::Fill),
        1 => Just(Step::End),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::Crash),
        1 => (operation, 0..6u64, any::<u64>()).prop_map(|(operation, after, seed)| Step::CrashAt(operation, after, seed)),
    ]
}

/// A log and what must be in it.
struct Run {
    disk: MemoryDisk,
    log: Option<Log>,
    /// Every record that was appended, from sequence 1 on.
    written: Vec<Vec<u8>>,
    /// How many of them were answered for, and how many as synced.
    committed: usize,
    synced: usize,
    /// What was released, or was to be when the machine died.
    released: BTreeSet<u64>,
    crash_seed: Option<u64>,
}

/// How a log's process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    InOrder,
    Killed,
    Crashed(u64),
}

impl Run {
    fn new() -> Self {
        let disk = MemoryDisk::default();
        let log = Some(open(&disk, SEGMENT_BYTES).unwrap().0);
        Self { disk, log, written: Vec::new(), committed: 0, synced: 0, released: BTreeSet::new(), crash_seed: None }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let done = match step {
            Step::Append(length) => {
                let byte = u8::try_from(self.written.len() % 251).unwrap() + 1;
                let record = vec![byte; length];
                log.append(&[&record]).map(|sequence| {
                    self.written.push(record);
                    assert_eq!(sequence, self.written.len() as u64);
                })
            }
            Step::Commit(level) => log.commit(level).map(|()| {
                self.committed = self.written.len();
                if level == Level::Sync {
                    self.synced = self.committed;
                }
            }),
            Step::Release(bits) => {
                let mut segments = log.segments();
                segments.pop();
                let chosen = segments.iter().take(8).enumerate().filter(|(index, _)| bits >> index & 1 == 1);
                let chosen: Vec<_> = chosen.map(|(_, segment)| segment).collect();
                let records = |segment: &&SegmentInfo| segment.first_sequence..segment.first_sequence + segment.records;
                self.released.extend(chosen.iter().flat_map(records));
                let firsts: Vec<u64> = chosen.iter().map(|segment| segment.first_sequence).collect();
                log.release(&firsts).map(|released| assert_eq!(released, firsts.len()))
            }
            Step::Fill => {
                log.filler().fill();
                Ok(())
            }
            Step::End => return self.reopen(How::InOrder),
            Step::Kill => return self.reopen(How::Killed),
            Step::Crash(seed) => return self.reopen(How::Crashed(seed)),
            Step::CrashAt(operation, after, seed) => {
                self.disk.fail(operation, after, ErrorKind::Other, true);
                self.crash_seed = Some(seed);
                Ok(())
            }
        };
        if done.is_ok() {
            self.read_back()?;
            return Ok(());
        }
        let seed = self.crash_seed.expect("nothing fails on a disk that is well");
        self.reopen(How::Crashed(seed))
    }

    fn read_back(&self) -> Result<(), TestCaseError> {
        let reader = self.log.as_ref().unwrap().reader();
        prop_assert_eq!(reader.next_sequence(), self.committed as u64 + 1);
        for sequence in 1..=self.committed as u64 {
            match reader.read(sequence) {
                Ok(record) => prop_assert_eq!(&record[..], &self.written[sequence as usize - 1][..]),
                Err(error) => prop_assert!(self.released.contains(&sequence), "{}", error),
            }
        }
        prop_assert!(reader.read(self.committed as u64 + 1).is_err(), "what is not committed is not seen");
        Ok(())
    }

    fn reopen(&mut self, how: How) -> Result<(), TestCaseError> {
        match how {
            How::InOrder => {}
            How::Killed => self.disk.kill(),
            How::Crashed(seed) => {
                self.disk.heal();
                self.disk.crash(seed);
                self.crash_seed = None;
            }
        }
        self.log = None;
        let mut records = BTreeMap::new();
        let options = Options { segment_bytes: SEGMENT_BYTES, reserve_bytes: RESERVE_BYTES, ..Options::default() };
        let opened = Log::open(Arc::new(self.disk.clone()), Path::new(FOLDER), options, &mut |sequence, record| {
            records.insert(sequence, record.to_vec());
        });
        if opened.is_err()
            && let Some(seed) = self.crash_seed
        {
            // The machine dies while it recovers, or has died while the process ended.
            return self.reopen(How::Crashed(seed));
        }
        let (log, recovery) = opened.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let found = log.next_sequence() as usize - 1;
        prop_assert!(found >= self.synced, "{found} of {} synced: {recovery:?}", self.synced);
        let is_crash = matches!(how, How::Crashed(_));
        prop_assert!(is_crash || found >= self.committed, "a killed process loses nothing committed");
        prop_assert!(found <= self.written.len());
        for sequence in 1..=found as u64 {
            match records.get(&sequence) {
                Some(record) => prop_assert_eq!(record, &self.written[sequence as usize - 1]),
                None => prop_assert!(self.released.contains(&sequence), "{sequence} of {found} is missing"),
            }
        }
        self.written.truncate(found);
        (self.committed, self.synced) = (found, found);
        self.log = Some(log);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn nothing_synced_is_lost(steps in prop::collection::vec(step(), 1..80)) {
        let mut run = Run::new();
        for step in steps {
            run.step(step)?;
        }
        run.reopen(How::Crashed(1))?;
    }
}

#[test]
fn a_log_whose_making_was_cut_off_is_made_or_begun_anew() {
    for operation in [Operation::Write, Operation::Sync] {
        let mut cut_off = 0;
        for after in 0..6 {
            for seed in 0..20 {
                let disk = MemoryDisk::default();
                disk.fail(operation, after, ErrorKind::Other, true);
                let made = open(&disk, SEGMENT_BYTES).map(drop);
                cut_off += u32::from(made.is_err());
                disk.heal();
                disk.crash(seed);
                let (mut log, ..) = open(&disk, SEGMENT_BYTES)
                    .unwrap_or_else(|error| panic!("{operation:?} {after}, seed {seed}, {made:?}: {error}"));
                log.append(&[b"first"]).unwrap();
                log.commit(Level::Sync).unwrap();
            }
        }
        assert!(cut_off >= 2 * 20, "at two of its operations at least: {operation:?}, {cut_off}");
    }
}

#[test]
fn whole_segments_are_released_wherever_they_stand_and_never_the_last() {
    let disk = MemoryDisk::default();
    let (mut log, ..) = open(&disk, 1_100).unwrap();
    for _ in 0..20 {
        log.append(&[&[7; 100]]).unwrap();
        log.commit(Level::Sync).unwrap();
    }
    let before = log.segments();
    assert!(before.len() > 3);
    let (third, last) = (before[2].first_sequence, before[before.len() - 1].first_sequence);
    assert_eq!(log.release(&[third, third + 1, last]).unwrap(), 1);
    assert!(log.reader().read(third).unwrap_err().to_string().contains("has no record"));
    assert_eq!(log.reader().read(third - 1).unwrap()[..], [7; 100]);
    let mut replayed = Vec::new();
    let mut note = |sequence, _: &[u8]| {
        replayed.push(sequence);
        true
    };
    log.reader().replay(1, &mut note).unwrap();
    let expected: Vec<u64> = (1..third).chain(third + before[2].records..=20).collect();
    assert_eq!(replayed, expected, "a replay passes over the hole");
    drop(log);
    let (mut log, _, records) = open(&disk, 1_100).unwrap();
    assert_eq!(records.len(), expected.len(), "a start too");
    let all: Vec<u64> = log.segments().iter().map(|segment| segment.first_sequence).collect();
    log.release(&all).unwrap();
    assert_eq!(log.segments().len(), 1);
    let next = log.next_sequence();
    drop(log);
    disk.crash(0);
    let (log, ..) = open(&disk, 1_100).unwrap();
    assert_eq!(log.next_sequence(), next, "sequences go on after everything old is gone");
}
