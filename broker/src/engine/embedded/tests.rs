//! The embedded engine conforms, and what only it does: a full disk, a failed sync, damage.

use std::io;
use std::path::{Path, PathBuf};

use storage::disk::memory::{MemoryDisk, Operation};
use storage::disk::real::RealDisk;

use super::*;
use crate::engine::conformance::{self, faults};

/// Small, so that the list crosses segments.
const SMALL: Kept = Kept { segment_bytes: 4 << 10, reserve_bytes: 512 };

fn open(disk: Arc<dyn Disk>, folder: &Path) -> Embedded {
    Embedded::open(disk, folder, SMALL, &mut |_, _| {}).unwrap().engine
}

#[test]
fn it_conforms_in_memory() {
    let disk = MemoryDisk::default();
    conformance::check(&mut || Box::new(open(Arc::new(disk.clone()), Path::new("/log"))));
}

#[test]
fn it_conforms_on_a_real_disk() {
    let folder = tempfile::tempdir().unwrap();
    conformance::check(&mut || Box::new(open(Arc::new(RealDisk), folder.path())));
}

struct OnMemory(MemoryDisk);

impl faults::Rig for OnMemory {
    fn open(&mut self) -> Box<dyn Engine> {
        Box::new(open(Arc::new(self.0.clone()), Path::new("/log")))
    }

    fn fill(&mut self) {
        self.0.fail(Operation::Allocate, 0, io::ErrorKind::StorageFull, true);
    }

    fn relieve(&mut self) {
        self.0.heal();
    }

    fn crash(&mut self, seed: u64) {
        self.0.crash(seed);
    }
}

#[test]
fn it_conforms_on_a_full_disk_and_through_crashes() {
    faults::check(&mut || Box::new(OnMemory(MemoryDisk::default())));
}

#[test]
fn a_full_disk_is_no_end_and_a_failed_sync_is() {
    let disk = MemoryDisk::default();
    let mut engine = open(Arc::new(disk.clone()), Path::new("/log"));
    disk.fail(Operation::Allocate, 0, io::ErrorKind::StorageFull, true);
    let record = [1; 600];
    let full = loop {
        match engine.append(&record, Room::Plain) {
            Ok(_) => engine.commit(Durability::Sync).unwrap(),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::Full(_)));
    engine.append(b"let go", Room::Reserve).unwrap();
    engine.commit(Durability::Sync).unwrap();
    disk.heal();
    // A full disk is asked again after some refusals.
    assert!((0..100).any(|_| engine.append(&record, Room::Plain).is_ok()));
    engine.commit(Durability::Sync).unwrap();
    disk.fail(Operation::Sync, 0, io::ErrorKind::Other, false);
    engine.append(&record, Room::Plain).unwrap();
    assert!(matches!(engine.commit(Durability::Sync), Err(Error::Failed(_))));
    assert!(matches!(engine.append(&record, Room::Plain), Err(Error::Failed(_))), "it stays so");
}

#[test]
fn damage_is_named_with_its_place() {
    let disk = MemoryDisk::default();
    let folder = Path::new("/log");
    let mut engine = open(Arc::new(disk.clone()), folder);
    for _ in 0..3 {
        engine.append(b"a record of some bytes", Room::Plain).unwrap();
        engine.commit(Durability::Sync).unwrap();
    }
    drop(engine);
    let file: PathBuf = disk.list(folder).unwrap().into_iter().find(|name| name.contains("0001")).unwrap().into();
    disk.flip_bit(&folder.join(&file), 60, 1);
    match Embedded::open(Arc::new(disk), folder, SMALL, &mut |_, _| {}) {
        Err(Error::Damaged(text)) => {
            assert!(text.contains(file.to_str().unwrap()) && text.contains("byte"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}
