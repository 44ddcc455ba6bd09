//! The file that says which log a folder holds, which records it has let go of, and how far it was synced: so that a segment that is missing is
//! not taken for one that was released, and an end that is missing not for the end.
//!
//! ```text
//! meshwork log 2
//! id 0123456789abcdef
//! first 17
//! through 4711         (everything before it was synced when this was written)
//! gone 1000 2000       (a line for each hole: records 1000 to 1999 were released)
//! crc 89abcdef         (CRC-32C of the lines above)
//! ```
//!
//! Version 1 ends after `first`. It is read, and never written.

use std::fmt::Write as _;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Error;
use crate::disk::{self, Disk, OpenMode};

const FILE: &str = "manifest";
/// What [`disk::replace`] writes first. One is kept beside the manifest for its room, so that a full disk can be told what goes.
const FRESH_FILE: &str = "manifest.new";
/// How much room is kept so, in bytes, besides what the manifest has.
const ROOM_BYTES: u64 = 4_096;
const VERSION_LINE: &str = "meshwork log 2";
const VERSION_LINE_1: &str = "meshwork log 1";
const BYTES_MAX: u64 = 16 << 20;

/// Which log, where it begins, and what it has let go of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What tells this log's files from those of others.
    pub log_id: u64,
    /// The first sequence of the first segment that must be there.
    pub first_sequence: u64,
    /// Everything before it was synced when this was written.
    pub synced_through: u64,
    /// The records behind the first one that were released, ascending.
    pub gone: Vec<Range<u64>>,
}

impl Manifest {
    /// Of a log without a record.
    pub fn new(log_id: u64) -> Self {
        Self { log_id, first_sequence: 1, synced_through: 1, gone: Vec::new() }
    }

    /// Reads a folder's manifest; `None`: it has none.
    pub fn read(disk: &dyn Disk, folder: &Path) -> Result<Option<Self>, Error> {
        let path = path(folder);
        let bytes = match disk::read_whole(disk, &path, BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Disk { path, source }),
        };
        match parse(&bytes) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(what) => Err(Error::Damaged { path, offset: 0, sequence: 0, what: what.to_owned() }),
        }
    }

    /// Writes it, durably and whole or not at all.
    pub fn write(&self, disk: &dyn Disk, folder: &Path) -> Result<(), Error> {
        let path = path(folder);
        let text = self.to_text();
        disk::replace(disk, &path, text.as_bytes()).map_err(Error::disk(&path))?;
        let room = disk.open(&folder.join(FRESH_FILE), OpenMode::Create);
        if let Err(error) = room.and_then(|file| file.allocate(text.len() as u64 + ROOM_BYTES)) {
            tracing::debug!(%error, "no room is kept for the log's next manifest");
        }
        Ok(())
    }

    /// Whether all of these records were released.
    pub fn is_gone(&self, records: &Range<u64>) -> bool {
        self.gone.iter().any(|gone| gone.start <= records.start && records.end <= gone.end)
    }

    fn to_text(&self) -> String {
        let Self { log_id, first_sequence, synced_through, gone } = self;
        let mut text = format!("{VERSION_LINE}\nid {log_id:016x}\nfirst {first_sequence}\nthrough {synced_through}\n");
        for Range { start, end } in gone {
            // A text takes whatever is written to it.
            let _ = writeln!(text, "gone {start} {end}");
        }
        sealed(text)
    }
}

/// Where a folder's manifest is.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

fn sealed(text: String) -> String {
    let crc = crc32c::crc32c(text.as_bytes());
    format!("{text}crc {crc:08x}\n")
}

fn parse(bytes: &[u8]) -> Result<Manifest, &'static str> {
    const ODD: &str = "its lines are not those of a manifest";
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let mut lines = text.lines();
    let version = lines.next();
    if ![Some(VERSION_LINE), Some(VERSION_LINE_1)].contains(&version) {
        return Err("it is not the manifest of a log, or of a format version that is not known here");
    }
    let mut value = |key: &str| lines.next().and_then(|line| line.strip_prefix(key)).ok_or(ODD);
    let log_id = u64::from_str_radix(value("id ")?, 16).map_err(|_| ODD)?;
    let first_sequence = value("first ")?.parse().map_err(|_| ODD)?;
    let mut manifest = Manifest { log_id, first_sequence, synced_through: first_sequence, gone: Vec::new() };
    if version == Some(VERSION_LINE_1) {
        let again = sealed(format!("{VERSION_LINE_1}\nid {log_id:016x}\nfirst {first_sequence}\n"));
        return if again == text { Ok(manifest) } else { Err("its checksum does not fit") };
    }
    manifest.synced_through = value("through ")?.parse().map_err(|_| ODD)?;
    for line in lines {
        let Some((start, end)) = line.strip_prefix("gone ").and_then(|line| line.split_once(' ')) else { break };
        manifest.gone.push(start.parse().map_err(|_| ODD)?..end.parse().map_err(|_| ODD)?);
    }
    // Written again it must be the same, checksum and all.
    if manifest.to_text() == text { Ok(manifest) } else { Err("its checksum does not fit") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_no_bit_of_it_may_turn() {
        let manifest = Manifest { log_id: 0xabc, first_sequence: 17, synced_through: 900, gone: vec![20..30, 40..100] };
        let version_1 = Manifest { log_id: 0xabc, first_sequence: 17, synced_through: 17, gone: Vec::new() };
        let text_1 = sealed(format!("{VERSION_LINE_1}\nid 0000000000000abc\nfirst 17\n"));
        for (text, expected) in [(manifest.to_text(), manifest), (text_1, version_1)] {
            assert_eq!(parse(text.as_bytes()), Ok(expected));
            for bit in 0..text.len() * 8 {
                let mut turned = text.clone().into_bytes();
                turned[bit / 8] ^= 1 << (bit % 8);
                assert!(parse(&turned).is_err(), "bit {bit}");
            }
        }
    }
}
