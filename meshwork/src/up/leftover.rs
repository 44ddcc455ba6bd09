//! Processes that lost their parent: they come to this one, and end with it.
//!
//! An application may start processes of its own and be killed before them. Linux gives such orphans to the nearest ancestor that
//! asked for them (prctl(2), PR_SET_CHILD_SUBREAPER); so at the end whatever still hangs on this process is ended.
//!
//! Where this process itself is killed nobody does that. The roles and applications end with it all the same (PR_SET_PDEATHSIG), but
//! not what the applications have started; so all of them carry the mesh's folder in their environment, and the next run in
//! that folder ends whoever still does.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use model::name::Name;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use storage::disk::{Disk as _, OpenMode, real::RealDisk};

/// Longest `/proc/PID/stat`, in bytes.
const STAT_BYTES_MAX: usize = 1 << 12;

/// From now on orphans of this process's descendants come to it.
pub fn adopt() {
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        tracing::warn!(%error, "orphans of the applications will not be found");
    }
}

/// Kills every child that this process still has, and theirs, and answers how many.
pub fn end() -> usize {
    let all = processes();
    let mut family = vec![std::process::id()];
    let mut at = 0;
    while at < family.len() {
        let parent = family[at];
        family.extend(all.iter().filter(|process| process.parent == parent && !process.dead).map(|process| process.id));
        at += 1;
    }
    let mut ended = 0;
    for id in family.into_iter().skip(1).filter_map(|id| i32::try_from(id).ok()) {
        ended += usize::from(kill(Pid::from_raw(id), Signal::SIGKILL).is_ok());
    }
    ended
}

/// The variable that says to which mesh's folder a process belongs.
pub(crate) const MARK: &str = "MESHWORK_UP";
/// The variable that says to which instance of it.
pub(crate) const MARK_INSTANCE: &str = "MESHWORK_UP_INSTANCE";

/// Longest environment that is looked at, in bytes; Linux gives a process 2 MiB of it unless told otherwise (execve(2)).
const ENVIRONMENT_BYTES_MAX: usize = 2 << 20;

/// How long the killed may take to be gone.
const GONE_BOUND: Duration = Duration::from_secs(2);

/// Kills every process that an earlier run in `folder` has left behind, and answers how many there were. The folder must be this
/// process's alone: then nobody else's carry its name.
pub(crate) fn end_of(folder: &Path) -> usize {
    end_marked(&[mark(MARK, folder.as_os_str().as_bytes())])
}

/// The same of one instance, whose own process has ended. An application that goes into the background outlives its sidecar, and has
/// the port that the next one is to listen on.
pub(crate) fn end_of_instance(folder: &Path, instance: &Name) -> usize {
    end_marked(&[mark(MARK, folder.as_os_str().as_bytes()), mark(MARK_INSTANCE, instance.as_str().as_bytes())])
}

fn mark(variable: &str, value: &[u8]) -> Vec<u8> {
    [variable.as_bytes(), b"=", value].concat()
}

fn end_marked(marks: &[Vec<u8>]) -> usize {
    let spared = ancestors();
    let marked = |process: &Process| !process.dead && !spared.contains(&process.id) && carries(process.id, marks);
    let left: Vec<u32> = processes().iter().filter(|process| marked(process)).map(|process| process.id).collect();
    for id in left.iter().filter_map(|id| i32::try_from(*id).ok()) {
        // One that has just ended by itself is no loss.
        let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
    }
    // What they held, such as a port, is free only when they are gone.
    let end = Instant::now() + GONE_BOUND;
    while left.iter().any(|id| process(*id).is_some_and(|process| !process.dead)) && Instant::now() < end {
        std::thread::yield_now();
    }
    left.len()
}

