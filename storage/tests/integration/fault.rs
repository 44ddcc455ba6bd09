//! A disk that says no: a failed sync poisons the log, a full disk does not.

use std::io::ErrorKind;

use storage::disk::memory::{MemoryDisk, Operation};
use storage::log::{Error, Level};

use crate::open;

#[test]
fn a_failed_sync_or_write_poisons_the_log_until_it_is_opened_anew() {
    for operation in [Operation::Sync, Operation::Write] {
        let disk = MemoryDisk::default();
        let (mut log, ..) = open(&disk, 1_000).unwrap();
        log.append(&[b"good"]).unwrap();
        log.commit(Level::Sync).unwrap();
        disk.fail(operation, 0, ErrorKind::Other, false);
        log.append(&[b"bad"]).unwrap();
        assert!(matches!(log.commit(Level::Sync), Err(Error::Disk { .. })));
        // The disk is well again, but nobody knows what it kept.
        assert!(matches!(log.append(&[b"later"]), Err(Error::Poisoned { .. })));
        assert!(matches!(log.commit(Level::Sync), Err(Error::Poisoned { .. })));
        drop(log);
        disk.crash(5);
        assert_eq!(open(&disk, 1_000).unwrap().2[0], b"good");
    }
}

#[test]
fn a_full_disk_refuses_and_the_log_goes_on_when_there_is_room() {
    let disk = MemoryDisk::default();
    let (mut log, ..) = open(&disk, 300).unwrap();
    log.append(&[&[1; 200]]).unwrap();
    log.commit(Level::Sync).unwrap();
    disk.fail(Operation::Allocate, 0, ErrorKind::StorageFull, true);
    for _ in 0..3 {
        log.append(&[&[2; 200]]).unwrap();
        assert!(matches!(log.commit(Level::Sync), Err(Error::Disk { .. })));
    }
    disk.heal();
    assert_eq!(log.append(&[&[3; 200]]).unwrap(), 2);
    log.commit(Level::Sync).unwrap();
    drop(log);
    disk.crash(5);
    let records = open(&disk, 300).unwrap().2;
    assert_eq!(records, [vec![1; 200], vec![3; 200]]);
}

#[test]
fn a_record_that_is_too_large_is_refused_and_nothing_else() {
    let disk = MemoryDisk::default();
    let (mut log, ..) = open(&disk, 1_000).unwrap();
    assert!(matches!(log.append(&[&[0; 70_000]]), Err(Error::Large { .. })));
    // Larger than a segment, but within the bound: it gets a segment of its own size.
    log.append(&[&[1; 5_000]]).unwrap();
    log.commit(Level::Sync).unwrap();
    assert_eq!(log.reader().read(1).unwrap().len(), 5_000);
}

#[test]
fn one_folder_is_one_log() {
    let disk = MemoryDisk::default();
    let (log, ..) = open(&disk, 1_000).unwrap();
    assert!(open(&disk, 1_000).unwrap_err().to_string().contains("in use"));
    drop(log);
    open(&disk, 1_000).unwrap();
}
