//! The file beside a log's folder that says that there is a log: `log.made` beside `log`. So a folder that was emptied, or that is not there,
//! is not taken for one in which no log was made yet.

use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use crate::disk::Disk;
use crate::kept;

/// Largest marker, in bytes.
const BYTES_MAX: u64 = 4_096;

/// Where the marker of a log's folder is.
pub fn path(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".made");
    folder.with_file_name(name)
}

/// Whether the folder is known to have held a log. A marker that is damaged says so as well: there would be none else.
pub fn is_there(disk: &dyn Disk, folder: &Path) -> Result<bool, Error> {
    let path = path(folder);
    match kept::read(disk, &path, BYTES_MAX) {
        Ok(found) => Ok(found.is_some()),
        Err(kept::Error::Damaged { .. }) => Ok(true),
        Err(kept::Error::Disk { path, source }) => Err(Error::Disk { path, source }),
    }
}

/// Says that there is a log in the folder. On a full disk a log that is there goes on without, and is told again at the next start.
pub fn write(disk: &dyn Disk, folder: &Path, log_id: u64) -> Result<(), Error> {
    let path = path(folder);
    match kept::write(disk, &path, format!("a log is in {}\nid {log_id:016x}\n", folder.display()).as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            tracing::warn!(path = %path.display(), %error, "nothing outside of its folder says that there is a log");
            Ok(())
        }
        other => other.map_err(Error::disk(&path)),
    }
}
