//! The machine's own disk.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};

use super::{Disk, DiskFile, Lock, OpenMode};

/// The file by which a folder is locked.
const LOCK_FILE: &str = "lock";

/// What is made here is its owner's alone, whatever the umask says.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// How many zeros are written at once where the file system cannot take room otherwise.
const ZEROS_BYTES: usize = 1 << 20;

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
        fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)
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
                options.create_new(true).mode(FILE_MODE);
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
        let file = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(&path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => {
                file.set_len(0)?;
                file.write_all_at(std::process::id().to_string().as_bytes(), 0)?;
                Ok(Box::new(RealLock { _file: file }))
            }
            Err((file, Errno::EWOULDBLOCK)) => {
                let owner = owner(&file).map_or_else(|| "another process".to_owned(), |id| format!("process {id}"));
                let text = format!("{} is in use by {owner}", folder.display());
                Err(io::Error::new(io::ErrorKind::WouldBlock, text))
            }
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

/// The process that wrote its number into the lock's file. Whoever dies leaves its number there, so it says something only
/// while the lock is taken.
#[expect(clippy::disallowed_types, reason = "this is the door")]
fn owner(lock: &fs::File) -> Option<u32> {
    let mut digits = [0; 10];
    let length = lock.read_at(&mut digits, 0).ok()?;
    std::str::from_utf8(&digits[..length]).ok()?.parse().ok()
}

#[expect(clippy::disallowed_types, reason = "this is the door")]
fn open_plain(path: &Path) -> io::Result<fs::File> {
    fs::File::open(path)
}

impl RealFile {
    fn write_zeros(&self, end: u64) -> io::Result<()> {
        let zeros = vec![0; ZEROS_BYTES];
        let mut offset = self.len()?;
        while offset < end {
            let length = zeros.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
            self.write_at(&zeros[..length], offset)?;
            offset += length as u64;
        }
        Ok(())
    }
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
        match fallocate(&self.0, FallocateFlags::empty(), 0, length) {
            // A file system that cannot promise room is given the zeros themselves.
            Err(Errno::EOPNOTSUPP) => self.write_zeros(bytes),
            other => Ok(other?),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
