//! The application of the tests' meshes: this test program itself, started again with [`command`].
//!
//! It serves HTTP/1.1 on `PORT`, one request for each connection: `/` says who answers, `/call/NAME` calls a service through
//! the sidecar, `/env/NAME` says what a variable holds, `/loud` whether it has been loud for long. Environment: `FAIL` ends it at once,
//! `FAIL_WHILE` as long as that file exists, `LOUD` makes it write more than anyone reads, `BACKGROUND` makes it serve in a process that
//! has left its group, `CHILD` makes it start a process that outlives it, `LAST_CALL` makes it
//! call the service of that name when it is told to end, and end well if that answers [`GOOD_NIGHT`].

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::signal::unix::{SignalKind, signal};

/// What the last call is to be answered.
pub const GOOD_NIGHT: &str = "good night";

/// The command that runs it, for a mesh file.
pub fn command() -> String {
    let program = std::env::current_exe().unwrap();
    format!("{} application::serve --exact --ignored --nocapture --quiet", program.display())
}

#[test]
#[ignore = "no test: this is what the tests' meshes run"]
fn serve() {
    let Ok(port) = std::env::var("PORT") else { return };
    println!("first line of many");
    if std::env::var("FAIL").is_ok() {
        println!("the cupboard is bare");
        std::process::exit(3);
    }
    if std::env::var("FAIL_WHILE").is_ok_and(|path| std::path::Path::new(&path).exists()) {
        std::process::exit(3);
    }
    if std::env::var("LOUD").is_ok() {
        std::thread::spawn(be_loud);
    }
    if std::env::var("BACKGROUND").is_ok() {
        serve_in_background();
    }
    if std::env::var("CHILD").is_ok() {
        start_child();
    }
    if let Ok(service) = std::env::var("LAST_CALL") {
        call_at_the_end(service);
    }
    let listener = TcpListener::bind(("127.0.0.1", port.parse().unwrap())).unwrap();
    for stream in listener.incoming().flatten() {
        // A client that goes away is no reason to end.
        std::thread::spawn(|| drop(answer(stream)));
    }
}

/// Pieces of output that were written.
static WRITTEN: AtomicUsize = AtomicUsize::new(0);
/// More of them than fit into the pipes and the queues on their way.
const LOUD_ENOUGH: usize = 3_000;

fn be_loud() {
    let line = "loud ".repeat(200);
    loop {
        println!("{line}");
        WRITTEN.fetch_add(1, Ordering::Relaxed);
        // Else there would be no processor left for anything else.
        if WRITTEN.load(Ordering::Relaxed) > LOUD_ENOUGH {
            std::thread::park_timeout(std::time::Duration::from_millis(1));
        }
    }
}

/// Starts itself again as a process that leaves the group, as a program does that goes into the background, and waits for it.
fn serve_in_background() {
    let status = std::process::Command::new("setsid")
        .arg(std::env::current_exe().unwrap())
        .args(["application::serve", "--exact", "--ignored", "--nocapture", "--quiet"])
        .env_remove("BACKGROUND")
        .status()
        .unwrap();
    std::process::exit(status.code().unwrap_or(1));
}

/// The process that serves at this address.
pub fn server_pid(address: std::net::SocketAddr) -> u32 {
    let (_, body) = crate::process::get(address, "/").unwrap();
    body.trim_start_matches("process ").parse().unwrap()
}

fn call_at_the_end(service: String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut told = runtime.block_on(async { signal(SignalKind::terminate()).unwrap() });
    std::thread::spawn(move || {
        runtime.block_on(told.recv());
        let answered = call(&service).is_ok_and(|answer| answer == GOOD_NIGHT);
        std::process::exit(if answered { 0 } else { 4 });
    });
}

#[expect(clippy::zombie_processes, reason = "an application that forgets its child is what is tested")]
fn start_child() {
    std::process::Command::new("sleep").arg("600").spawn().unwrap();
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let path = read_head(&stream)?;
    let body = match path.strip_prefix("/call/") {
        Some(service) => call(service)?,
        None if path == "/loud" => {
            if std::env::var("LOUD").is_ok() && WRITTEN.load(Ordering::Relaxed) <= LOUD_ENOUGH {
                return write!(stream, "HTTP/1.1 500 Not yet\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
            "loud".to_owned()
        }
        None => match path.strip_prefix("/env/") {
            Some(variable) => std::env::var(variable).unwrap_or_default(),
            None => format!("process {}", std::process::id()),
        },
    };
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn read_head(stream: &TcpStream) -> std::io::Result<String> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    Ok(first.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// Calls `http://SERVICE/` through the sidecar, as any program that honours `HTTP_PROXY` would.
fn call(service: &str) -> std::io::Result<String> {
    let proxy = std::env::var("MESHWORK_PROXY").unwrap();
    let mut stream = TcpStream::connect(proxy.trim_start_matches("http://"))?;
    write!(stream, "GET http://{service}/ HTTP/1.1\r\nhost: {service}\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// A mesh file: `front` calls `back`, which is as `back` says; a gateway lets clients in to `front`.
pub fn mesh(back: &str) -> String {
    let command = command();
    format!(
        "mesh: tests\n\
         services:\n  \
           front: {{protocol: http, command: '{command}', health: {{path: /}}, calls: [back]}}\n  \
           back: {{protocol: http, command: '{command}', health: {{path: /}}{back}}}\n\
         gateways:\n  \
           public: {{listen: '127.0.0.1:0', backends: [{{service: front}}]}}\n"
    )
}
