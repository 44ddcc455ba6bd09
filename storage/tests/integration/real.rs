//! The same on the machine's own disk, with readers on other threads, and a log of version 1 that was written once.

use std::path::Path;
use std::sync::Arc;

use storage::disk::real::RealDisk;
use storage::log::{Level, Log, Options};

#[test]
fn readers_read_what_is_committed_while_the_writer_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 64 << 10, ..Options::default() };
    let (mut log, _) = Log::open(Arc::new(RealDisk), folder.path(), options, &mut |_, _| {}).unwrap();
    let reader = log.reader();
    std::thread::scope(|scope| {
        let (told, committed) = std::sync::mpsc::channel();
        scope.spawn(move || {
            for last in committed {
                let record = reader.read(last).unwrap();
                assert_eq!(record[..], last.to_le_bytes().repeat(100)[..]);
            }
        });
        for sequence in 1..=500u64 {
            assert_eq!(log.append(&[&sequence.to_le_bytes().repeat(100)]).unwrap(), sequence);
            log.commit(Level::Os).unwrap();
            told.send(sequence).unwrap();
        }
    });
    log.commit(Level::Sync).unwrap();
    assert!(log.segments().len() > 5);
    drop(log);
    let mut records = 0;
    Log::open(Arc::new(RealDisk), folder.path(), options, &mut |_, _| records += 1).unwrap();
    assert_eq!(records, 500);
}

#[test]
fn a_log_of_version_1_reads_back() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/log-v1");
    let folder = tempfile::tempdir().unwrap();
    let name = format!("{:020}.log", 1);
    std::fs::copy(fixture.join(&name), folder.path().join(&name)).unwrap();
    let mut records = Vec::new();
    Log::open(Arc::new(RealDisk), folder.path(), Options::default(), &mut |sequence, record| {
        records.push((sequence, String::from_utf8_lossy(record).into_owned()));
    })
    .unwrap();
    assert_eq!(records, [(1, "one".to_owned()), (2, String::new()), (3, "three".to_owned())]);
}
