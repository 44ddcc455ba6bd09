//! The log on disks that crash, fail and rot.

mod crash;
mod damage;
mod fault;
mod read;
mod real;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::disk::Disk;
use storage::log::{Error, Log, Options, Recovery};

const FOLDER: &str = "/log";

/// Where the first frame begins.
const HEADER_BYTES: usize = 512;

/// How long the frame of a record of 100 bytes is.
const FRAME_BYTES: usize = 136;

fn open(disk: &(impl Disk + Clone + 'static), segment_bytes: u64) -> Result<(Log, Recovery, Vec<Vec<u8>>), Error> {
    let options = Options { segment_bytes, record_bytes_max: 1 << 16, reserve_bytes: 0, ..Options::default() };
    open_with(disk, options)
}

fn open_with(disk: &(impl Disk + Clone + 'static), options: Options) -> Result<(Log, Recovery, Vec<Vec<u8>>), Error> {
    let mut records = Vec::new();
    let (log, recovery) = Log::open(Arc::new(disk.clone()), Path::new(FOLDER), options, &mut |_, record| {
        records.push(record.to_vec());
    })?;
    Ok((log, recovery, records))
}

fn segment(first_sequence: u64) -> PathBuf {
    Path::new(FOLDER).join(format!("{first_sequence:020}.log"))
}
