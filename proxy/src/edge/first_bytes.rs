//! A connection's bytes: the first ones tell HTTP/1.1 from HTTP/2, where TLS has not told it already; and what the HTTP/1.1
//! library answers by itself, without having called anyone, is withheld: `http1` says it in Meshwork's words.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::control::Control;

/// What an HTTP/2 client says first (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a client may take to say anything at all.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an alert may take to go out.
const ALERT_TIMEOUT: Duration = Duration::from_secs(1);

/// The type of a TLS record that carries a handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
/// A fatal `handshake_failure` as a client of any version of TLS reads it (RFC 8446 §6).
const HANDSHAKE_FAILURE: &[u8; 7] = &[21, 3, 3, 0, 2, 2, 40];

/// The version of HTTP on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Http(Version),
    /// TLS, where none is spoken.
    Tls,
    /// The client has nothing to say.
    Nothing,
}

/// A stream whose first bytes were looked at, and whose reads its lane hears of.
pub(crate) struct Io<S> {
    stream: S,
    control: Arc<Control>,
    looked_at: [u8; PREFACE.len()],
    from: u8,
    to: u8,
    /// Requests whose answers have gone out to their last byte.
    answered: u32,
    withheld: bool,
}

impl<S> Io<S> {
    /// A stream of which nothing was read.
    pub(crate) fn new(stream: S, control: Arc<Control>) -> Self {
        Self { stream, control, looked_at: [0; PREFACE.len()], from: 0, to: 0, answered: 0, withheld: false }
    }

    /// Whether the HTTP library has refused what came by itself; nothing of that has gone out.
    pub(crate) fn has_withheld(&self) -> bool {
        self.withheld
    }

    /// Whether every answer has gone out to its last byte, so that something else may be said.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.control.is_unasked(self.answered)
    }

    pub(crate) fn into_stream(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Io<S> {
    /// Reads as far as is needed to tell.
    pub(crate) async fn look(&mut self) -> Look {
        match tokio::time::timeout(FIRST_BYTES_TIMEOUT, self.read_preface()).await {
            Ok(Ok(look)) => look,
            Ok(Err(_)) | Err(_) => Look::Nothing,
        }
    }

    /// Tells a client of TLS that there is none here, in words that it understands.
    pub(crate) async fn refuse_tls(&mut self) {
        let said = async {
            self.stream.write_all(HANDSHAKE_FAILURE).await?;
            self.stream.shutdown().await
        };
        // A client that does not listen has left.
        let _ = tokio::time::timeout(ALERT_TIMEOUT, said).await;
    }

    async fn read_preface(&mut self) -> io::Result<Look> {
        loop {
            let seen = usize::from(self.to);
            let read = self.stream.read(&mut self.looked_at[seen..]).await?;
            if read == 0 {
                return Ok(Look::Nothing);
            }
            let seen = seen + read;
            self.to = u8::try_from(seen).unwrap_or(u8::MAX);
            self.control.read();
            if self.looked_at[..seen] != PREFACE[..seen] {
                let is_tls = self.looked_at[0] == HANDSHAKE;
                return Ok(if is_tls { Look::Tls } else { Look::Http(Version::Http1) });
            }
            if seen == PREFACE.len() {
                return Ok(Look::Http(Version::Http2));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Io<S> {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.from < this.to {
            let ahead = &this.looked_at[usize::from(this.from)..usize::from(this.to)];
            let taken = ahead.len().min(buf.remaining());
            buf.put_slice(&ahead[..taken]);
            this.from += u8::try_from(taken).unwrap_or(0);
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if polled.is_ready() {
            this.control.read();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Io<S> {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.control.is_unasked(self.answered) {
            self.withheld = true;
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// The library flushes when its own buffer is empty: all that was answered has gone out.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(answered) = self.control.answered() {
            self.answered = answered;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.withheld {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
