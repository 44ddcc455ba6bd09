//! Load: `wrk` for HTTP/1.1, `h2load` for gRPC. Both are asked how many requests they completed, and how many failed must be 0.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use super::peers;

/// Connections of every case.
pub const CONNECTIONS: u32 = 32;
/// Streams at a time on each HTTP/2 connection.
const STREAMS: u32 = 4;

/// HTTP/1.1 GETs for so many seconds; how many were answered with 200.
pub fn http1(address: SocketAddr, host: &str, seconds: u32) -> anyhow::Result<f64> {
    let output = Command::new(peers::debian("wrk", "wrk")?)
        .args(["-t", "1", "-c", &CONNECTIONS.to_string(), "-d", &format!("{seconds}s")])
        .args(["-H", &format!("Host: {host}"), &format!("http://{address}/")])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "wrk failed: {text}");
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("wrk saw failures:\n{text}");
    }
    number_before(&text, " requests in")
}

/// gRPC unary calls for so many seconds; how many succeeded.
pub fn grpc(address: SocketAddr, authority: &str, message: &Path, seconds: u32) -> anyhow::Result<f64> {
    let output = Command::new(peers::debian("h2load", "nghttp2-client")?)
        .args(["-t", "1", "-c", &CONNECTIONS.to_string(), "-m", &STREAMS.to_string(), "-D", &seconds.to_string()])
        .arg("-d")
        .arg(message)
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-H", &format!(":authority: {authority}")])
        .arg(format!("http://{address}/bench.Echo/Unary"))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "h2load failed: {text}");
    let failed = number_before(&text, " failed,")?;
    ensure!(failed == 0.0 && number_before(&text, " 5xx")? == 0.0, "h2load saw failures:\n{text}");
    number_before(&text, " 2xx")
}

fn number_before(text: &str, mark: &str) -> anyhow::Result<f64> {
    let end = text.find(mark).with_context(|| format!("no {mark:?} in:\n{text}"))?;
    let word = text[..end].split([' ', '\n', ',']).next_back().context("no number")?;
    word.parse().with_context(|| format!("{word:?} before {mark:?} is no number"))
}
