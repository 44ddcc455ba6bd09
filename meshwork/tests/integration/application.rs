//! The application of the tests' meshes: this test program itself, started again with [`command`].
//!
//! It serves HTTP/1.1 on `PORT`, one request for each connection: `/` says who answers, `/call/NAME` calls a service through
//! the sidecar. Environment: `FAIL` ends it at once, `CHILD` makes it start a process that outlives it, `LAST_CALL` makes it
//! call the service of that name when it is told to end, and end well if that answers [`GOOD_NIGHT`].

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

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
        None => format!("process {}", std::process::id()),
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
