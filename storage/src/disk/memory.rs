//! A disk in memory that crashes as a real one may: what was not synced is lost or torn, as a seed decides.
//!
//! It outlives the "process" that wrote to it: clones share the files. Faults are asked for by [`MemoryDisk::fail`]. Made folders are
//! durable at once, and a sector ([`SECTOR_BYTES`]) is never torn: what is built on this disk may count on that much.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, Lock, OpenMode};
use file::File;

pub use file::SECTOR_BYTES;

/// A disk in memory; clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<State>>);

/// What a disk may be asked to fail at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Writing bytes.
    Write,
    /// Syncing a file or a folder.
    Sync,
    /// Taking room.
    Allocate,
}

#[derive(Debug, Default)]
struct State {
    folders: BTreeSet<PathBuf>,
    /// The names as they are seen now.
    names: BTreeMap<PathBuf, Inode>,
    /// The names as a crash would leave them.
    durable_names: BTreeMap<PathBuf, Inode>,
    /// What was done to the names of each folder since it was synced, in order.
    unsynced: BTreeMap<PathBuf, Vec<Change>>,
    files: BTreeMap<Inode, File>,
    next: Inode,
    locks: BTreeSet<PathBuf>,
    /// Grows with each crash, so that what an earlier life holds open can no longer write.
    life: u64,
    faults: Vec<Fault>,
    /// How many bytes its files may have together when room is taken; `None`: any.
    room_bytes: Option<u64>,
}

type Inode = u64;

#[derive(Debug, Clone)]
enum Change {
    Created(PathBuf, Inode),
    Removed(PathBuf),
    Renamed(PathBuf, PathBuf),
}

impl Change {
    fn apply(self, names: &mut BTreeMap<PathBuf, Inode>) {
        match self {
            Self::Created(path, inode) => {
                names.insert(path, inode);
            }
            Self::Removed(path) => {
                names.remove(&path);
            }
            Self::Renamed(from, to) => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
        }
    }
}

#[derive(Debug)]
struct Fault {
    operation: Operation,
    after: u64,
    kind: io::ErrorKind,
    for_ever: bool,
}

