//! The door to files: a small trait with the real disk, and one in memory that crashes and fails on demand, behind it.
//!
//! Nothing else in Meshwork opens a file (clippy's disallowed lists hold it), so that the same code runs on the machine's disk
//! and on the simulation's. All calls block; the data path never makes one.

pub mod memory;
pub mod real;

use std::fmt::Debug;
use std::io;
use std::path::Path;

/// Where files are.
pub trait Disk: Debug + Send + Sync {
    /// Makes a folder and those above it, open to their owner alone (mode 0700); one that is there is no error, and stays as it is.
    ///
    /// # Errors
    /// As the disk says.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// The names of the files and folders in a folder, sorted.
    ///
    /// # Errors
    /// As the disk says; `NotFound` where there is no such folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Opens a file.
    ///
    /// # Errors
    /// As the disk says.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name; one that has it already is replaced. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// As the disk says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// As the disk says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the folder's entries durable: what was created, renamed or removed in it (fsync(2) on the directory).
    ///
    /// # Errors
    /// As the disk says.
    fn sync_dir(&self, folder: &Path) -> io::Result<()>;

    /// Whether there is a file of this name.
    ///
    /// # Errors
    /// As the disk says.
    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.open(path, OpenMode::Read) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes `folder` for this process alone, for as long as the lock lives. Two locks of one process exclude each other as well.
    ///
    /// # Errors
    /// `WouldBlock` when another one has it; the text names the folder and, where it is known, the other process.
    fn lock(&self, folder: &Path) -> io::Result<Box<dyn Lock>>;
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// To read; it must be there.
    Read,
    /// To read and write; it must be there.
    Write,
    /// To read and write; it must not be there. It is readable by its owner alone (mode 0600): there are keys, messages and settings
    /// with passwords in these files, and whoever else is to read one is given it by its owner.
    Create,
}

/// An open file.
pub trait DiskFile: Debug + Send + Sync {
    /// Reads as much as there is at `offset`, at most the buffer's length; 0 at the end.
    ///
    /// # Errors
    /// As the disk says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// As the disk says; part of the bytes may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// The file's length in bytes.
    ///
    /// # Errors
    /// As the disk says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// As the disk says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file, or lengthens it with zeros.
    ///
    /// # Errors
    /// As the disk says.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Lengthens the file to `bytes` with zeros and takes the room on the disk for it, so that later writes neither run out of room
    /// nor change the file's size, which makes a sync cheaper (docs/decisions/2026-11-24-storage.md has the figures). A file that is
    /// longer stays so.
    ///
    /// # Errors
    /// As the disk says, `StorageFull` above all.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Makes what was written durable (fdatasync(2)). After an error nothing is known of what was written since the last good one
    /// (fsyncgate, PostgreSQL 2018): the caller must give the file up.
    ///
    /// # Errors
    /// As the disk says.
    fn sync_data(&self) -> io::Result<()>;
}

/// A folder is this process's for as long as this lives.
pub trait Lock: Debug + Send + Sync {}

/// Reads a whole file of at most `bytes_max` bytes.
///
/// # Errors
/// As the disk says; `FileTooLarge` when it is longer.
pub fn read_whole(disk: &dyn Disk, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let length = file.len()?;
    if length > bytes_max {
        let text = format!("{} has {length} bytes, more than {bytes_max}", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    read_exact_at(&*file, &mut bytes, 0)?;
    Ok(bytes)
}

/// Fills `buffer` from `offset`.
///
/// # Errors
/// As the disk says; `UnexpectedEof` when the file ends before.
pub fn read_exact_at(file: &dyn DiskFile, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
        }
    }
    Ok(())
}

/// Replaces a file's content whole or not at all, and durably: a new file beside it, synced, renamed over it, folder synced.
///
/// # Errors
/// As the disk says; the old content then stays.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    // A crash between creating and renaming leaves one behind.
    match disk.remove(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.open(&fresh, OpenMode::Create)?;
    file.write_at(bytes, 0)?;
    file.sync_data()?;
    drop(file);
    disk.rename(&fresh, path)?;
    match path.parent() {
        Some(folder) => disk.sync_dir(folder),
        None => Ok(()),
    }
}
