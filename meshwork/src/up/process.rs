//! One process: started in a group of its own, so that a Ctrl-C on the terminal does not reach it before its turn, and read line
//! by line.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::name::Name;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::event::Events;

/// Longest line that is passed on whole, in bytes; a longer one comes in pieces.
const LINE_BYTES_MAX: usize = 8 << 10;
/// Lines that are kept of each instance, for when it fails.
const LAST_LINES: usize = 20;
/// How long the output of a process that has ended may take to end: something it started may still hold it.
const OUTPUT_BOUND: Duration = Duration::from_millis(500);

/// How the variables begin that Meshwork's own commands read.
const OWN_VARIABLES: &[u8] = b"MESHWORK_";
/// The one of them that is for all roles alike.
const PASSED_ON: &str = "MESHWORK_LOG_FORMAT";

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// Added to the environment.
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) folder: PathBuf,
}

/// Where an instance's lines go: to whoever listens, and the last of them to memory.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    instance: Name,
    events: Events,
    // A lock for a moment: readers of two streams write, a failure reads.
    last: Arc<Mutex<VecDeque<String>>>,
}

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Its number, and its group's.
    pub(crate) pid: u32,
    readers: Vec<JoinHandle<()>>,
    /// Ends the readers, which pass on what they have.
    enough: CancellationToken,
}

impl Lines {
    pub(crate) fn new(instance: Name, events: Events) -> Self {
        Self { instance, events, last: Arc::default() }
    }

    /// The last lines, oldest first.
    pub(crate) fn last(&self) -> Vec<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    async fn take(&self, text: String) {
        if !is_frame(&text) {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(text.clone());
        }
        self.events.line(&self.instance, text).await;
    }
}

/// A frame of a backtrace: a few of them would push the message before them out of the last lines.
fn is_frame(line: &str) -> bool {
    let text = line.trim_start();
    let numbered = text.split_once(": ").is_some_and(|(number, _)| number.parse::<u16>().is_ok());
    text.len() < line.len() && (numbered || text.starts_with("at "))
}

/// Starts it. It is killed when this process ends in whatever way.
pub(crate) fn start(invocation: &Invocation, lines: &Lines) -> io::Result<Process> {
    let mut command = Command::new(&invocation.program);
    // Each flag of a role may come from a variable. One that is meant for another role, such as `MESHWORK_LISTEN`, or that belongs to
    // the shell in which `up` was called, such as `MESHWORK_DATA`, would be taken for one of this role.
    for (name, _) in std::env::vars_os() {
        if name.as_bytes().starts_with(OWN_VARIABLES) && name != PASSED_ON {
            command.env_remove(name);
        }
    }
    command
        .args(&invocation.arguments)
        .envs(&invocation.env)
        .current_dir(&invocation.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    die_with_this_process(&mut command);
    let mut child = command.spawn()?;
    let pid = child.id().ok_or_else(|| io::Error::other("it ended before it had a number"))?;
    let enough = CancellationToken::new();
    let mut readers = Vec::new();
    readers.extend(child.stdout.take().map(|output| tokio::spawn(read(output, lines.clone(), enough.clone()))));
    readers.extend(child.stderr.take().map(|output| tokio::spawn(read(output, lines.clone(), enough.clone()))));
    Ok(Process { child, pid, readers, enough })
}

/// A mesh whose `up` was killed leaves nothing behind (prctl(2), PR_SET_PDEATHSIG).
#[expect(unsafe_code, reason = "the only way to run code between fork and exec")]
fn die_with_this_process(command: &mut Command) {
    let parent = nix::unistd::getpid();
    let prepare = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // It may have ended between the fork and the line above.
        if nix::unistd::getppid() == parent { Ok(()) } else { Err(io::Error::from(Errno::ESRCH)) }
    };
    // SAFETY: prctl(2) and getppid(2) are async-signal-safe and touch nothing of this process's memory.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Passes on what comes as lines until its end. A line without an end, or longer than [`LINE_BYTES_MAX`], comes in pieces that are
/// cut between characters.
async fn read(output: impl AsyncRead + Unpin, lines: Lines, enough: CancellationToken) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        let room = (LINE_BYTES_MAX - line.len()) as u64;
        let mut piece = (&mut output).take(room);
        let ended = tokio::select! {
            // What was read before it is dropped stands in `line`.
            read = piece.read_until(b'\n', &mut line) => !matches!(read, Ok(1..)),
            () = enough.cancelled() => true,
        };
        let whole = line.ends_with(b"\n");
        let cut = if ended || whole { line.len() } else { between_characters(&line) };
        if cut > 0 && (ended || whole || line.len() == LINE_BYTES_MAX) {
            let text = String::from_utf8_lossy(&line[..cut]).trim_end_matches(['\n', '\r']).to_owned();
            line.drain(..cut);
            lines.take(text).await;
        }
        if ended {
            return;
        }
    }
}

/// Up to where a text that goes on can be cut without cutting a character. Bytes that are no text at all are cut anywhere.
fn between_characters(text: &[u8]) -> usize {
    let last = text.iter().rev().take(4).position(|byte| (byte & 0xC0) != 0x80).map(|back| text.len() - 1 - back);
    match last.map(|last| (last, std::str::from_utf8(&text[last..]))) {
        // It only lacks its end.
        Some((last, Err(error))) if error.error_len().is_none() && last > 0 => last,
        _ => text.len(),
    }
}

