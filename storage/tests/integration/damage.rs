//! Damage is named and nothing is cut off; a torn tail is cut off and told.

use std::path::{Path, PathBuf};

use storage::disk::memory::{MemoryDisk, SECTOR_BYTES};
use storage::disk::{Disk as _, OpenMode, read_whole};
use storage::log::{Error, Level, SegmentInfo};

use crate::{FOLDER, FRAME_BYTES, HEADER_BYTES, open, segment};

/// Three records of 100 bytes each in one segment, each in a commit of its own; their process was killed.
fn three_records() -> MemoryDisk {
    let disk = MemoryDisk::default();
    let (mut log, ..) = open(&disk, 4_000).unwrap();
    for byte in 1..=3 {
        log.append(&[&[byte; 100]]).unwrap();
        log.commit(Level::Sync).unwrap();
    }
    disk.kill();
    disk
}

/// Twenty records in segments of three or four; their process was killed.
fn twenty_records() -> (MemoryDisk, Vec<SegmentInfo>) {
    let disk = MemoryDisk::default();
    let (mut log, ..) = open(&disk, 1_100).unwrap();
    for _ in 0..20 {
        log.append(&[&[7; 100]]).unwrap();
        log.commit(Level::Sync).unwrap();
    }
    let segments = log.segments();
    assert!(segments.len() > 3);
    disk.kill();
    (disk, segments)
}

/// The damage that a start finds.
fn damage(disk: &MemoryDisk, segment_bytes: u64) -> (PathBuf, u64, String) {
    match open(disk, segment_bytes) {
        Err(Error::Damaged { path, sequence, what, .. }) => (path, sequence, what),
        Err(error) => panic!("{error}"),
        Ok((_, recovery, records)) => panic!("{} records are taken for all of them: {recovery:?}", records.len()),
    }
}

fn cut(disk: &MemoryDisk, path: &Path, bytes: u64) {
    let file = disk.open(path, OpenMode::Write).unwrap();
    file.set_len(bytes).unwrap();
    file.sync_data().unwrap();
}

#[test]
fn the_last_segment_gone_is_known_from_the_one_before() {
    let (disk, segments) = twenty_records();
    let [.., before, last] = &segments[..] else { panic!("{segments:?}") };
    disk.remove(&segment(last.first_sequence)).unwrap();
    let (path, sequence, what) = damage(&disk, 1_100);
    assert_eq!((path, sequence), (segment(before.first_sequence), last.first_sequence));
    let name = segment(last.first_sequence);
    assert!(what.contains(name.file_name().unwrap().to_str().unwrap()) && what.contains("missing"), "{what}");
}

#[test]
fn a_segment_cut_at_a_records_end_is_known_from_its_head() {
    let (disk, segments) = twenty_records();
    let (second, last) = (&segments[1], segments.last().unwrap());
    for (info, records) in [(last, 1), (last, 0), (second, 2)] {
        cut(&disk, &segment(info.first_sequence), (HEADER_BYTES + records * FRAME_BYTES) as u64);
        let (path, sequence, what) = damage(&disk, 1_100);
        assert_eq!((path, sequence), (segment(info.first_sequence), info.first_sequence + records as u64), "{what}");
    }
}

#[test]
fn records_that_were_known_to_be_synced_are_not_taken_for_room_that_was_never_written() {
    let last = (HEADER_BYTES + 2 * FRAME_BYTES) as u64;
    for in_order in [true, false] {
        let disk = MemoryDisk::default();
        let (mut log, ..) = open(&disk, 4_000).unwrap();
        for byte in 1..=3 {
            log.append(&[&[byte; 100]]).unwrap();
            log.commit(Level::Sync).unwrap();
        }
        if !in_order {
            disk.kill();
        }
        drop(log);
        unwrite(&disk, &segment(1), last, FRAME_BYTES as u64);
        if in_order {
            let (_, sequence, what) = damage(&disk, 4_000);
            assert!(sequence == 3 && what.contains("before 4"), "{sequence}: {what}");
            continue;
        }
        // Nothing said where the log ended, and the start says so.
        let (log, recovery, records) = open(&disk, 4_000).unwrap();
        assert_eq!((records.len(), recovery.known_through), (2, 1));
        disk.kill();
        drop(log);
        unwrite(&disk, &segment(1), last - FRAME_BYTES as u64, FRAME_BYTES as u64);
        assert_eq!(damage(&disk, 4_000).1, 2, "but what a start has found is known from then on");
    }
}

