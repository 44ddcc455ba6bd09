//! The file that says which log a folder holds and where it begins, so that a segment missing at the front, or all of them, is not
//! taken for one that was trimmed.
//!
//! ```text
//! meshwork log 1
//! id 0123456789abcdef
//! first 17
//! crc 89abcdef         (CRC-32C of the lines above)
//! ```

use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use crate::disk::{self, Disk};

const FILE: &str = "manifest";
const VERSION_LINE: &str = "meshwork log 1";
const BYTES_MAX: u64 = 4_096;

/// Which log, and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manifest {
    /// What tells this log's files from those of others.
    pub log_id: u64,
    /// The first sequence of the first segment that must be there.
    pub first_sequence: u64,
}

impl Manifest {
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
        disk::replace(disk, &path, self.to_text().as_bytes()).map_err(Error::disk(&path))
    }

    fn to_text(self) -> String {
        let text = format!("{VERSION_LINE}\nid {:016x}\nfirst {}\n", self.log_id, self.first_sequence);
        let crc = crc32c::crc32c(text.as_bytes());
        format!("{text}crc {crc:08x}\n")
    }
}

/// Where a folder's manifest is.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

fn parse(bytes: &[u8]) -> Result<Manifest, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let mut lines = text.lines();
    if lines.next() != Some(VERSION_LINE) {
        return Err("it is not the manifest of a log, or of a format version that is not known here");
    }
    let mut value = |key: &str| lines.next().and_then(|line| line.strip_prefix(key)).unwrap_or_default();
    let log_id = u64::from_str_radix(value("id "), 16);
    let first_sequence = value("first ").parse();
    match (log_id, first_sequence) {
        (Ok(log_id), Ok(first_sequence)) => {
            let manifest = Manifest { log_id, first_sequence };
            // Written again it must be the same, checksum and all.
            if manifest.to_text() == text { Ok(manifest) } else { Err("its checksum does not fit") }
        }
        _ => Err("its lines are not those of a manifest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_no_bit_of_it_may_turn() {
        let manifest = Manifest { log_id: 0xabc, first_sequence: 17 };
        let text = manifest.to_text();
        assert_eq!(parse(text.as_bytes()), Ok(manifest));
        for bit in 0..text.len() * 8 {
            let mut turned = text.clone().into_bytes();
            turned[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&turned).is_err(), "bit {bit}");
        }
    }
}
