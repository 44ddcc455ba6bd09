//! A start: the log is opened and read into the books.

use model::position::Position;
use runtime::lanes::Place;

use crate::books::Books;
use crate::broker::{Error, Options};
use crate::checkpoint::{self, Parts};
use crate::engine::embedded::{Embedded, Kept, Opened};
use crate::moment::{Clock, Moment};
use crate::record::{self, Record};

/// Opens the log and reads it.
///
/// # Errors
/// When it is damaged, in use, or holds what this version does not know.
pub fn open(options: &Options, clock: Clock) -> Result<(Books, Embedded), Error> {
    let mut reading = Reading { books: Books::new(runtime::random::seed()), parts: Parts::default(), now: clock.now() };
    let mut odd = None;
    let mut visit = |position: Position, bytes: &[u8]| {
        if let Err(why) = reading.take(position, bytes) {
            odd.get_or_insert(Error::Record { position, why });
        }
    };
    let Opened { mut engine, recovery } =
        Embedded::open(options.disk.clone(), &options.dir, kept(options.place), &mut visit)?;
    if let Some(error) = odd {
        return Err(error);
    }
    engine.fill_ahead(options.place)?;
    let torn_bytes = recovery.torn_bytes;
    tracing::info!(dir = %options.dir.display(), records = recovery.records, torn_bytes, "the broker's log was read");
    Ok((reading.books, engine))
}

struct Reading {
    books: Books,
    parts: Parts,
    now: Moment,
}

impl Reading {
    fn take(&mut self, position: Position, bytes: &[u8]) -> Result<(), record::Error> {
        let (record, _) = Record::read(bytes)?;
        if let Record::Checkpoint { part, last, bytes } = &record {
            if let Some(whole) = self.parts.take(*part, *last, bytes) {
                // What the records before it gave is only a part of the story: those before them were trimmed.
                self.books = Books::new(runtime::random::seed());
                checkpoint::read(&whole, &mut self.books, self.now)?;
            }
            return Ok(());
        }
        self.books.apply(position, u32::try_from(bytes.len()).unwrap_or(u32::MAX), &record, self.now);
        Ok(())
    }
}

/// In the simulation the disk is memory, and a segment that no run fills would only make each run slow.
fn kept(place: Place) -> Kept {
    match place {
        Place::Thread => Kept::default(),
        Place::Inline => Kept { segment_bytes: 1 << 20, reserve_bytes: 256 << 10 },
    }
}
