//! The application of the tests' meshes: this test program itself, started again with [`command`].
//!
//! It serves HTTP/1.1 on `PORT`, one request for each connection: `/` says who answers, `/call/NAME` calls a service through
//! the sidecar. Environment: `FAIL` ends it at once, `CHILD` makes it start a process that outlives it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

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
    let listener = TcpListener::bind(("127.0.0.1", port.parse().unwrap())).unwrap();
    for stream in listener.incoming().flatten() {
        // A client that goes away is no reason to end.
        let _ = answer(stream);
    }
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
