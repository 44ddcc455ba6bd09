//! The epoch: a number that grows with every start of the control plane.
//!
//! A role takes up no snapshot that is older than the one it runs on, so what a control plane sends must be numbered above all
//! that it sent in earlier lives. The epoch is the upper part of these numbers. It follows the clock, so that it also grows where
//! the folder was lost or brought back from a copy, and it is kept, so that it grows where the clock was set back. No role is
//! asked what it has seen: one that says more than was ever sent would say how all others of its service are numbered.

use std::io;
use std::path::Path;

use storage::disk::Disk;
use storage::kept;

const FILE: &str = "epoch";
/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 64;
/// Versions within one epoch, in bits. At 50 snapshots a second (changes within 20 ms become one) they last for hours, and what
/// is beyond them is still below the epoch of a start at that time, since a second of the clock is an epoch.
const VERSION_BITS: u32 = 20;
/// An epoch beyond this is a damaged file's: the clock gets there in half a million years, and all versions fit into 64 bits.
const EPOCH_MAX: u64 = 1 << 43;

/// Begins an epoch, which is on the disk when this returns. Answers the version above which snapshots are numbered in it.
///
/// # Errors
/// As the disk says.
pub(crate) fn begin(disk: &dyn Disk, dir: &Path, now_s: u64) -> io::Result<u64> {
    let path = dir.join(FILE);
    let before = match kept::read(disk, &path, FILE_BYTES_MAX) {
        Ok(Some(text)) => read(&text).ok_or_else(|| format!("{} is no epoch", path.display())),
        Ok(None) => Ok(0),
        Err(kept::Error::Disk { source, .. }) if source.kind() != io::ErrorKind::FileTooLarge => return Err(source),
        Err(error) => Err(error.to_string()),
    };
    let before = before.unwrap_or_else(|why| {
        tracing::warn!(%why, "the kept epoch cannot be read; the clock alone makes the next one");
        0
    });
    let epoch = (before + 1).max(now_s).min(EPOCH_MAX);
    kept::write(disk, &path, epoch.to_string().as_bytes())?;
    Ok(epoch << VERSION_BITS)
}

fn read(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok().filter(|epoch| *epoch < EPOCH_MAX)
}

#[cfg(test)]
mod tests {
    use storage::disk::{self, memory::MemoryDisk};

    use super::*;

    #[test]
    fn it_grows_with_every_start_whatever_clock_and_folder_do() {
        let (disk, dir) = (MemoryDisk::default(), Path::new("/control"));
        disk.create_dir_all(dir).unwrap();
        let kept = |text: &[u8]| disk::replace(&disk, &dir.join(FILE), text).unwrap();
        let begin = |now_s: u64| begin(&disk, dir, now_s).unwrap() >> VERSION_BITS;
        assert_eq!(begin(1_000), 1_000);
        assert_eq!(begin(1_000), 1_001, "twice in a second");
        assert_eq!(begin(10), 1_002, "the clock was set back");
        assert_eq!(begin(2_000), 2_000);
        kept(b"2500");
        assert_eq!(begin(2_000), 2_501, "as an earlier version wrote it");
        let mut turned = disk::read_whole(&disk, &dir.join(FILE), 1_000).unwrap();
        *turned.last_mut().unwrap() ^= 8;
        kept(&turned);
        assert_eq!(begin(2_700), 2_700, "a bit has turned: 2509");
        for damaged in [&b"many"[..], b"-1", b"", &[0xff; 8], &[b'9'; 80], b"18446744073709551615"] {
            kept(damaged);
            assert_eq!(begin(3_000), 3_000, "{damaged:?}");
        }
        kept(EPOCH_MAX.saturating_sub(1).to_string().as_bytes());
        assert_eq!(begin(3_000), EPOCH_MAX);
    }
}
