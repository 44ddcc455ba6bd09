//! The committer: one lane that takes all that has gathered, decides, writes it with one sync, applies it and then answers.
//!
//! So however many publishers and consumers wait, the disk is asked once for all of them (group commit), and nobody is answered before what was
//! asked of the engine is true.

use std::sync::Arc;

use bytes::Bytes;
use model::config::Durability;
use model::position::Position;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::books::Books;
use crate::compaction::{Compaction, reserve_bytes};
use crate::dedup::Place;
use crate::engine::{Engine, Error, Room, Usage};
use crate::ledger::{Ledger, lock};
use crate::moment::Moment;
use crate::record::{Published, Record};
use crate::refusal::Refusal;
use crate::verdict::{Command, Done, Publication, Receipt, Slot};

/// How many commands one batch takes.
pub const BATCH_MAX: usize = 4_096;
/// How many commands may wait for the committer; those who ask beyond that wait before they are heard.
pub const WAITING_MAX: usize = 16_384;

/// After so many records it is worked out anew how much room must be held for acknowledgements.
const UNRESERVED_MAX: usize = 1_024;

/// Writes.
#[derive(Debug)]
pub struct Committer {
    engine: Box<dyn Engine>,
    ledger: Arc<Ledger>,
    batch: Batch,
    compaction: Compaction,
    /// How many records were written since it was worked out how much room must be held for acknowledgements.
    unreserved: usize,
}

/// What is being written.
#[derive(Debug, Default)]
struct Batch {
    records: Vec<Planned>,
    answers: Vec<Answer>,
    durability: Option<Durability>,
}

#[derive(Debug)]
struct Planned {
    bytes: Bytes,
    effect: Effect,
    /// Where it was written, or why not.
    written: Result<Position, Refusal>,
}

/// What a record does to the books once it is written.
#[derive(Debug)]
enum Effect {
    /// It did so already.
    Journal(Record),
    /// A message is there.
    Publish(Published),
    /// As it says.
    Change(Record),
}

#[derive(Debug)]
enum Answer {
    Published {
        slots: Vec<Slot>,
        reply: oneshot::Sender<Vec<Result<Receipt, Refusal>>>,
        // Held, not read: other publishers may fill the room when these messages are written.
        _permit: Option<OwnedSemaphorePermit>,
    },
    Changed(Result<(Option<usize>, u64), Refusal>, oneshot::Sender<Result<Done, Refusal>>),
}

impl Committer {
    /// A committer on an engine and the books that were read from it.
    #[must_use]
    pub fn new(engine: Box<dyn Engine>, ledger: Arc<Ledger>) -> Self {
        let (batch, compaction) = (Batch::default(), Compaction::default());
        let mut committer = Self { engine, ledger, batch, compaction, unreserved: 0 };
        committer.keep_reserve();
        committer.ledger.note_usage(committer.engine.usage());
        committer
    }

    /// Takes commands from decision to answer.
    pub fn commit(&mut self, commands: &mut Vec<Command>) {
        if let Some(failure) = self.ledger.failure() {
            commands.drain(..).for_each(|command| refuse(command, &failure));
            return;
        }
        let now = self.ledger.clock.now();
        {
            let is_short_of_room = self.ledger.is_short_of_room();
            let mut books = lock(&self.ledger.books);
            books.is_short_of_room = is_short_of_room;
            let journal = std::mem::take(&mut books.journal);
            journal.into_iter().for_each(|record| self.batch.plan(record.write().into(), Effect::Journal(record)));
            commands.drain(..).for_each(|command| self.batch.decide(&mut books, command, now));
        }
        self.write();
        self.apply(now);
        self.unreserved += self.batch.records.len();
        if self.unreserved >= UNRESERVED_MAX {
            self.keep_reserve();
        }
        self.answer();
        let usage = self.engine.usage();
        let is_compacted = self.compact(&usage);
        self.ledger.note_usage(if is_compacted { self.engine.usage() } else { usage });
    }

    fn write(&mut self) {
        if self.batch.records.is_empty() {
            return;
        }
        let start = Instant::now();
        let durability = self.batch.durability.unwrap_or(Durability::Os);
        let written = append(&mut *self.engine, &mut self.batch.records);
        let written = written.and_then(|()| self.engine.commit(durability));
        match written {
            Ok(()) => self.ledger.metrics.committed(self.batch.records.len(), start.elapsed()),
            Err(error) => {
                tracing::error!(%error, "the engine has failed; the broker takes nothing until it is started again");
                self.ledger.fail(error.to_string());
                self.batch.fail(&Refusal::Engine(error.to_string()));
            }
        }
    }

    fn apply(&mut self, now: Moment) {
        let mut books = lock(&self.ledger.books);
        let mut cache = lock(&self.ledger.cache);
        let mut has_delay = false;
        let mut unwritten = Vec::new();
        for planned in &mut self.batch.records {
            let bytes = u32::try_from(planned.bytes.len()).unwrap_or(u32::MAX);
            match (&planned.effect, &planned.written) {
                (Effect::Publish(header), Ok(at)) => {
                    books.published(*at, *at, bytes, header);
                    cache.insert(*at, std::mem::take(&mut planned.bytes));
                }
                (Effect::Publish(header), Err(_)) => books.revoke(header),
                (Effect::Change(record), Ok(at)) => {
                    has_delay |= matches!(record, Record::Again { .. });
                    books.apply(*at, bytes, record, now);
                }
                // What the books say already and the log does not: once more with the next batch.
                (Effect::Journal(record), Err(Refusal::NoRoom(_))) => unwritten.push(record.clone()),
                (Effect::Change(record), Err(_)) => {
                    books.abandon(record);
                    has_delay = true;
                }
                (Effect::Journal(_), _) => {}
            }
        }
        books.put_back(unwritten);
        let to_notify = std::mem::take(&mut books.to_notify);
        drop((books, cache));
        to_notify.notify();
        if has_delay {
            self.ledger.timer.notify_one();
        }
    }

