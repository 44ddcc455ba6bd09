//! A disk that says no: a failed sync poisons the log, a full disk does not.

use std::io::ErrorKind;

use storage::disk::memory::{MemoryDisk, Operation};
use storage::log::{Error, Level, Options};

use crate::{open, open_with};

#[test]
fn a_failed_sync_or_write_poisons_the_log_until_it_is_opened_anew() {
    for operation in [Operation::Sync, Operation::Write] {
        let disk = MemoryDisk::default();
        let (mut log, ..) = open(&disk, 4_000).unwrap();
        log.append(&[b"good"]).unwrap();
        log.commit(Level::Sync).unwrap();
        disk.fail(operation, 0, ErrorKind::Other, false);
        log.append(&[b"bad"]).unwrap();
        assert!(matches!(log.commit(Level::Sync), Err(Error::Disk { .. })));
        // The disk is well again, but nobody knows what it kept.
        assert!(matches!(log.append(&[b"later"]), Err(Error::Poisoned { .. })));
        assert!(matches!(log.commit(Level::Sync), Err(Error::Poisoned { .. })));
        assert_eq!(&log.reader().read(1).unwrap()[..], b"good");
        assert!(matches!(log.reader().read(2), Err(Error::Absent { .. })), "never seen, since never answered for");
        drop(log);
        disk.crash(5);
        assert_eq!(open(&disk, 4_000).unwrap().2[0], b"good");
    }
}

#[test]
fn a_start_fails_when_it_cannot_make_durable_what_it_found() {
    let disk = MemoryDisk::default();
    let (mut log, ..) = open(&disk, 4_000).unwrap();
    log.append(&[b"left with the operating system"]).unwrap();
    log.commit(Level::Os).unwrap();
    disk.kill();
    drop(log);
    disk.fail(Operation::Sync, 0, ErrorKind::Other, false);
    assert!(matches!(open(&disk, 4_000), Err(Error::Disk { .. })));
    drop(open(&disk, 4_000).unwrap());
    disk.crash(0);
    assert_eq!(open(&disk, 4_000).unwrap().2.len(), 1);
}

#[test]
fn on_a_full_disk_publishes_stop_before_the_reserve_and_go_on_when_there_is_room() {
    // Two files of the reserve, of a segment's size each.
    let options = Options { segment_bytes: 8_000, reserve_bytes: 16_000, ..Options::default() };
    let disk = MemoryDisk::default();
    let (mut log, ..) = open_with(&disk, options).unwrap();
    disk.fail(Operation::Allocate, 0, ErrorKind::StorageFull, true);
    let (mut publishes, mut settles) = (0, 0);
    while log.append(&[&[1; 100]]).is_ok() {
        log.commit(Level::Sync).unwrap();
        publishes += 1;
    }
    assert!(log.is_short_of_room());
    let refused = log.append(&[&[1; 100]]).unwrap_err();
    assert!(matches!(refused, Error::Full { .. }), "{refused}");
    let per_segment = (8_000 - 512) / 136;
    assert_eq!(publishes, per_segment, "the segment is used up, and the reserve is whole");
    for restart in [false, true] {
        if restart {
            drop(log);
            disk.crash(5);
            log = open_with(&disk, options).unwrap().0;
            assert!(log.room_left() >= 8_000, "the reserve is there after a crash");
        }
        let until = if restart { usize::MAX } else { per_segment / 2 };
        while settles < until && log.append_from_reserve(&[&[2; 100]]).is_ok() {
            log.commit(Level::Sync).unwrap();
            settles += 1;
        }
    }
    assert_eq!(settles, 2 * per_segment);
    disk.heal();
    let attempts = (0..100).take_while(|_| log.append(&[&[3; 100]]).is_err()).count();
    assert!(attempts < 20, "asked again after {attempts} refusals");
    log.commit(Level::Sync).unwrap();
    assert!(!log.is_short_of_room());
    drop(log);
    disk.crash(5);
    let records = open_with(&disk, options).unwrap().2;
    assert_eq!(records.len(), publishes + settles + 1);
    assert_eq!(records.last().unwrap()[..], [3; 100]);
}

/// An empty broker whose disk held one segment and not two refused to publish for ever.
#[test]
fn a_disk_that_has_no_room_for_a_segment_gets_smaller_ones() {
    const KIB: u64 = 1 << 10;
    let options = Options { segment_bytes: 1_024 * KIB, reserve_bytes: 256 * KIB, ..Options::default() };
    for (disk_bytes, segments_min) in [(1_100 * KIB, 1), (1_400 * KIB, 2), (400 * KIB, 1), (5_000 * KIB, 4)] {
        let disk = MemoryDisk::default();
        disk.bound(disk_bytes);
        let (mut log, ..) = open_with(&disk, options).unwrap();
        for round in 0..5 {
            let mut publishes = 0;
            while log.append(&[&[1; 10_000]]).is_ok() {
                log.commit(Level::Sync).unwrap();
                publishes += 1;
            }
            assert!(publishes > 10, "{disk_bytes}, round {round}: {publishes}");
            assert!(log.segments().len() >= segments_min, "{disk_bytes}: {:?}", log.segments());
            // All of it is done with: one of the reserve becomes the last segment, and the others go.
            log.begin_segment().unwrap();
            log.append_from_reserve(&[b"a checkpoint"]).unwrap();
            log.commit(Level::Sync).unwrap();
            let all: Vec<u64> = log.segments().iter().map(|segment| segment.first_sequence).collect();
            log.release(&all).unwrap();
            assert!(!log.is_short_of_room(), "{disk_bytes}, round {round}");
        }
    }
}