impl Process {
    /// Resolves when it has ended and what it wrote was passed on. It may be dropped and asked again.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        let end = tokio::time::Instant::now() + OUTPUT_BOUND;
        while let Some(reader) = self.readers.last_mut() {
            if tokio::time::timeout_at(end, &mut *reader).await.is_err() {
                self.enough.cancel();
                // It ends when what it has is passed on. One that failed has nothing more to say either.
                let _ = reader.await;
            }
            self.readers.pop();
        }
        Ok(status)
    }

    /// Sends a signal to it and its group.
    pub(crate) fn signal(&self, signal: Signal) {
        let Ok(group) = i32::try_from(self.pid) else { return };
        match killpg(Pid::from_raw(group), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => tracing::warn!(pid = self.pid, %signal, %error, "a process could not be signalled"),
        }
    }
}

/// How a process ended, in words.
pub(crate) fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(0), _) => "it ended with exit code 0; what runs in a mesh stays in the foreground".to_owned(),
        (Some(code), _) => format!("it ended with exit code {code}"),
        (None, Some(number)) => {
            let name = Signal::try_from(number).map_or("an unknown signal", Signal::as_str);
            format!("it was ended by {name}")
        }
        (None, None) => "it ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::event::{self, Event};
    use crate::up::leftover;

    fn shell(script: &str) -> Invocation {
        Invocation {
            program: PathBuf::from("/bin/sh"),
            arguments: vec!["-c".into(), script.into()],
            env: BTreeMap::from([("GREETING".to_owned(), "good day".to_owned())]),
            folder: PathBuf::from("/"),
        }
    }

    #[tokio::test]
    async fn its_lines_are_passed_on_and_the_last_are_kept() {
        let (events, mut listener) = event::channel();
        let lines = Lines::new(Name::new("a-0").unwrap(), events);
        let script = "echo $GREETING; i=0; while [ $i -lt 25 ]; do echo $i; i=$((i+1)); done; exit 3";
        let mut process = start(&shell(script), &lines).unwrap();
        let status = process.ended().await.unwrap();
        assert_eq!(describe(status), "it ended with exit code 3");
        let Some(Event::Line { text, .. }) = listener.recv().await else { panic!("no line") };
        assert_eq!(text, "good day");
        assert_eq!(lines.last().len(), LAST_LINES);
        assert_eq!(lines.last().last().map(String::as_str), Some("24"));
    }

    #[test]
    fn frames_of_a_backtrace_are_not_worth_keeping() {
        for (line, frame) in [
            ("   0: std::panicking::begin_panic", true),
            ("             at /src/main.rs:12:5", true),
            ("thread 'main' panicked at src/main.rs:12:5:", false),
            ("    0 of 3 are there", false),
            ("404: not found", false),
        ] {
            assert_eq!(is_frame(line), frame, "{line}");
        }
    }

    /// What comes of bytes that are written: the lines that are passed on.
    async fn passed_on(bytes: &[u8]) -> Vec<String> {
        let (events, mut listener) = event::channel();
        read(bytes, Lines::new(Name::new("a-0").unwrap(), events), CancellationToken::new()).await;
        let mut lines = Vec::new();
        while let Some(Event::Line { text, .. }) = listener.recv().await {
            lines.push(text);
        }
        lines
    }

    #[tokio::test]
    async fn a_long_line_is_cut_between_characters() {
        // Characters of one to four bytes, so that a cut would fall into each of them somewhere.
        for text in ["a", "é", "€", "𝄞", "aé€𝄞"] {
            let long = text.repeat(40_000);
            let lines = passed_on(format!("{long}\nnext\n").as_bytes()).await;
            assert_eq!(lines.last().map(String::as_str), Some("next"));
            assert_eq!(lines[..lines.len() - 1].concat(), long, "{text}");
            assert!(lines.iter().all(|line| line.len() <= LINE_BYTES_MAX));
        }
    }

    #[tokio::test]
    async fn bytes_that_are_no_text_come_through_as_far_as_they_are() {
        assert_eq!(passed_on(b"a\xffb\n\r\nlast").await, ["a\u{fffd}b", "", "last"]);
        let odd = [b"\x80".repeat(LINE_BYTES_MAX), b"\xf0\x9f".repeat(LINE_BYTES_MAX)].concat();
        let lines = passed_on(&odd).await;
        assert!(lines.len() >= 3 && lines.iter().all(|line| line.chars().all(|c| c == '\u{fffd}')), "{}", lines.len());
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_passed_on_when_the_process_ends() {
        let (events, mut listener) = event::channel();
        let lines = Lines::new(Name::new("a-0").unwrap(), events);
        // Something that it started holds its output.
        let mut process = start(&shell("printf 'no end'; sleep 600 & exit 4"), &lines).unwrap();
        assert_eq!(describe(process.ended().await.unwrap()), "it ended with exit code 4");
        let Some(Event::Line { text, .. }) = listener.recv().await else { panic!("no line") };
        assert_eq!(text, "no end");
        process.signal(Signal::SIGKILL);
    }

    #[tokio::test]
    async fn a_signal_reaches_its_whole_group() {
        let (events, mut listener) = event::channel();
        let lines = Lines::new(Name::new("a-0").unwrap(), events);
        let mut process = start(&shell("sleep 600 & echo $!; wait"), &lines).unwrap();
        let Some(Event::Line { text, .. }) = listener.recv().await else { panic!("no line") };
        let child = text.parse().unwrap();
        assert!(leftover::started(child).is_some());
        process.signal(Signal::SIGKILL);
        assert_eq!(describe(process.ended().await.unwrap()), "it was ended by SIGKILL");
        let gone = async {
            while leftover::started(child).is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the end of what it started");
    }
}
