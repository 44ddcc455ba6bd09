//! Whatever a crash takes, what was committed with a sync is there afterwards, in order, with a prefix of the rest behind it.

use proptest::prelude::*;
use storage::disk::memory::MemoryDisk;
use storage::log::Level;

use crate::open;

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Commit(Level),
    Crash(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..200usize).prop_map(Step::Append),
        2 => Just(Step::Commit(Level::Sync)),
        1 => Just(Step::Commit(Level::Os)),
        1 => any::<u64>().prop_map(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_synced_is_lost(steps in prop::collection::vec(step(), 1..60)) {
        let disk = MemoryDisk::default();
        let (mut log, ..) = open(&disk, 1_000).unwrap();
        let mut written: Vec<Vec<u8>> = Vec::new();
        let (mut committed, mut synced) = (0, 0);
        for step in steps {
            match step {
                Step::Append(length) => {
                    let record = vec![u8::try_from(written.len() % 251).unwrap(); length];
                    let sequence = log.append(&[&record]).unwrap();
                    written.push(record);
                    prop_assert_eq!(sequence, written.len() as u64);
                }
                Step::Commit(level) => {
                    log.commit(level).unwrap();
                    committed = written.len();
                    if level == Level::Sync {
                        synced = committed;
                    }
                    for (index, record) in written.iter().enumerate() {
                        prop_assert_eq!(&log.reader().read(index as u64 + 1).unwrap()[..], &record[..]);
                    }
                }
                Step::Crash(seed) => {
                    drop(log);
                    disk.crash(seed);
                    let (again, recovery, records) = open(&disk, 1_000).unwrap();
                    log = again;
                    prop_assert!(records.len() >= synced, "{} of {synced}: {recovery:?}", records.len());
                    prop_assert!(records.len() <= committed);
                    prop_assert_eq!(&records[..], &written[..records.len()]);
                    written.truncate(records.len());
                    committed = written.len();
                    synced = committed;
                }
            }
        }
    }
}

#[test]
fn trimming_takes_whole_segments_and_never_the_last() {
    let disk = MemoryDisk::default();
    let (mut log, ..) = open(&disk, 300).unwrap();
    for _ in 0..20 {
        log.append(&[&[7; 100]]).unwrap();
        log.commit(Level::Sync).unwrap();
    }
    let before = log.segments();
    assert!(before.len() > 3);
    let middle = before[2].first_sequence;
    assert_eq!(log.trim(middle).unwrap(), 2);
    assert_eq!(log.reader().first_sequence(), middle);
    assert!(log.reader().read(middle - 1).unwrap_err().to_string().contains("has no record"));
    log.trim(u64::MAX).unwrap();
    assert_eq!(log.segments().len(), 1);
    let next = log.next_sequence();
    drop(log);
    disk.crash(0);
    let (log, ..) = open(&disk, 300).unwrap();
    assert_eq!(log.next_sequence(), next, "sequences go on after everything old is gone");
}