impl MemoryDisk {
    /// The machine stops. Of what was not synced, each file keeps nothing, everything, a beginning or any of its sectors, and each folder
    /// keeps the first of its changes, as `seed` decides. Files held open from before are dead.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state();
        let mut random = Random(seed ^ 0x9e37_79b9_7f4a_7c15);
        state.life += 1;
        state.locks.clear();
        for changes in std::mem::take(&mut state.unsynced).into_values() {
            let kept = random.below(changes.len() + 1);
            for change in changes.into_iter().take(kept) {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        for file in state.files.values_mut() {
            file.crash(&mut random);
        }
        state.forget_nameless();
    }

    /// The process ends without a word, and the machine goes on: nothing is lost, and what was held open is dead.
    pub fn kill(&self) {
        let mut state = self.state();
        state.life += 1;
        state.locks.clear();
        state.files.values_mut().for_each(|file| file.handles = 0);
        state.forget_nameless();
    }

    /// Lets the operation fail with `kind` after `after` more that succeed: once, or for ever.
    pub fn fail(&self, operation: Operation, after: u64, kind: io::ErrorKind, for_ever: bool) {
        self.state().faults.push(Fault { operation, after, kind, for_ever });
    }

    /// From now on room is refused (`StorageFull`) when all files together would be longer than that. What only writes is not held back.
    pub fn bound(&self, room_bytes: u64) {
        self.state().room_bytes = Some(room_bytes);
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
        let flipped = state.files.get_mut(&inode).is_some_and(|file| file.flip_bit(offset as u64, bit));
        assert!(flipped, "{} has no byte {offset}", path.display());
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

    /// Whether there is room for a file to be `bytes` long.
    fn check_room(&self, inode: Inode, bytes: u64) -> io::Result<()> {
        let others = self.names.values().filter(|other| **other != inode).filter_map(|other| self.files.get(other));
        let used: u64 = others.map(File::length).sum();
        match self.room_bytes {
            Some(room_bytes) if used + bytes > room_bytes => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn change(&mut self, change: Change) {
        let (Change::Created(path, _) | Change::Removed(path) | Change::Renamed(_, path)) = &change;
        let folder = path.parent().unwrap_or(path).to_owned();
        self.unsynced.entry(folder).or_default().push(change.clone());
        change.apply(&mut self.names);
    }

    /// Frees the files that no name and no handle leads to, now or after a crash.
    fn forget_nameless(&mut self) {
        let named: BTreeSet<Inode> = self.names.values().chain(self.durable_names.values()).copied().collect();
        let pending = self.unsynced.values().flatten().any(|change| matches!(change, Change::Created(..)));
        self.files.retain(|inode, file| file.handles > 0 || pending || named.contains(inode));
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
                state.change(Change::Created(path.to_owned(), inode));
                inode
            }
        };
        if let Some(file) = state.files.get_mut(&inode) {
            file.handles += 1;
        }
        Ok(Box::new(MemoryFile { disk: self.clone(), inode, life: state.life, write: mode != OpenMode::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(Change::Renamed(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(Change::Removed(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.folders.contains(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.check(Operation::Sync)?;
        for change in state.unsynced.remove(folder).unwrap_or_default() {
            change.apply(&mut state.durable_names);
        }
        state.forget_nameless();
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

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life
            && let Some(file) = state.files.get_mut(&self.inode)
        {
            file.handles -= 1;
        }
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(None, |file| file.read(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(Some(Operation::Write), |file| file.write(bytes, offset))
    }

    fn len(&self) -> io::Result<u64> {
        self.with(None, |file| file.length())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.with(Some(Operation::Write), |file| file.set_length(bytes))
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.disk.state().check_room(self.inode, bytes)?;
        self.with(Some(Operation::Allocate), |file| {
            if file.length() < bytes {
                file.set_length(bytes);
            }
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(Some(Operation::Sync), File::sync)
    }
}

/// splitmix64 (Steele, Lea, Flood 2014): enough to choose what a crash leaves.
#[derive(Debug)]
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

    fn disk() -> MemoryDisk {
        let disk = MemoryDisk::default();
        disk.create_dir_all(Path::new("/d")).unwrap();
        disk
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_any_sectors_of_the_rest() {
        let path = Path::new("/d/f");
        let sector = |byte: u8| [byte; SECTOR_BYTES as usize];
        let mut outcomes = BTreeSet::new();
        for seed in 0..400 {
            let disk = disk();
            let file = disk.open(path, OpenMode::Create).unwrap();
            file.allocate(4 * SECTOR_BYTES).unwrap();
            file.write_at(&sector(1), 0).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            file.write_at(&[sector(2), sector(3), sector(4)].concat(), SECTOR_BYTES).unwrap();
            disk.crash(seed);
            assert!(file.write_at(b"x", 0).is_err(), "a file of an earlier life is dead");
            let left = read_whole(&disk, path, 10_000).unwrap();
            let first_bytes: Vec<u8> = left.chunks(SECTOR_BYTES as usize).map(|sector| sector[0]).collect();
            assert!(left.chunks(SECTOR_BYTES as usize).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            outcomes.insert(first_bytes);
        }
        assert!(outcomes.iter().all(|left| left.len() == 4 && left[0] == 1));
        assert_eq!(outcomes.len(), 8, "each of three sectors is there or not: {outcomes:?}");
    }

    #[test]
    fn a_crash_keeps_the_first_changes_of_a_folder() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..100 {
            let disk = disk();
            replace(&disk, Path::new("/d/a"), b"old").unwrap();
            disk.rename(Path::new("/d/a"), Path::new("/d/b")).unwrap();
            disk.open(Path::new("/d/c"), OpenMode::Create).unwrap();
            disk.remove(Path::new("/d/b")).unwrap();
            disk.crash(seed);
            outcomes.insert(disk.list(Path::new("/d")).unwrap().join(" "));
        }
        assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), ["a", "b", "b c", "c"]);
    }

    #[test]
    fn the_same_seed_leaves_the_same() {
        let left = |seed| {
            let disk = disk();
            let file = disk.open(Path::new("/d/f"), OpenMode::Create).unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            file.write_at(&[7; 20_000], 100).unwrap();
            disk.crash(seed);
            read_whole(&disk, Path::new("/d/f"), 100_000).unwrap()
        };
        for seed in 0..20 {
            assert_eq!(left(seed), left(seed));
        }
    }

    #[test]
    fn what_is_cut_off_is_zeros_when_the_file_grows_again() {
        let disk = disk();
        let file = disk.open(Path::new("/d/f"), OpenMode::Create).unwrap();
        file.write_at(&[7; 9_000], 0).unwrap();
        file.set_len(10).unwrap();
        file.allocate(9_000).unwrap();
        let left = read_whole(&disk, Path::new("/d/f"), 9_000).unwrap();
        assert_eq!(left, [vec![7; 10], vec![0; 8_990]].concat());
    }

    #[test]
    fn a_replaced_file_is_the_old_or_the_new_one() {
        let path = Path::new("/d/f");
        let disk = disk();
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