    /// Has as much room held for acknowledgements as what is live may need.
    fn keep_reserve(&mut self) {
        let bytes = reserve_bytes(&lock(&self.ledger.books));
        self.engine.keep_reserve(bytes);
        self.unreserved = 0;
    }

    /// Compacts the log when it is worth it, and answers whether the engine may hold something else now.
    fn compact(&mut self, usage: &Usage) -> bool {
        if self.ledger.failure().is_some() {
            return false;
        }
        match self.compaction.run(&mut *self.engine, &self.ledger, usage) {
            Ok(is_compacted) => return is_compacted,
            Err(Error::Full(why)) => tracing::warn!(why, "the log could not be compacted for want of room"),
            Err(error) => {
                tracing::error!(%error, "the engine has failed while the log was compacted");
                self.ledger.fail(error.to_string());
            }
        }
        true
    }

    fn answer(&mut self) {
        let Batch { records, answers, durability } = &mut self.batch;
        for answer in answers.drain(..) {
            // Who does not wait any more has gone away; what was done stays done.
            match answer {
                Answer::Published { slots, reply, .. } => {
                    drop(reply.send(slots.into_iter().map(|slot| receipt(slot, records)).collect()));
                }
                Answer::Changed(decided, reply) => drop(reply.send(decided.and_then(|(record, count)| {
                    let position = record.map_or(Ok(Position(0)), |number| records[number].written.clone())?;
                    Ok(Done { position, count })
                }))),
            }
        }
        records.clear();
        *durability = None;
    }
}

impl Batch {
    fn plan(&mut self, bytes: Bytes, effect: Effect) {
        self.records.push(Planned { bytes, effect, written: Ok(Position(0)) });
    }

    fn decide(&mut self, books: &mut Books, command: Command, now: Moment) {
        match command {
            Command::Flush => {}
            Command::Publish { messages, reply, permit } => {
                let slots = messages.into_iter().map(|message| self.judge(books, message)).collect();
                self.answers.push(Answer::Published { slots, reply, _permit: permit });
            }
            Command::Change { change, reply } => {
                let decided = books.decide(change, now).map(|(record, count)| {
                    let number = record.map(|record| {
                        self.ask(books.durability(&record));
                        self.plan(record.write().into(), Effect::Change(record));
                        self.records.len() - 1
                    });
                    (number, count)
                });
                self.answers.push(Answer::Changed(decided, reply));
            }
        }
    }

    fn judge(&mut self, books: &mut Books, message: Publication) -> Slot {
        let slot = books.judge(&message.header, self.records.len());
        if let Slot::New(_, durability) = &slot {
            self.ask(*durability);
            self.plan(message.record, Effect::Publish(message.header));
        }
        slot
    }

    fn ask(&mut self, durability: Durability) {
        if self.durability != Some(Durability::Sync) {
            self.durability = Some(durability);
        }
    }

    /// Nobody knows what of it is written.
    fn fail(&mut self, refusal: &Refusal) {
        self.records.iter_mut().for_each(|planned| planned.written = Err(refusal.clone()));
    }
}

/// Gives every record to the engine. One for which there is no room is refused alone. A batch that is more than may wait for a commit is
/// committed in pieces.
fn append(engine: &mut dyn Engine, records: &mut [Planned]) -> Result<(), Error> {
    for planned in records {
        let room = match planned.effect {
            Effect::Publish(_) => Room::Plain,
            Effect::Journal(_) | Effect::Change(_) => Room::Reserve,
        };
        let written = match engine.append(&planned.bytes, room) {
            Err(Error::Backlog) => {
                engine.commit(Durability::Os)?;
                engine.append(&planned.bytes, room)
            }
            other => other,
        };
        planned.written = match written {
            Ok(position) => Ok(position),
            Err(Error::Full(why)) => Err(Refusal::NoRoom(why)),
            Err(error) => return Err(error),
        };
    }
    Ok(())
}

fn receipt(slot: Slot, records: &[Planned]) -> Result<Receipt, Refusal> {
    let written = |number: usize| records[number].written.clone();
    match slot {
        Slot::New(number, durability) => Ok(Receipt { position: written(number)?, durability, duplicate: false }),
        Slot::Duplicate(place, durability) => {
            let position = match place {
                Place::Stored(position) => position,
                Place::Pending(number) => written(number)?,
            };
            Ok(Receipt { position, durability, duplicate: true })
        }
        Slot::Refused(refusal) => Err(refusal),
    }
}

fn refuse(command: Command, failure: &str) {
    let refusal = Refusal::Engine(failure.to_owned());
    match command {
        Command::Flush => {}
        Command::Publish { messages, reply, .. } => {
            drop(reply.send(messages.iter().map(|_| Err(refusal.clone())).collect()));
        }
        Command::Change { reply, .. } => drop(reply.send(Err(refusal))),
    }
}
