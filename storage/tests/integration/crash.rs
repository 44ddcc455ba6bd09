//! Whatever a crash takes, what was committed with a sync is there afterwards, in order, with a prefix of the rest behind it.

use std::io::ErrorKind;

use proptest::prelude::*;
use storage::disk::memory::{MemoryDisk, Operation};
use storage::log::{Level, Log};

use crate::open;

const SEGMENT_BYTES: u64 = 3_000;

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Commit(Level),
    /// Everything before the last few records may go.
    Trim(u64),
    /// Another thread gets to write zeros over the next segment.
    Fill,
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
        1 => (0..10u64).prop_map(Step::Trim),
        2 => Just(Step::Fill),
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
    trimmed: usize,
    crash_seed: Option<u64>,
}

impl Run {
    fn new() -> Self {
        let disk = MemoryDisk::default();
        let log = Some(open(&disk, SEGMENT_BYTES).unwrap().0);
        Self { disk, log, written: Vec::new(), committed: 0, synced: 0, trimmed: 0, crash_seed: None }
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
            Step::Trim(keep) => log.trim((self.committed as u64).saturating_sub(keep)).map(drop),
            Step::Fill => {
                log.filler().fill();
                Ok(())
            }
            Step::Kill => return self.reopen(None),
            Step::Crash(seed) => return self.reopen(Some(seed)),
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
        self.reopen(Some(seed))
    }

    fn read_back(&self) -> Result<(), TestCaseError> {
        let reader = self.log.as_ref().unwrap().reader();
        prop_assert_eq!(reader.next_sequence(), self.committed as u64 + 1);
        let first = reader.first_sequence();
        for sequence in first..=self.committed as u64 {
            prop_assert_eq!(&reader.read(sequence).unwrap()[..], &self.written[sequence as usize - 1][..]);
        }
        prop_assert!(reader.read(self.committed as u64 + 1).is_err(), "what is not committed is not seen");
        Ok(())
    }

    fn reopen(&mut self, crash_seed: Option<u64>) -> Result<(), TestCaseError> {
        self.trimmed = self.log.take().map_or(self.trimmed, |log| log.first_sequence() as usize - 1);
        if let Some(seed) = crash_seed {
            self.disk.heal();
            self.disk.crash(seed);
            self.crash_seed = None;
        }
        let opened = open(&self.disk, SEGMENT_BYTES);
        if opened.is_err()
            && let Some(seed) = self.crash_seed
        {
            // The machine dies while it recovers.
            return self.reopen(Some(seed));
        }
        let (log, recovery, records) = opened.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let trimmed = log.first_sequence() as usize - 1;
        let found = trimmed + records.len();
        prop_assert!(trimmed <= self.committed, "{trimmed} trimmed, {} committed", self.committed);
        prop_assert!(found >= self.synced, "{found} of {} synced: {recovery:?}", self.synced);
        prop_assert!(crash_seed.is_some() || found >= self.committed, "a killed process loses nothing committed");
        prop_assert!(found <= self.written.len());
        prop_assert_eq!(&records[..], &self.written[trimmed..found]);
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
        run.reopen(Some(1))?;
    }
}

#[test]
fn a_log_whose_making_was_cut_off_is_made_or_begun_anew() {
    for operation in [Operation::Write, Operation::Sync] {
        for after in 0..6 {
            for seed in 0..20 {
                let disk = MemoryDisk::default();
                disk.fail(operation, after, ErrorKind::Other, true);
                let made = open(&disk, SEGMENT_BYTES).map(drop);
                disk.heal();
                disk.crash(seed);
                let (mut log, ..) = open(&disk, SEGMENT_BYTES)
                    .unwrap_or_else(|error| panic!("{operation:?} {after}, seed {seed}, {made:?}: {error}"));
                log.append(&[b"first"]).unwrap();
                log.commit(Level::Sync).unwrap();
            }
        }
    }
}

#[test]
fn trimming_takes_whole_segments_and_never_the_last() {
    let disk = MemoryDisk::default();
    let (mut log, ..) = open(&disk, 1_100).unwrap();
    for _ in 0..20 {
        log.append(&[&[7; 100]]).unwrap();
        log.commit(Level::Sync).unwrap();
    }
    let before = log.segments();
    assert!(before.len() > 3);
    let middle = before[2].first_sequence;
    assert_eq!(log.trim(middle - 1).unwrap(), 1, "the segment that holds the first kept record stays");
    assert_eq!(log.trim(middle).unwrap(), 1);
    assert_eq!((log.first_sequence(), log.reader().first_sequence()), (middle, middle));
    assert!(log.reader().read(middle - 1).unwrap_err().to_string().contains("has no record"));
    log.trim(u64::MAX).unwrap();
    assert_eq!(log.segments().len(), 1);
    let next = log.next_sequence();
    drop(log);
    disk.crash(0);
    let (log, ..) = open(&disk, 1_100).unwrap();
    assert_eq!(log.next_sequence(), next, "sequences go on after everything old is gone");
}
