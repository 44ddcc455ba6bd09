//! Our publisher: as much of a gRPC client as one that publishes on a stream needs, as `nats` has as much of its client as that.
//!
//! Both sides' clients run on the machine that is measured, so both write what is due with one write and read what has come with
//! one read. gRPC over HTTP/2: a message is a byte 0, its length in 4 bytes, and the message.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use api::broker::stream_receipt::Outcome;
use api::broker::{Event, SendRequest, StreamReceipt};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::Request;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::broker::{MESSAGE_BYTES, PUBLISHERS, Round};

/// Flow-control windows, as gRPC libraries have them for streams that are busy.
const WINDOW_BYTES: u32 = 1 << 20;
/// What stands before each message.
const PREFIX_BYTES: usize = 5;

/// A stream to the queue `load`.
pub struct Publisher {
    requests: SendStream<Bytes>,
    receipts: RecvStream,
    /// What has come of the receipts.
    received: BytesMut,
    /// A message without its id, and how many were made of it.
    event: Event,
    prefix: String,
    made: u64,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Publisher {
    /// Begins a stream through the application's door of a sidecar; `prefix` tells its messages from those of other streams.
    pub async fn open(sidecar: SocketAddr, prefix: String) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(sidecar).await?;
        stream.set_nodelay(true)?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES).enable_push(false);
        let (client, connection) = builder.handshake(stream).await?;
        let connection = tokio::spawn(connection);
        let request = Request::post("http://broker/meshwork.broker.v1.Queues/SendStream")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (answer, requests) = client.ready().await?.send_request(request, false)?;
        let data = Bytes::from(vec![b'x'; MESSAGE_BYTES]);
        let event = Event { r#type: "bench".to_owned(), data, ..Event::default() };
        let answer = answer.await?;
        ensure!(answer.status().is_success(), "the stream was answered with {}", answer.status());
        Ok(Self {
            requests,
            receipts: answer.into_body(),
            received: BytesMut::new(),
            event,
            prefix,
            made: 0,
            connection,
        })
    }

    /// Sends one message for each publisher, and another one for each receipt until `bound` is over.
    pub async fn publish(mut self, bound: Duration) -> anyhow::Result<Round> {
        let start = Instant::now();
        self.send(PUBLISHERS)?;
        let (mut acknowledged, mut outstanding) = (0, PUBLISHERS);
        while outstanding > 0 {
            let due = self.receive().await?;
            acknowledged += due as u64;
            if start.elapsed() < bound {
                self.send(due)?;
            } else {
                outstanding -= due;
            }
        }
        let round = Round { messages: acknowledged, elapsed: start.elapsed() };
        self.requests.send_data(Bytes::new(), true)?;
        drop((self.requests, self.receipts));
        self.connection.abort();
        Ok(round)
    }

    /// Sends so many new messages, one behind the other.
    fn send(&mut self, count: usize) -> anyhow::Result<()> {
        let mut buffer = BytesMut::with_capacity(count * (MESSAGE_BYTES + 64));
        for _ in 0..count {
            self.made += 1;
            let event = Event { id: format!("{}-{}", self.prefix, self.made), ..self.event.clone() };
            let request = SendRequest { queue: "load".to_owned(), event: Some(event) };
            buffer.put_u8(0);
            buffer.put_u32(u32::try_from(request.encoded_len())?);
            request.encode(&mut buffer)?;
        }
        Ok(self.requests.send_data(buffer.freeze(), false)?)
    }

    /// Waits for receipts; how many have come.
    async fn receive(&mut self) -> anyhow::Result<usize> {
        let Some(data) = self.receipts.data().await else {
            bail!("the stream ended: {:?}", self.receipts.trailers().await?);
        };
        let data = data?;
        self.receipts.flow_control().release_capacity(data.len())?;
        self.received.extend_from_slice(&data);
        let mut count = 0;
        while let Some(receipt) = self.next_receipt()? {
            match receipt.outcome {
                Some(Outcome::Receipt(receipt)) if !receipt.duplicate => count += 1,
                other => bail!("a message was not accepted: {other:?}"),
            }
        }
        Ok(count)
    }

    fn next_receipt(&mut self) -> anyhow::Result<Option<StreamReceipt>> {
        if self.received.len() < PREFIX_BYTES {
            return Ok(None);
        }
        let length = u32::from_be_bytes(self.received[1..PREFIX_BYTES].try_into()?) as usize;
        if self.received.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        self.received.advance(PREFIX_BYTES);
        StreamReceipt::decode(self.received.split_to(length)).map(Some).context("a receipt")
    }
}
