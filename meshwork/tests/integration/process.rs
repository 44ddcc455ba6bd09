//! Processes of the tests: `meshwork` with its output, what it has started, and waits with a bound.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take; a loaded machine is slow.
pub const BOUND: Duration = Duration::from_secs(90);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// `meshwork` with these arguments, to its end.
pub fn meshwork(arguments: &[&str]) -> Output {
    output(command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), BOUND)
}

/// What a process has written when it ends; it is killed at the bound.
pub fn output(mut child: Child, bound: Duration) -> Output {
    let (stdout, stderr) = (text(child.stdout.take()), text(child.stderr.take()));
    let end = Instant::now() + bound;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            let told = String::from_utf8_lossy(&stderr.join().unwrap()).into_owned();
            panic!("it did not end in {bound:?}: {told}");
        }
        std::thread::sleep(LOOK_EVERY);
    };
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn text(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// `meshwork` with these arguments, not started.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshwork"));
    command.args(arguments).stdin(Stdio::null()).env_remove("NO_COLOR");
    command
}

/// A `meshwork up` that tells its events; it is killed with the test.
pub struct Up {
    file: PathBuf,
    child: Child,
    events: mpsc::Receiver<Value>,
    stderr: Option<std::thread::JoinHandle<String>>,
}

impl Up {
    /// Runs the mesh file `text` in `folder`.
    pub fn start(folder: &Path, text: &str) -> Self {
        Self::start_with(folder, text, &[])
    }

    /// The same with more `flags`.
    pub fn start_with(folder: &Path, text: &str, flags: &[&str]) -> Self {
        Self::start_in(folder, text, flags, &[])
    }

    /// The same with more `variables` in its environment, and so in its roles'.
    pub fn start_in(folder: &Path, text: &str, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let file = folder.join("mesh.yaml");
        std::fs::write(&file, text).unwrap();
        // As a person does.
        let mut arguments = vec!["up", "mesh.yaml", "--format", "json"];
        if !flags.contains(&"--data") {
            arguments.extend(["--data", folder.to_str().unwrap()]);
        }
        let variables = variables.iter().copied();
        let mut child = command(&arguments)
            .args(flags)
            .envs(variables)
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, events) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let mut stderr = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        Self { file, child, events, stderr: Some(stderr) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the instance is in the state.
    pub fn wait_for(&self, instance: &str, state: &str) {
        let end = Instant::now() + BOUND;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).unwrap_or_else(|_| panic!("{instance} never was {state}"));
            if event["instance"] == instance && event["state"] == state {
                return;
            }
        }
    }

    /// What is said about the mesh as a whole within `time`.
    pub fn said_within(&self, time: Duration) -> Vec<String> {
        let end = Instant::now() + time;
        let next = || self.events.recv_timeout(end.saturating_duration_since(Instant::now())).ok();
        let about_the_mesh =
            |event: Value| (event["event"] == "mesh").then(|| event["text"].as_str().map(str::to_owned))?;
        std::iter::from_fn(next).filter_map(about_the_mesh).collect()
    }

    /// Waits until something about the mesh as a whole is said that holds `part`, and gives all of it.
    pub fn wait_for_text(&self, part: &str) -> String {
        let end = Instant::now() + BOUND;
        let mut said = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).unwrap_or_else(|_| panic!("{part:?} never was said: {said:?}"));
            match event["text"].as_str().filter(|_| event["event"] == "mesh") {
                Some(text) if text.contains(part) => return text.to_owned(),
                other => said.extend(other.map(str::to_owned)),
            }
        }
    }

    /// Writes another text into the mesh file.
    pub fn edit(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
    }

    /// Sends a signal by name, such as `INT`.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for its end; gives its exit status and what it wrote to standard error.
    pub fn end(mut self) -> (ExitStatus, String) {
        let end = Instant::now() + BOUND;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "`up` did not end");
            std::thread::sleep(LOOK_EVERY);
        };
        (status, self.stderr.take().unwrap().join().unwrap())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by name.
pub fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// What `meshwork status` says of what runs in `folder`; null where nothing does.
pub fn status(folder: &Path) -> Value {
    let output = meshwork(&["status", "--format", "json", "--data", folder.to_str().unwrap()]);
    serde_json::from_slice::<Value>(&output.stdout).unwrap().get_mut(0).map(Value::take).unwrap_or_default()
}

/// One instance of it.
pub fn instance(folder: &Path, name: &str) -> Value {
    let status = status(folder);
    found(&status, name).unwrap_or_else(|| panic!("no {name} in {status}"))
}

fn found(status: &Value, name: &str) -> Option<Value> {
    status["instances"].as_array()?.iter().find(|instance| instance["instance"] == name).cloned()
}

/// Where the gateway listens.
pub fn gateway(folder: &Path) -> SocketAddr {
    eventually("the gateway tells where it listens", || {
        found(&status(folder), "gateway-public")?["addresses"]["gateway"]
            .as_str()
            .map(|address| address.parse().unwrap())
    })
}

/// Seconds since 1970.
pub fn wall_s() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// The status line and the body of a GET.
pub fn get(address: SocketAddr, path: &str) -> Option<(String, String)> {
    get_as(address, "shop", path)
}

/// The same under the name `host`.
pub fn get_as(address: SocketAddr, host: &str, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(BOUND)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.lines().next()?.to_owned(), body.to_owned()))
}

/// The token secret in a file, as `meshwork` keeps it.
pub fn secret(file: &std::path::Path) -> control::token::Secret {
    let text = storage::kept::read(&storage::disk::real::RealDisk, file, 1_000).unwrap().unwrap();
    control::token::Secret::from_text(std::str::from_utf8(&text).unwrap()).unwrap()
}

/// Asks again and again until there is something, at most [`BOUND`].
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + BOUND;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The processes below `root`, itself too.
pub fn family(root: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|id| Some((id, parent(id)?)))
        .collect();
    let mut family = vec![root];
    let mut at = 0;
    while at < family.len() {
        let above = family[at];
        family.extend(all.iter().filter(|(_, parent)| *parent == above).map(|(id, _)| *id));
        at += 1;
    }
    family
}

/// Waits until none of them lives.
pub fn all_gone(processes: &[u32]) {
    eventually(&format!("none of {processes:?} lives"), || {
        processes.iter().all(|id| parent(*id).is_none()).then_some(())
    });
}

/// The parent of a process that lives (proc(5)).
fn parent(id: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    (fields.next()? != "Z").then(|| fields.next()?.parse().ok())?
}