/// This process and those above it: `up` may be called by a process of the mesh that it is to run anew.
fn ancestors() -> Vec<u32> {
    let all = processes();
    let mut line = vec![std::process::id()];
    while let Some(parent) = all.iter().find(|process| Some(&process.id) == line.last()).map(|process| process.parent)
        && !line.contains(&parent)
    {
        line.push(parent);
    }
    line
}

/// Whether a process was started with exactly these in its environment. Nobody is told of others' processes.
fn carries(id: u32, marks: &[Vec<u8>]) -> bool {
    let path = Path::new("/proc").join(id.to_string()).join("environ");
    let Ok(file) = RealDisk.open(&path, OpenMode::Read) else { return false };
    let (mut environment, mut piece) = (Vec::new(), vec![0; STAT_BYTES_MAX]);
    while environment.len() < ENVIRONMENT_BYTES_MAX {
        match file.read_at(&mut piece, environment.len() as u64) {
            Ok(0) | Err(_) => break,
            Ok(length) => environment.extend_from_slice(&piece[..length]),
        }
    }
    marks.iter().all(|mark| environment.split(|byte| *byte == 0).any(|variable| variable == mark))
}

/// When a process that lives was started, in the kernel's ticks since it booted; `None` where there is none.
pub(crate) fn started(id: u32) -> Option<u64> {
    process(id).filter(|process| !process.dead).map(|process| process.started)
}

/// Whether a signal has stopped a process, such as SIGSTOP or a Ctrl-Z, so that it does nothing until it is continued.
pub(crate) fn is_stopped(id: u32) -> bool {
    process(id).is_some_and(|process| process.stopped)
}

struct Process {
    id: u32,
    parent: u32,
    /// It has ended and waits for its parent to notice.
    dead: bool,
    stopped: bool,
    started: u64,
}

fn processes() -> Vec<Process> {
    let names = RealDisk.list(Path::new("/proc")).unwrap_or_default();
    names.iter().filter_map(|name| name.parse().ok()).filter_map(process).collect()
}

fn process(id: u32) -> Option<Process> {
    let file = RealDisk.open(&Path::new("/proc").join(id.to_string()).join("stat"), OpenMode::Read).ok()?;
    let mut buffer = vec![0; STAT_BYTES_MAX];
    let length = file.read_at(&mut buffer, 0).ok()?;
    parse(id, &String::from_utf8_lossy(&buffer[..length]))
}

/// `PID (name, which may hold anything) state parent …`; the threads are field 20, the start is field 22 (proc(5)). A process whose
/// first thread has ended holds what it had, such as a port, until the last one has.
fn parse(id: u32, stat: &str) -> Option<Process> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let threads: u32 = fields.nth(15)?.parse().ok()?;
    let started = fields.nth(1)?.parse().ok()?;
    let dead = matches!(state, "Z" | "X") && threads <= 1;
    Some(Process { id, parent, dead, stopped: matches!(state, "T" | "t"), started })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_mislead() {
        let rest = "7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 9001 0";
        let process = parse(7, &format!("7 (a) b (c)) S 42 {rest}")).unwrap();
        assert_eq!((process.id, process.parent, process.dead, process.started), (7, 42, false, 9_001));
        assert!(parse(7, &format!("7 (gone) Z 42 {rest}")).unwrap().dead);
        assert!(parse(7, &format!("7 (still) T 42 {rest}")).unwrap().stopped);
        let rest = rest.replace(" 1 0 9001", " 3 0 9001");
        assert!(!parse(7, &format!("7 (going) Z 42 {rest}")).unwrap().dead, "two threads still end");
    }

    #[test]
    fn this_process_and_those_above_it_are_spared() {
        let line = ancestors();
        assert_eq!(line[..2], [std::process::id(), nix::unistd::getppid().as_raw().unsigned_abs()]);
    }

    #[test]
    fn this_process_is_found_under_its_parent() {
        let own = processes().into_iter().find(|process| process.id == std::process::id()).unwrap();
        assert_eq!(own.parent, nix::unistd::getppid().as_raw().unsigned_abs());
    }
}
