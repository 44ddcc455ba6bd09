//! Damage is named and nothing is cut off; a torn tail is cut off and told.

use std::path::Path;

use storage::disk::memory::MemoryDisk;
use storage::disk::{Disk as _, OpenMode};
use storage::log::{Error, Level};

use crate::{FOLDER, open};

/// Three commits of one record of 100 bytes each: frames of 124 bytes from byte 32 on.
fn three_records() -> MemoryDisk {
    let disk = MemoryDisk::default();
    let (mut log, ..) = open(&disk, 1_000).unwrap();
    for byte in 1..=3 {
        log.append(&[&[byte; 100]]).unwrap();
        log.commit(Level::Sync).unwrap();
    }
    disk
}

fn first_segment() -> String {
    format!("{FOLDER}/{:020}.log", 1)
}

#[test]
fn a_turned_bit_stops_the_start_wherever_a_later_record_shows_it_was_synced() {
    for (offset, place) in [
        (3, "head"),
        (20, "head"),
        (33, "first record's checksum"),
        (38, "first record's length"),
        (41, "first record's sequence"),
        (100, "first record's bytes"),
        (32 + 124 + 60, "second record's bytes"),
    ] {
        let disk = three_records();
        disk.crash(0);
        disk.flip_bit(Path::new(&first_segment()), offset, 3);
        let Err(Error::Damaged { path, .. }) = open(&disk, 1_000) else { panic!("{place} at {offset} was not seen") };
        assert_eq!(path, Path::new(&first_segment()));
    }
}

#[test]
fn a_tail_that_no_later_record_vouches_for_is_cut_off_and_told() {
    let disk = three_records();
    disk.crash(0);
    disk.flip_bit(Path::new(&first_segment()), 32 + 2 * 124 + 60, 3);
    let (mut log, recovery, records) = open(&disk, 1_000).unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(recovery.torn_bytes, 124);
    log.append(&[b"next"]).unwrap();
    log.commit(Level::Sync).unwrap();
    drop(log);
    assert_eq!(open(&disk, 1_000).unwrap().2[2], b"next");
}

#[test]
fn pages_of_one_unsynced_write_may_come_in_any_order() {
    let disk = MemoryDisk::default();
    let (mut log, ..) = open(&disk, 1_000).unwrap();
    for byte in 1..=3 {
        log.append(&[&[byte; 100]]).unwrap();
    }
    log.commit(Level::Os).unwrap();
    drop(log);
    // The first record's page did not reach the disk, the others' did; nothing of it was acknowledged as synced.
    disk.flip_bit(Path::new(&first_segment()), 60, 3);
    let (_, recovery, records) = open(&disk, 1_000).unwrap();
    assert_eq!((records.len(), recovery.torn_bytes), (0, 3 * 124));
}

#[test]
fn a_missing_segment_and_a_bad_one_in_the_middle_are_named() {
    let disk = MemoryDisk::default();
    let (mut log, ..) = open(&disk, 300).unwrap();
    for _ in 0..8 {
        log.append(&[&[7; 100]]).unwrap();
        log.commit(Level::Sync).unwrap();
    }
    let segments = log.segments();
    drop(log);
    let second = format!("{FOLDER}/{:020}.log", segments[1].first_sequence);
    disk.flip_bit(Path::new(&second), 32 + 124 + 60, 0);
    let Err(Error::Damaged { path, sequence, .. }) = open(&disk, 300) else { panic!("not seen") };
    assert_eq!((path.as_path(), sequence), (Path::new(&second), segments[1].first_sequence + 1));
    disk.remove(Path::new(&second)).unwrap();
    let error = open(&disk, 300).unwrap_err().to_string();
    assert!(error.contains("is missing"), "{error}");
}

#[test]
fn rot_is_seen_when_a_record_is_read() {
    let disk = three_records();
    let (log, ..) = open(&disk, 1_000).unwrap();
    disk.flip_bit(Path::new(&first_segment()), 100, 3);
    assert!(matches!(log.reader().read(1), Err(Error::Damaged { sequence: 1, .. })));
    assert_eq!(&log.reader().read(2).unwrap()[..], [2; 100]);
}

#[test]
fn a_file_of_something_else_is_not_taken_for_a_segment() {
    let disk = MemoryDisk::default();
    disk.create_dir_all(Path::new(FOLDER)).unwrap();
    let file = disk.open(Path::new(&first_segment()), OpenMode::Create).unwrap();
    file.write_at(b"these are not the records that you are looking for", 0).unwrap();
    let error = open(&disk, 300).unwrap_err().to_string();
    assert!(error.contains("does not begin as a segment"), "{error}");
}
