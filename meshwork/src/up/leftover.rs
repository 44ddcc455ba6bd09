//! Processes that lost their parent: they come to this one, and end with it.
//!
//! An application may start processes of its own and be killed before them. Linux gives such orphans to the nearest ancestor that
//! asked for them (prctl(2), PR_SET_CHILD_SUBREAPER); so at the end whatever still hangs on this process is ended.

use std::path::Path;

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

struct Process {
    id: u32,
    parent: u32,
    /// It has ended and waits for its parent to notice.
    dead: bool,
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

/// `PID (name, which may hold anything) state parent …` (proc(5)).
fn parse(id: u32, stat: &str) -> Option<Process> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let dead = matches!(fields.next()?, "Z" | "X");
    Some(Process { id, parent: fields.next()?.parse().ok()?, dead })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_mislead() {
        let process = parse(7, "7 (a) b (c)) S 42 7 7 0 -1").unwrap();
        assert_eq!((process.id, process.parent, process.dead), (7, 42, false));
        assert!(parse(7, "7 (gone) Z 42 7").unwrap().dead);
    }

    #[test]
    fn this_process_is_found_under_its_parent() {
        let own = processes().into_iter().find(|process| process.id == std::process::id()).unwrap();
        assert_eq!(own.parent, nix::unistd::getppid().as_raw().unsigned_abs());
    }
}
