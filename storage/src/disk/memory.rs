//! A disk in memory that crashes as a real one may: what was not synced is lost or torn, as a seed decides.
//!
//! It outlives the "process" that wrote to it: clones share the files. Faults are asked for by [`MemoryDisk::fail`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, Lock, OpenMode};

/// A disk in memory; clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<State>>);

/// What a disk may be asked to fail at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Writing bytes.
    Write,
    /// Syncing a file.
    Sync,
    /// Taking room.
    Allocate,
}

#[derive(Debug, Default)]
struct State {
    folders: std::collections::BTreeSet<PathBuf>,
    /// The names as they are seen now.
    names: BTreeMap<PathBuf, Inode>,
    /// The names as a crash would leave them.
    durable_names: BTreeMap<PathBuf, Inode>,
    files: BTreeMap<Inode, File>,
    next: Inode,
    locks: std::collections::BTreeSet<PathBuf>,
    /// Grows with each crash, so that what an earlier life holds open can no longer write.
    life: u64,
    faults: Vec<Fault>,
}

type Inode = u64;

#[derive(Debug, Default)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync, in order.
    unsynced: Vec<(u64, Vec<u8>)>,
    /// The length changed by other means since the last sync.
    resized: bool,
}

#[derive(Debug)]
struct Fault {
    operation: Operation,
    after: u64,
    kind: io::ErrorKind,
    for_ever: bool,
}

impl MemoryDisk {
    /// The machine stops: of what was not synced, each file keeps a prefix of its writes, the last one perhaps torn, as `seed`
    /// decides; names that were not synced are lost. Files held open from before are dead.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state();
        let mut random = Random(seed ^ 0x9e37_79b9_7f4a_7c15);
        state.life += 1;
        state.locks.clear();
        state.names = state.durable_names.clone();
        let kept: Vec<Inode> = state.names.values().copied().collect();
        state.files.retain(|inode, _| kept.contains(inode));
        for file in state.files.values_mut() {
            file.crash(&mut random);
        }
    }

    /// Lets the operation fail with `kind` after `after` more that succeed: once, or for ever.
    pub fn fail(&self, operation: Operation, after: u64, kind: io::ErrorKind, for_ever: bool) {
        self.state().faults.push(Fault { operation, after, kind, for_ever });
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Turns one bit over, in what is seen and in what is durable.
    ///
    /// # Panics
    /// When there is no such file or byte: a test's own mistake.
    pub fn flip_bit(&self, path: &Path, offset: usize, bit: u8) {
        let mut state = self.state();
        let inode = state.names[path];
        let Some(file) = state.files.get_mut(&inode) else { return };
        file.now[offset] ^= 1 << bit;
        if let Some(byte) = file.durable.get_mut(offset) {
            *byte ^= 1 << bit;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&mut self, operation: Operation) -> io::Result<()> {
        let Some(index) = self.faults.iter().position(|fault| fault.operation == operation) else { return Ok(()) };
        let fault = &mut self.faults[index];
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        let kind = fault.kind;
        if !fault.for_ever {
            self.faults.remove(index);
        }
        Err(kind.into())
    }
}

impl File {
    fn write(&mut self, bytes: &[u8], offset: u64) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start + bytes.len();
        if self.now.len() < end {
            self.now.resize(end, 0);
        }
        self.now[start..end].copy_from_slice(bytes);
        self.unsynced.push((offset, bytes.to_vec()));
    }

    fn sync(&mut self) {
        if self.resized || self.durable.len() != self.now.len() {
            self.durable.clone_from(&self.now);
        } else {
            for (offset, bytes) in &self.unsynced {
                let start = usize::try_from(*offset).unwrap_or(usize::MAX);
                self.durable[start..start + bytes.len()].copy_from_slice(bytes);
            }
        }
        self.unsynced.clear();
        self.resized = false;
    }

    fn crash(&mut self, random: &mut Random) {
        let mut left = std::mem::take(&mut self.durable);
        let survive = random.below(self.unsynced.len() + 1);
        for (index, (offset, bytes)) in self.unsynced.drain(..).enumerate().take(survive) {
            let whole = index + 1 < survive;
            let length = if whole { bytes.len() } else { random.below(bytes.len() + 1) };
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            if left.len() < start + length {
                left.resize(start + length, 0);
            }
            left[start..start + length].copy_from_slice(&bytes[..length]);
        }
        self.now.clone_from(&left);
        self.durable = left;
        self.resized = false;
    }
}