#[test]
fn a_folder_that_was_emptied_is_not_taken_for_a_new_one() {
    let marker = Path::new("/log.made");
    for left in [&[][..], &["lock"]] {
        let (disk, _) = twenty_records();
        for name in disk.list(Path::new(FOLDER)).unwrap() {
            if !left.contains(&name.as_str()) {
                disk.remove(&Path::new(FOLDER).join(name)).unwrap();
            }
        }
        let error = open(&disk, 1_100).unwrap_err();
        assert!(matches!(error, Error::Gone { .. }), "{error}");
        assert!(error.to_string().contains("rm /log.made"), "{error}");
        let left: Vec<String> = disk.list(Path::new(FOLDER)).unwrap();
        assert!(!left.iter().any(|name| name.contains("log") || name == "manifest"), "nothing was made: {left:?}");
        // Who gives it up says so.
        disk.remove(marker).unwrap();
        assert!(open(&disk, 1_100).unwrap().1.is_new);
        assert!(disk.exists(marker).unwrap());
        assert!(!open(&disk, 1_100).unwrap().1.is_new);
    }
}

#[test]
fn the_marker_of_a_log_that_has_none_yet_is_written_at_its_next_start() {
    let (disk, _) = twenty_records();
    let marker = Path::new("/log.made");
    disk.remove(marker).unwrap();
    open(&disk, 1_100).unwrap();
    disk.flip_bit(marker, 3, 1);
    open(&disk, 1_100).unwrap();
    assert!(disk.exists(marker).unwrap());
}

/// Puts zeros where a write did not reach the disk.
fn unwrite(disk: &MemoryDisk, path: &Path, offset: u64, length: u64) {
    let file = disk.open(path, OpenMode::Write).unwrap();
    file.write_at(&vec![0; usize::try_from(length).unwrap()], offset).unwrap();
    file.sync_data().unwrap();
}

#[test]
fn a_turned_bit_stops_the_start_and_is_named() {
    let first = HEADER_BYTES;
    let (second, third) = (first + FRAME_BYTES, first + 2 * FRAME_BYTES);
    for (offset, place, expected) in [
        (3, "magic", (0, 1)),
        (20, "first sequence", (0, 1)),
        (300, "the head's sector", (0, 1)),
        (first + 2, "head's checksum", (first, 1)),
        (first + 5, "body's checksum", (first, 1)),
        (first + 8, "length", (first, 1)),
        (first + 13, "zeros", (first, 1)),
        (first + 18, "sequence", (first, 1)),
        (first + 26, "synced through", (first, 1)),
        (first + 60, "payload", (first, 1)),
        (first + FRAME_BYTES - 1, "end", (first, 1)),
        (second + 60, "payload in the middle", (second, 2)),
        (third + 2, "last head's checksum", (third, 3)),
        (third + 8, "last length", (third, 3)),
        (third + 9, "last length, by more than the segment", (third, 3)),
        (third + 60, "last payload", (third, 3)),
        (third + FRAME_BYTES - 1, "last end", (third, 3)),
    ] {
        let disk = three_records();
        disk.crash(0);
        disk.flip_bit(&segment(1), offset, 3);
        let before = read_whole(&disk, &segment(1), 10_000).unwrap();
        let Err(Error::Damaged { path, offset: at, sequence, .. }) = open(&disk, 4_000) else {
            panic!("{place} at {offset} was not seen")
        };
        assert_eq!((path, (at, sequence)), (segment(1), (expected.0 as u64, expected.1)), "{place}");
        assert_eq!(read_whole(&disk, &segment(1), 10_000).unwrap(), before, "{place}: nothing was changed");
    }
}

#[test]
fn a_record_that_was_not_wholly_written_is_cut_off_and_told() {
    let third = (HEADER_BYTES + 2 * FRAME_BYTES) as u64;
    let length = FRAME_BYTES as u64;
    // The third record begins at byte 784 and ends at 920, in one sector. What is left of it, by where zeros begin and end:
    for (from, to) in [(0, length), (40, length), (length - 1, length)] {
        let disk = three_records();
        unwrite(&disk, &segment(1), third + from, to - from);
        let (mut log, recovery, records) = open(&disk, 4_000).unwrap();
        assert_eq!(records, [[1; 100], [2; 100]]);
        assert_eq!(recovery.torn_bytes, if from == 0 { 0 } else { from });
        assert_eq!(log.append(&[b"next"]).unwrap(), 3);
        log.commit(Level::Sync).unwrap();
        drop(log);
        assert_eq!(open(&disk, 4_000).unwrap().2[2], b"next");
    }
}

