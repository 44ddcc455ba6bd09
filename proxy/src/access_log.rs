//! The access log: one JSON object a line for each request, written by one task behind a bounded queue. A line that finds the
//! queue full is dropped and counted, since no request waits for its log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use runtime::output::Output;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::record::End;

/// Lines that may wait to be written.
const QUEUE_MAX: usize = 4_096;
/// Lines that are written in one go.
const BATCH_MAX: usize = 256;

/// Where the access log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// Nowhere, at no cost.
    #[default]
    Off,
    /// To standard error.
    Stderr,
}

/// One line.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Line {
    pub(crate) time_ms: u64,
    pub(crate) request_id: String,
    pub(crate) direction: &'static str,
    pub(crate) method: String,
    pub(crate) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) caller: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    pub(crate) attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grpc_status: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<&'static str>,
    pub(crate) bytes: u64,
    pub(crate) took_us: u64,
    pub(crate) end: &'static str,
}

impl Line {
    /// The line with what is known at the end.
    pub(crate) fn ended(
        mut self: Box<Self>,
        end: End,
        status: Option<u16>,
        grpc_status: Option<u8>,
        bytes: u64,
        took: Duration,
    ) -> Box<Self> {
        self.end = match end {
            End::Whole => "whole",
            End::Broken => "broken",
            End::Cut => "cut",
        };
        (self.status, self.grpc_status, self.bytes) = (status, grpc_status, bytes);
        self.took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self
    }
}

/// The requests' end of the queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writer(Option<(mpsc::Sender<Box<Line>>, Arc<AtomicU64>)>);

impl Writer {
    /// Starts the writing task on the current runtime; it ends when the last writer is gone.
    pub(crate) fn start(to: AccessLog) -> Self {
        if to == AccessLog::Off {
            return Self(None);
        }
        let output = match Output::start("access-log", std::io::stderr(), missing) {
            Ok(output) => output,
            Err(error) => {
                tracing::error!(%error, "there is no thread for the access log; requests are not logged");
                return Self(None);
            }
        };
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        tokio::spawn(write_all(queue, dropped.clone(), output));
        Self(Some((sender, dropped)))
    }

    /// Whether lines are worth gathering.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn write(&self, line: Box<Line>) {
        if let Some((sender, dropped)) = &self.0
            && sender.try_send(line).is_err()
        {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What stands where a piece of the log could not be written.
fn missing(pieces: u64) -> String {
    format!("{}\n", serde_json::json!({"message": "pieces of the access log are missing here", "lost": pieces}))
}

async fn write_all(mut queue: mpsc::Receiver<Box<Line>>, dropped: Arc<AtomicU64>, output: Output) {
    let mut lines = Vec::with_capacity(BATCH_MAX);
    while queue.recv_many(&mut lines, BATCH_MAX).await > 0 {
        let mut text = String::new();
        for line in lines.drain(..) {
            if let Ok(line) = serde_json::to_string(&line) {
                text.push_str(&line);
                text.push('\n');
            }
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(lost, "access log lines were dropped: they came faster than they could be written");
        }
        output.write(text).await;
    }
}