impl Disk for MemoryDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        for folder in path.ancestors() {
            state.folders.insert(folder.to_owned());
        }
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if !state.folders.contains(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.keys().chain(&state.folders).filter(|path| path.parent() == Some(folder));
        let mut names: Vec<String> = inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let inode = match (state.names.get(path).copied(), mode) {
            (Some(inode), OpenMode::Read | OpenMode::Write) => inode,
            (None, OpenMode::Read | OpenMode::Write) => return Err(io::ErrorKind::NotFound.into()),
            (Some(_), OpenMode::Create | OpenMode::CreatePrivate) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, OpenMode::Create | OpenMode::CreatePrivate) => {
                if path.parent().is_some_and(|folder| !state.folders.contains(folder)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                state.next += 1;
                let inode = state.next;
                state.files.insert(inode, File::default());
                state.names.insert(path.to_owned(), inode);
                inode
            }
        };
        Ok(Box::new(MemoryFile { disk: self.clone(), inode, life: state.life, write: mode != OpenMode::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().names.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.durable_names.retain(|path, _| path.parent() != Some(folder));
        let fresh: Vec<_> = state
            .names
            .iter()
            .filter(|(path, _)| path.parent() == Some(folder))
            .map(|(path, inode)| (path.clone(), *inode))
            .collect();
        state.durable_names.extend(fresh);
        Ok(())
    }

    fn lock(&self, folder: &Path) -> io::Result<Box<dyn Lock>> {
        let mut state = self.state();
        if !state.locks.insert(folder.to_owned()) {
            let text = format!("{} is in use", folder.display());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        Ok(Box::new(MemoryLock { disk: self.clone(), folder: folder.to_owned(), life: state.life }))
    }
}

#[derive(Debug)]
struct MemoryLock {
    disk: MemoryDisk,
    folder: PathBuf,
    life: u64,
}

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locks.remove(&self.folder);
        }
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    inode: Inode,
    life: u64,
    write: bool,
}

impl MemoryFile {
    fn with<T>(&self, change: Option<Operation>, work: impl FnOnce(&mut File) -> T) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.life != self.life {
            return Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the machine has crashed since this file was opened",
            ));
        }
        if let Some(operation) = change {
            if !self.write {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            state.check(operation)?;
        }
        let file = state.files.get_mut(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        Ok(work(file))
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(None, |file| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(file.now.len());
            let length = buffer.len().min(file.now.len() - start);
            buffer[..length].copy_from_slice(&file.now[start..start + length]);
            length
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(Some(Operation::Write), |file| file.write(bytes, offset))
    }

    fn len(&self) -> io::Result<u64> {
        self.with(None, |file| file.now.len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.with(Some(Operation::Write), |file| {
            file.now.resize(usize::try_from(bytes).unwrap_or(usize::MAX), 0);
            file.resized = true;
        })
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.with(Some(Operation::Allocate), |file| {
            let length = usize::try_from(bytes).unwrap_or(usize::MAX);
            if file.now.len() < length {
                file.now.resize(length, 0);
                file.resized = true;
            }
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(Some(Operation::Sync), File::sync)
    }
}

/// splitmix64 (Steele, Lea, Flood 2014): enough to choose what a crash leaves.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound.max(1) as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{read_whole, replace};

    #[test]
    fn a_crash_keeps_what_was_synced_and_no_more_than_a_prefix_of_the_rest() {
        let path = Path::new("/d/f");
        for seed in 0..200 {
            let disk = MemoryDisk::default();
            disk.create_dir_all(Path::new("/d")).unwrap();
            let file = disk.open(path, OpenMode::Create).unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            file.write_at(b"durable", 0).unwrap();
            file.sync_data().unwrap();
            file.write_at(b"maybe", 7).unwrap();
            disk.crash(seed);
            assert!(file.write_at(b"x", 0).is_err(), "a file of an earlier life is dead");
            let left = read_whole(&disk, path, 100).unwrap();
            assert!(b"durablemaybe".starts_with(&left) && left.len() >= 7, "{left:?}");
        }
    }

    #[test]
    fn a_replaced_file_is_the_old_or_the_new_one() {
        let path = Path::new("/d/f");
        let disk = MemoryDisk::default();
        disk.create_dir_all(Path::new("/d")).unwrap();
        replace(&disk, path, b"old").unwrap();
        disk.fail(Operation::Sync, 0, io::ErrorKind::Other, false);
        assert!(replace(&disk, path, b"new").is_err());
        disk.crash(1);
        assert_eq!(read_whole(&disk, path, 100).unwrap(), b"old");
        replace(&disk, path, b"new").unwrap();
        disk.crash(2);
        assert_eq!(read_whole(&disk, path, 100).unwrap(), b"new");
    }
}
