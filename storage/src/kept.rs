//! Files that are kept for long and read whole: each begins with a line that tells its length and its checksum, so that one that
//! was cut or in which a bit has turned is not taken up.
//!
//! ```text
//! # kept by meshwork: 1234 bytes, crc32c 89abcdef
//! (the content)
//! ```
//!
//! PEM allows a text in front of it, so those who read PEM read on. A file without the line, as an earlier version or an operator wrote it,
//! is taken as it is.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{self, Disk};

const LINE_START: &str = "# kept by meshwork: ";
/// Longest first line, in bytes.
const LINE_BYTES_MAX: usize = 80;

/// Why a kept file cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk said no.
    #[error("{path}: {source}", path = path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{path} is damaged: {what}", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// Writes a kept file, durably and whole or not at all.
///
/// # Errors
/// As the disk says; the old content then stays.
pub fn write(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    disk::replace(disk, path, &with_line(content))
}

/// As [`write`], readable by its owner alone: for keys.
///
/// # Errors
/// As [`write`].
pub fn write_private(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    disk::replace_private(disk, path, &with_line(content))
}

/// The content of a kept file of at most `bytes_max` bytes; `None`: there is none.
///
/// # Errors
/// When the disk says no, or the file is not what was written.
pub fn read(disk: &dyn Disk, path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, Error> {
    match disk::read_whole(disk, path, bytes_max.saturating_add(LINE_BYTES_MAX as u64)) {
        Ok(bytes) => proven(bytes).map(Some).map_err(|what| Error::Damaged { path: path.to_owned(), what }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Disk { path: path.to_owned(), source }),
    }
}

fn with_line(content: &[u8]) -> Vec<u8> {
    let mut bytes = line(content).into_bytes();
    bytes.extend_from_slice(content);
    bytes
}

fn line(content: &[u8]) -> String {
    format!("{LINE_START}{} bytes, crc32c {:08x}\n", content.len(), crc32c::crc32c(content))
}

/// The content, when it is what the first line says.
fn proven(mut bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    if !bytes.starts_with(LINE_START.as_bytes()) {
        return Ok(bytes);
    }
    let Some(end) = bytes.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
        return Err("its first line does not end".to_owned());
    };
    let content = bytes.split_off(end + 1);
    if line(&content).as_bytes() == bytes {
        return Ok(content);
    }
    let said = String::from_utf8_lossy(&bytes[LINE_START.len()..end]);
    let (length, crc) = (content.len(), crc32c::crc32c(&content));
    Err(format!("its first line says \"{said}\", and it has {length} bytes, crc32c {crc:08x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::memory::MemoryDisk;

    const FILE: &str = "/kept/file";

    fn disk() -> MemoryDisk {
        let disk = MemoryDisk::default();
        disk.create_dir_all(Path::new("/kept")).unwrap();
        disk
    }

    #[test]
    fn it_reads_back_and_neither_a_turned_bit_nor_a_cut_is_taken_up() {
        let (disk, path) = (disk(), Path::new(FILE));
        let content = b"-----BEGIN SOMETHING-----\nabc\n-----END SOMETHING-----\n";
        write(&disk, path, content).unwrap();
        assert_eq!(read(&disk, path, 100).unwrap().as_deref(), Some(&content[..]));
        let whole = disk::read_whole(&disk, path, 1_000).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut turned = whole.clone();
            turned[bit / 8] ^= 1 << (bit % 8);
            disk::replace(&disk, path, &turned).unwrap();
            // A line that is none any more leaves a file without one: its content is what it was, with an odd line in front of it.
            let is_line = bit / 8 < LINE_START.len();
            match read(&disk, path, 100) {
                Err(Error::Damaged { .. }) => assert!(!is_line, "bit {bit}"),
                Ok(Some(read)) => assert!(is_line && read.ends_with(content), "bit {bit}"),
                other => panic!("bit {bit}: {other:?}"),
            }
        }
        for length in LINE_START.len()..whole.len() {
            disk::replace(&disk, path, &whole[..length]).unwrap();
            assert!(matches!(read(&disk, path, 100), Err(Error::Damaged { .. })), "cut to {length}");
        }
    }

    #[test]
    fn a_file_without_the_line_is_taken_as_it_is_and_no_file_is_none() {
        let (disk, path) = (disk(), Path::new(FILE));
        assert!(read(&disk, path, 100).unwrap().is_none());
        disk::replace(&disk, path, b"by hand").unwrap();
        assert_eq!(read(&disk, path, 100).unwrap().unwrap(), b"by hand");
    }
}
