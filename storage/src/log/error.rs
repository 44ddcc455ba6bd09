//! What can go wrong with a log.

use std::io;
use std::path::{Path, PathBuf};

use super::marker;

/// What can go wrong.
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
    /// The disk has no room. The log is as it was before and goes on when there is room.
    #[error("no room on the disk for the log in {folder}; records are taken again when there is", folder = folder.display())]
    Full {
        /// The log's folder.
        folder: PathBuf,
    },
    /// What is on the disk is not what was written, and not a torn tail.
    #[error(
        "{path} is damaged at byte {offset}, where record {sequence} should stand: {what}. Nothing was changed. Put the file back from a copy; or give up what is in this log, `mv {folder} {folder}.damaged && rm -f {marker}`, and start again",
        path = path.display(),
        folder = path.parent().unwrap_or(path).display(),
        marker = marker::path(path.parent().unwrap_or(path)).display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// Which record should stand there.
        sequence: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The folder is known to have held a log, and holds none: it was emptied, or is not there.
    #[error(
        "the log in {folder} is gone: {marker} says that there is one. Nothing was made. Put the folder back from a copy; or give up what was in it, `rm {marker}`, and start again with an empty log",
        folder = folder.display(),
        marker = marker::path(folder).display()
    )]
    Gone {
        /// The log's folder.
        folder: PathBuf,
    },
    /// A write or a sync failed before: nothing is known of what reached the disk, so the log takes nothing more until it is opened anew.
    #[error("the log failed before ({cause}) and takes nothing until it is opened anew")]
    Poisoned {
        /// What failed.
        cause: String,
    },
    /// The record is larger than [`super::Options::record_bytes_max`].
    #[error("a record of {bytes} bytes is larger than {bytes_max}")]
    Large {
        /// Its size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// As much is waiting for a commit as [`super::Options::batch_bytes_max`] allows: commit first.
    #[error("{bytes_max} bytes wait for a commit already")]
    Backlog {
        /// The bound.
        bytes_max: usize,
    },
    /// There is no record with this sequence: released, or not committed yet.
    #[error("the log has no record {sequence}; it holds {first} up to before {next}")]
    Absent {
        /// Which was asked for.
        sequence: u64,
        /// The first one it has.
        first: u64,
        /// The one after its last.
        next: u64,
    },
    /// The options contradict each other: the caller's mistake.
    #[error("a log cannot be kept so: {0}")]
    Options(&'static str),
}

impl Error {
    pub(super) fn disk(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        |source| Self::Disk { path: path.to_owned(), source }
    }
}
