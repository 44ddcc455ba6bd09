//! Measures what a commit costs on the disk of the folder that is given: `cargo run --release -p storage --example group_commit -- FOLDER`.
//!
//! First the disk alone, one write of 1 KiB and one sync at a time, by how the file's room was made; then the log, in batches. It is a
//! tool for deciding (docs/decisions/2026-11-24-storage.md), not a test: nothing is asserted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use storage::disk::real::RealDisk;
use storage::disk::{Disk as _, DiskFile, OpenMode};
use storage::log::{Level, Log, Options};

const RECORD_BYTES: usize = 1 << 10;
const CASE: Duration = Duration::from_secs(2);
const FILE_BYTES: u64 = 64 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from).join("group_commit");
    RealDisk.create_dir_all(&folder)?;
    println!("{:<44} {:>10} {:>10} {:>10}", "case", "records/s", "p50 us", "p99 us");
    for (name, room) in [
        ("file that grows", Room::Grow),
        ("file with room taken", Room::Taken),
        ("file with zeros written", Room::Zeros),
    ] {
        let file = file(&folder, room)?;
        let mut offset = 0;
        report(name, 1, || {
            file.write_at(&[7; RECORD_BYTES], offset)?;
            offset = (offset + RECORD_BYTES as u64) % FILE_BYTES;
            file.sync_data()
        })?;
    }
    for (level, name) in [(Level::Sync, "sync"), (Level::Os, "os")] {
        for batch in [1, 16, 64, 256] {
            let mut log = log(&folder)?;
            report(&format!("log, {name}, {batch} records per commit"), batch, || {
                for _ in 0..batch {
                    log.append(&[&[7; RECORD_BYTES]]).map_err(std::io::Error::other)?;
                }
                log.commit(level).map_err(std::io::Error::other)
            })?;
            let all: Vec<u64> = log.segments().iter().map(|segment| segment.first_sequence).collect();
            log.release(&all)?;
        }
    }
    clear(&folder)?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Room {
    Grow,
    Taken,
    Zeros,
}

fn file(folder: &Path, room: Room) -> std::io::Result<Box<dyn DiskFile>> {
    clear(folder)?;
    let file = RealDisk.open(&folder.join("file"), OpenMode::Create)?;
    if room != Room::Grow {
        file.allocate(FILE_BYTES)?;
    }
    if room == Room::Zeros {
        file.write_at(&vec![0; FILE_BYTES as usize], 0)?;
    }
    file.sync_data()?;
    Ok(file)
}

fn log(folder: &Path) -> Result<Log, Box<dyn std::error::Error>> {
    clear(folder)?;
    Ok(Log::open(Arc::new(RealDisk), folder, Options::default(), &mut |_, _| {})?.0)
}

fn clear(folder: &Path) -> std::io::Result<()> {
    RealDisk.list(folder)?.iter().try_for_each(|name| RealDisk.remove(&folder.join(name)))?;
    // What says that there was a log.
    let marker = folder.with_extension("made");
    if RealDisk.exists(&marker)? { RealDisk.remove(&marker) } else { Ok(()) }
}

fn report(name: &str, records: usize, mut commit: impl FnMut() -> std::io::Result<()>) -> std::io::Result<()> {
    let mut took = Vec::new();
    let start = Instant::now();
    while start.elapsed() < CASE {
        let before = Instant::now();
        commit()?;
        took.push(before.elapsed());
    }
    let rate = (took.len() * records) as f64 / start.elapsed().as_secs_f64();
    took.sort_unstable();
    let percentile = |percent: usize| took[(took.len() - 1) * percent / 100].as_micros();
    println!("{name:<44} {rate:>10.0} {:>10} {:>10}", percentile(50), percentile(99));
    Ok(())
}