#[test]
fn the_reserve_grows_with_what_is_asked_for_and_publishes_stop_while_it_is_not_whole() {
    let options = Options { segment_bytes: 8_000, reserve_bytes: 0, ..Options::default() };
    let disk = MemoryDisk::default();
    disk.bound(60_000);
    let (mut log, ..) = open_with(&disk, options).unwrap();
    log.append(&[b"a message"]).unwrap();
    log.commit(Level::Sync).unwrap();
    log.keep_reserve(1_000_000);
    assert!(log.is_short_of_room());
    assert!(matches!(log.append(&[b"a message"]), Err(Error::Full { .. })));
    log.append_from_reserve(&[b"an acknowledgement"]).unwrap();
    log.commit(Level::Sync).unwrap();
    log.keep_reserve(20_000);
    assert!(!log.is_short_of_room());
    log.append(&[b"a message"]).unwrap();
    log.commit(Level::Sync).unwrap();
}

#[test]
fn a_record_for_which_there_is_no_room_is_refused_and_the_rest_of_its_batch_stays() {
    let options = Options { segment_bytes: 4_000, reserve_bytes: 0, ..Options::default() };
    let disk = MemoryDisk::default();
    let (mut log, ..) = open_with(&disk, options).unwrap();
    log.append(&[&[1; 3_000]]).unwrap();
    disk.fail(Operation::Allocate, 0, ErrorKind::StorageFull, true);
    assert!(matches!(log.append(&[&[2; 10_000]]), Err(Error::Full { .. })));
    assert_eq!(log.next_sequence(), 2);
    log.commit(Level::Sync).unwrap();
    disk.heal();
    while let Err(error) = log.append(&[&[3; 10_000]]) {
        assert!(matches!(error, Error::Full { .. }), "{error}");
    }
    log.append(&[&[4; 3_000]]).unwrap();
    log.append(&[&[5; 3_000]]).unwrap();
    log.commit(Level::Sync).unwrap();
    assert!(log.segments().len() >= 3, "one batch over several segments");
    disk.kill();
    drop(log);
    disk.crash(5);
    assert_eq!(open_with(&disk, options).unwrap().2, [vec![1; 3_000], vec![3; 10_000], vec![4; 3_000], vec![5; 3_000]]);
}

#[test]
fn what_is_past_a_bound_is_refused_and_nothing_else() {
    let disk = MemoryDisk::default();
    let options =
        Options { record_bytes_max: 6_000, batch_bytes_max: 1_000, segment_bytes: 4_000, reserve_bytes: 0, id_seed: 0 };
    let (mut log, ..) = open_with(&disk, options).unwrap();
    assert!(matches!(log.append(&[&[0; 6_001]]), Err(Error::Large { .. })));
    // Larger than a batch and than a segment, but within its bound: it gets a segment of its own size.
    log.append(&[&[1; 5_000]]).unwrap();
    assert!(matches!(log.append(&[b"x"]), Err(Error::Backlog { .. })));
    log.commit(Level::Sync).unwrap();
    assert_eq!(log.reader().read(1).unwrap().len(), 5_000);
    log.append(&[b"x"]).unwrap();
    for wrong in [Options { segment_bytes: 100, ..options }, Options { batch_bytes_max: 2 << 30, ..options }] {
        assert!(matches!(open_with(&MemoryDisk::default(), wrong), Err(Error::Options(_))));
    }
}

#[test]
fn one_folder_is_one_log() {
    let disk = MemoryDisk::default();
    let (log, ..) = open(&disk, 4_000).unwrap();
    assert!(open(&disk, 4_000).unwrap_err().to_string().contains("in use"));
    drop(log);
    open(&disk, 4_000).unwrap();
}

#[test]
fn a_segment_that_could_not_be_filled_ahead_is_as_good_as_one_that_was() {
    for fault in [None, Some(Operation::Write), Some(Operation::Sync)] {
        let disk = MemoryDisk::default();
        let (mut log, ..) = open(&disk, 4_000).unwrap();
        let mut filler = log.filler();
        let mut filled = 0;
        for number in 1..100u8 {
            log.append(&[&[number; 100]]).unwrap();
            log.commit(Level::Sync).unwrap();
            if log.wants_zeros() {
                if let Some(operation) = fault {
                    disk.fail(operation, 0, ErrorKind::Other, false);
                }
                filler.fill();
                filled += 1;
                assert!(!log.wants_zeros(), "one step is a whole segment here, and a failure ends it");
            }
        }
        assert!(filled > 2, "each segment's room is made once and filled once: {filled}");
        drop(log);
        disk.crash(7);
        let records = open(&disk, 4_000).unwrap().2;
        assert_eq!(records.len(), 99);
        assert!(records.iter().zip(1..).all(|(record, number)| record[..] == [number; 100]));
    }
}
