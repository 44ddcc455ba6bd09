//! What stands between the edges of the broker and its committer: publishing, taking and changing, each as one async call.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::broker::Event;
use arc_swap::ArcSwapOption;
use model::config::Durability;
use model::name::Name;
use model::position::Position;
use model::snapshot::BrokerPart;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::books::Given;
use crate::deliveries::Lease;
use crate::ledger::{Ledger, lock};
use crate::payloads::Payloads;
use crate::queue::LEASED_MAX;
use crate::record::Group;
use crate::redrive::Redrives;
use crate::refusal::Refusal;
use crate::verdict::{Change, Command, Done, Publication, Receipt};

/// How many KiB of messages may wait for the committer; publishers beyond that wait before they are heard.
const WAITING_KIB_MAX: usize = 64 << 10;

/// The inside of a broker.
#[derive(Debug)]
pub struct Core {
    /// The mesh's name.
    pub mesh: Name,
    /// What is declared; `None` before the first snapshot.
    pub part: ArcSwapOption<BrokerPart>,
    /// The shared state.
    pub ledger: Arc<Ledger>,
    /// Reads events.
    pub payloads: Payloads,
    /// For ids and spans.
    pub rng: Mutex<fastrand::Rng>,
    /// What puts dead letters back.
    pub redrives: Redrives,
    lane: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
}

impl Core {
    /// The inside of a broker whose committer is at the other end of `lane`.
    #[must_use]
    pub fn new(
        mesh: Name,
        ledger: Arc<Ledger>,
        payloads: Payloads,
        lane: mpsc::Sender<Command>,
        redrives: Redrives,
    ) -> Self {
        Self {
            mesh,
            part: ArcSwapOption::empty(),
            ledger,
            payloads,
            rng: Mutex::new(fastrand::Rng::with_seed(runtime::random::seed())),
            redrives,
            lane,
            room: Arc::new(Semaphore::new(WAITING_KIB_MAX)),
        }
    }

    /// What is declared.
    ///
    /// # Errors
    /// Before the first snapshot.
    pub fn part(&self) -> Result<Arc<BrokerPart>, Refusal> {
        self.part.load_full().ok_or(Refusal::NotConfigured)
    }

    /// Accepts messages: answers when each is as durable as its destination asks, or is refused.
    pub async fn publish(&self, messages: Vec<Publication>) -> Vec<Result<Receipt, Refusal>> {
        let count = messages.len();
        match self.submit(messages).await {
            Ok(answer) => answer.await.unwrap_or_else(|_| refused(count, &Refusal::Ending)),
            Err(refusal) => refused(count, &refusal),
        }
    }

    /// Hands messages to the committer; the answer comes later, and batches handed over one after the other are written in that order.
    ///
    /// # Errors
    /// When the broker is ending.
    pub async fn submit(
        &self,
        messages: Vec<Publication>,
    ) -> Result<oneshot::Receiver<Vec<Result<Receipt, Refusal>>>, Refusal> {
        let bytes: usize = messages.iter().map(|message| message.record.len()).sum();
        let kib = (bytes >> 10).clamp(1, WAITING_KIB_MAX);
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        let permit = self.room.clone().acquire_many_owned(kib).await.map_err(|_| Refusal::Ending)?;
        let (reply, answer) = oneshot::channel();
        self.lane
            .send(Command::Publish { messages, permit: Some(permit), reply })
            .await
            .map_err(|_| Refusal::Ending)?;
        Ok(answer)
    }

    /// Makes a change: answers when it is as durable as its destination asks.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn change(&self, change: Change) -> Result<Done, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.lane.send(Command::Change { change, reply }).await.map_err(|_| Refusal::Ending)?;
        answer.await.map_err(|_| Refusal::Ending)?
    }

    /// Gives out up to `max` messages of a group; without `hold` until the caller settles them.
    #[must_use]
    pub fn take(&self, group: &Group, consumer: &Name, max: usize, hold: Option<Duration>) -> Vec<Given> {
        if self.ledger.failure().is_some() {
            // What cannot be settled is not given out.
            return Vec::new();
        }
        let now = self.ledger.clock.now();
        let (given, has_journal, to_notify) = {
            let mut books = lock(&self.ledger.books);
            let leased = books.served(group).map_or(0, |served| served.deliveries.counts().leased);
            let given = books.take(group, consumer, max.min(LEASED_MAX.saturating_sub(leased)), hold, now);
            (given, !books.journal.is_empty(), std::mem::take(&mut books.to_notify))
        };
        to_notify.notify();
        if has_journal {
            self.flush();
        }
        if hold.is_some() && !given.is_empty() {
            self.ledger.timer.notify_one();
        }
        given
    }

    /// Takes back what was given out and reached nobody: it is ready again, and no attempt has failed.
    pub fn give_back(&self, group: &Group, leases: &[Lease]) {
        let now = self.ledger.clock.now();
        let to_notify = {
            let mut books = lock(&self.ledger.books);
            books.give_back(group, leases, now);
            std::mem::take(&mut books.to_notify)
        };
        to_notify.notify();
    }

    /// The event of a message. It may have been carried elsewhere in the log since its place was looked up; then it is looked up again.
    ///
    /// # Errors
    /// When the engine cannot read it.
    pub async fn event(&self, group: &Group, position: Position, at: Position) -> Result<Event, Refusal> {
        let read = self.payloads.event(at).await;
        if read.is_ok() {
            return read;
        }
        let now_at = lock(&self.ledger.books).place_of(group, position);
        match now_at.filter(|now_at| *now_at != at) {
            Some(now_at) => self.payloads.event(now_at).await,
            None => read,
        }
    }

    /// Lets the committer write the journal.
    pub fn flush(&self) {
        // Where there is no room for a word, the committer has work, and takes the journal with it.
        let _ = self.lane.try_send(Command::Flush);
    }

    /// A random number.
    #[must_use]
    pub fn random(&self) -> u64 {
        lock(&self.rng).u64(..)
    }
}

fn refused(count: usize, refusal: &Refusal) -> Vec<Result<Receipt, Refusal>> {
    (0..count).map(|_| Err(refusal.clone())).collect()
}

/// A durability as it stands in an answer.
#[must_use]
pub const fn durability_word(durability: Durability) -> &'static str {
    match durability {
        Durability::Sync => "sync",
        Durability::Os => "os",
    }
}
