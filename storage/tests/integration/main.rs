//! The log on disks that crash, fail and rot.

mod crash;
mod damage;
mod fault;
mod real;

use std::path::Path;
use std::sync::Arc;

use storage::disk::Disk;
use storage::log::{Error, Log, Options, Recovery};

const FOLDER: &str = "/log";

fn open(disk: &(impl Disk + Clone + 'static), segment_bytes: u64) -> Result<(Log, Recovery, Vec<Vec<u8>>), Error> {
    let mut records = Vec::new();
    let options = Options { segment_bytes, record_bytes_max: 1 << 16 };
    let (log, recovery) = Log::open(Arc::new(disk.clone()), Path::new(FOLDER), options, &mut |_, record| {
        records.push(record.to_vec());
    })?;
    Ok((log, recovery, records))
}
