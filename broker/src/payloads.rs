//! Events by their place in the log: from what was written lately, or from the engine, on a lane of its own, since reading blocks.

use std::sync::Arc;

use api::broker::Event;
use bytes::Bytes;
use model::position::Position;
use runtime::lanes::{self, Place};
use tokio::sync::{mpsc, oneshot};

use crate::engine::Reader;
use crate::ledger::{Ledger, lock};
use crate::record::Record;
use crate::refusal::Refusal;

/// How many reads may wait for the lane; those who ask beyond that wait before they are heard.
const WAITING_MAX: usize = 1_024;
/// How many reads the lane takes at a time.
const BATCH_MAX: usize = 64;

/// Reads events.
#[derive(Debug, Clone)]
pub struct Payloads {
    ledger: Arc<Ledger>,
    lane: mpsc::Sender<Read>,
}

#[derive(Debug)]
struct Read {
    at: Position,
    reply: oneshot::Sender<Result<Bytes, Refusal>>,
}

impl Payloads {
    /// Starts the lane.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(ledger: Arc<Ledger>, reader: Arc<dyn Reader>, place: Place) -> std::io::Result<Self> {
        let lane = lanes::disk_lane("broker-read", place, WAITING_MAX, BATCH_MAX, move |batch: &mut Vec<Read>| {
            for read in batch.drain(..) {
                let record = reader.read(read.at).map_err(|error| Refusal::Engine(error.to_string()));
                // Who does not wait any more has no use for it.
                drop(read.reply.send(record));
            }
        })?;
        Ok(Self { ledger, lane })
    }

    /// The event that stands at `at`.
    ///
    /// # Errors
    /// When the engine cannot read it.
    pub async fn event(&self, at: Position) -> Result<Event, Refusal> {
        // On a line of its own, so that the lock is not held while the lane is waited for.
        let record = lock(&self.ledger.cache).get(at);
        let record = match record {
            Some(record) => record,
            None => self.read(at).await?,
        };
        let odd = |why: &dyn std::fmt::Display| Refusal::Engine(format!("the record at {at}: {why}"));
        match Record::read(&record).map_err(|error| odd(&error))? {
            (Record::Published(_) | Record::Carried { .. }, event) => {
                api::convert::event::read(record.slice_ref(event)).map_err(|error| odd(&error))
            }
            _ => Err(odd(&"it is not a message")),
        }
    }

    async fn read(&self, at: Position) -> Result<Bytes, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.lane.send(Read { at, reply }).await.map_err(|_| Refusal::Ending)?;
        answer.await.map_err(|_| Refusal::Ending)?
    }
}