#[test]
fn a_sector_missing_in_the_middle_is_a_torn_tail_only_while_nothing_shows_it_was_synced() {
    for later in [false, true] {
        let disk = MemoryDisk::default();
        let (mut log, ..) = open(&disk, 20_000).unwrap();
        // One commit of records of five sectors each; of the second, a sector did not reach the disk.
        for byte in 1..=3 {
            log.append(&[&[byte; 2_500]]).unwrap();
        }
        log.commit(Level::Sync).unwrap();
        if later {
            log.append(&[b"appended when the others were synced"]).unwrap();
            log.commit(Level::Os).unwrap();
        }
        disk.kill();
        drop(log);
        unwrite(&disk, &segment(1), 8 * SECTOR_BYTES, SECTOR_BYTES);
        match open(&disk, 20_000) {
            Ok((mut log, recovery, records)) => {
                assert!(!later && recovery.torn_bytes > 4_000, "{recovery:?}");
                assert_eq!(records, [[1; 2_500]]);
                // Nothing of the tail is left to be taken for a record when another is written over its beginning.
                log.append(&[&[9; 2_500]]).unwrap();
                log.commit(Level::Sync).unwrap();
                drop(log);
                assert_eq!(open(&disk, 20_000).unwrap().2.len(), 2);
            }
            Err(Error::Damaged { sequence, what, .. }) => {
                assert!(later && sequence == 2 && what.contains("record 4 was appended after"), "{what}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_record_that_holds_the_bytes_of_a_frame_is_no_witness() {
    let other = MemoryDisk::default();
    let (mut log, ..) = open(&other, 4_000).unwrap();
    for _ in 0..5 {
        log.append(&[&[1; 100]]).unwrap();
        log.commit(Level::Sync).unwrap();
    }
    drop(log);
    let forged =
        read_whole(&other, &segment(1), 10_000).unwrap()[HEADER_BYTES..HEADER_BYTES + 5 * FRAME_BYTES].to_vec();
    let disk = MemoryDisk::default();
    let options = storage::log::Options { segment_bytes: 4_000, reserve_bytes: 0, id_seed: 99, ..Default::default() };
    let (mut log, ..) = crate::open_with(&disk, options).unwrap();
    log.append(&[&forged]).unwrap();
    log.commit(Level::Sync).unwrap();
    disk.kill();
    drop(log);
    unwrite(&disk, &segment(1), HEADER_BYTES as u64, 32);
    assert_eq!(crate::open_with(&disk, options).unwrap().2.len(), 0);
}

#[test]
fn a_missing_segment_and_a_bad_one_in_the_middle_are_named() {
    let (disk, segments) = twenty_records();
    let second = segment(segments[1].first_sequence);
    disk.flip_bit(&second, HEADER_BYTES + FRAME_BYTES + 60, 0);
    let Err(Error::Damaged { path, sequence, .. }) = open(&disk, 1_100) else { panic!("not seen") };
    assert_eq!((path.as_path(), sequence), (second.as_path(), segments[1].first_sequence + 1));
    disk.remove(&second).unwrap();
    let Err(Error::Damaged { sequence, what, .. }) = open(&disk, 1_100) else { panic!("not seen") };
    assert_eq!(sequence, segments[1].first_sequence);
    assert!(what.contains("it is missing"), "{what}");
}

#[test]
fn segments_missing_at_the_front_or_all_of_them_are_not_taken_for_trimmed_ones() {
    let disk = MemoryDisk::default();
    let (mut log, ..) = open(&disk, 1_100).unwrap();
    for _ in 0..20 {
        log.append(&[&[7; 100]]).unwrap();
        log.commit(Level::Sync).unwrap();
    }
    log.release(&[1]).unwrap();
    let segments = log.segments();
    drop(log);
    for info in &segments {
        disk.remove(&segment(info.first_sequence)).unwrap();
        let error = open(&disk, 1_100).unwrap_err();
        let Error::Damaged { path, .. } = &error else { panic!("{error}") };
        assert_eq!(path, &segment(segments[0].first_sequence));
    }
    let disk = three_records();
    disk.remove(&Path::new(FOLDER).join("manifest")).unwrap();
    let error = open(&disk, 4_000).unwrap_err().to_string();
    assert!(error.contains("manifest"), "{error}");
}

#[test]
fn a_segment_of_another_log_is_named() {
    let mut bytes = Vec::new();
    for id_seed in [1, 2] {
        let disk = MemoryDisk::default();
        let options = storage::log::Options { segment_bytes: 4_000, reserve_bytes: 0, id_seed, ..Default::default() };
        drop(crate::open_with(&disk, options).unwrap());
        if id_seed == 1 {
            bytes = read_whole(&disk, &segment(1), 10_000).unwrap();
            continue;
        }
        disk.open(&segment(1), OpenMode::Write).unwrap().write_at(&bytes, 0).unwrap();
        let error = crate::open_with(&disk, options).unwrap_err().to_string();
        assert!(error.contains("it belongs to another log"), "{error}");
    }
}

#[test]
fn a_file_of_something_else_is_not_taken_for_a_segment() {
    let disk = three_records();
    let file = disk.open(&segment(1), OpenMode::Write).unwrap();
    file.write_at(b"these are not the records that you are looking for", 0).unwrap();
    let error = open(&disk, 4_000).unwrap_err().to_string();
    assert!(error.contains("does not begin as a segment"), "{error}");
}
