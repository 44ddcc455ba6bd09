//! The machine's own disk.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};

use super::{Disk, DiskFile, Lock, OpenMode};

/// The file by which a folder is locked.
const LOCK_FILE: &str = "lock";

/// The machine's own disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

#[derive(Debug)]
#[expect(clippy::disallowed_types, reason = "this is the door")]
struct RealFile(fs::File);

#[derive(Debug)]
#[expect(clippy::disallowed_types, reason = "this is the door")]
struct RealLock {
    // Held, not read: the lock ends with it.
    _file: Flock<fs::File>,
}

impl Lock for RealLock {}

#[expect(clippy::disallowed_methods, reason = "this is the door")]
impl Disk for RealDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            if let Some(name) = OsStr::to_str(&entry?.file_name()) {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read);
        match mode {
            OpenMode::Read | OpenMode::Write => {}
            OpenMode::Create => {
                options.create_new(true);
            }
            OpenMode::CreatePrivate => {
                options.create_new(true).mode(0o600);
            }
        }
        Ok(Box::new(RealFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        open_plain(folder)?.sync_all()
    }

    fn lock(&self, folder: &Path) -> io::Result<Box<dyn Lock>> {
        let path = folder.join(LOCK_FILE);
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Box::new(RealLock { _file: file })),
            Err((_, errno)) => {
                let text = format!("{} is in use by another process ({errno})", folder.display());
                Err(io::Error::new(io::ErrorKind::WouldBlock, text))
            }
        }
    }
}

#[expect(clippy::disallowed_types, reason = "this is the door")]
fn open_plain(path: &Path) -> io::Result<fs::File> {
    fs::File::open(path)
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let length = i64::try_from(bytes).map_err(io::Error::other)?;
        fallocate(&self.0, FallocateFlags::empty(), 0, length)?;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
