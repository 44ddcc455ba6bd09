//! Reading by sequence.

use storage::disk::memory::MemoryDisk;
use storage::log::{Error, Level};

use crate::{HEADER_BYTES, open, segment};

#[test]
fn runs_are_bounded_by_records_bytes_segments_and_commits() {
    let disk = MemoryDisk::default();
    let (mut log, ..) = open(&disk, 4_000).unwrap();
    let reader = log.reader();
    for byte in 1..=60u8 {
        log.append(&[&[byte; 100]]).unwrap();
    }
    assert!(reader.read_run(1, 10, 10_000).unwrap().is_empty(), "not committed");
    log.commit(Level::Os).unwrap();
    log.append(&[b"not committed"]).unwrap();
    let run = |from, records_max, bytes_max| {
        let run = reader.read_run(from, records_max, bytes_max).unwrap();
        for (index, (sequence, record)) in run.iter().enumerate() {
            assert_eq!(*sequence, from + index as u64);
            assert_eq!(record[..], [u8::try_from(*sequence).unwrap(); 100]);
        }
        run.len()
    };
    assert_eq!(run(1, 10, 10_000), 10);
    assert_eq!(run(1, 10, 136 * 3), 3);
    assert_eq!(run(1, 10, 0), 1, "at least one");
    assert_eq!(run(60, 10, 10_000), 1);
    assert_eq!(run(61, 10, 10_000), 0);
    assert_eq!(run(1_000, 10, 10_000), 0);
    assert!(matches!(reader.read_run(0, 10, 10_000), Err(Error::Absent { sequence: 0, first: 1, next: 61 })));
}

#[test]
fn a_replay_hands_out_what_is_committed_until_it_is_told_to_stop() {
    let disk = MemoryDisk::default();
    let (mut log, ..) = open(&disk, 2_000).unwrap();
    for _ in 0..50 {
        log.append(&[&[1; 100]]).unwrap();
        log.commit(Level::Os).unwrap();
    }
    assert!(log.segments().len() > 3);
    let mut seen = Vec::new();
    log.reader()
        .replay(7, &mut |sequence, _| {
            seen.push(sequence);
            true
        })
        .unwrap();
    assert_eq!(seen, (7..=50).collect::<Vec<_>>());
    let mut count = 0;
    log.reader()
        .replay(7, &mut |_, _| {
            count += 1;
            count < 5
        })
        .unwrap();
    assert_eq!(count, 5);
}

#[test]
fn rot_is_seen_when_a_record_is_read() {
    let disk = MemoryDisk::default();
    let (mut log, ..) = open(&disk, 4_000).unwrap();
    for byte in 1..=2 {
        log.append(&[&[byte; 100]]).unwrap();
    }
    log.commit(Level::Sync).unwrap();
    disk.flip_bit(&segment(1), HEADER_BYTES + 60, 3);
    assert!(matches!(log.reader().read(1), Err(Error::Damaged { sequence: 1, .. })));
    assert_eq!(log.reader().read(2).unwrap()[..], [2; 100]);
}
