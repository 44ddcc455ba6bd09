//! A start: the log is opened and read into the books.

use std::path::Path;

use model::position::Position;
use runtime::lanes::Place;
use storage::log::Recovery;

use crate::books::Books;
use crate::broker::{Error, Options};
use crate::checkpoint::{self, Parts};
use crate::engine::Engine as _;
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
    tell(&options.dir, &recovery, engine.usage().next);
    Ok((reading.books, engine))
}

/// Says what was found, and what was assumed where nothing says it.
fn tell(dir: &Path, recovery: &Recovery, next: Position) {
    let Recovery { records, torn_bytes, known_through, .. } = *recovery;
    let dir = dir.display();
    if recovery.is_new {
        tracing::info!(%dir, "a new log was made: there is none, and nothing says that there was one");
    } else if known_through < next.0 || torn_bytes > 0 {
        tracing::info!(%dir, records, torn_bytes, %next, known_through, "the broker's log was read; it did not end in order, so its end is taken to be where nothing more is written: of what stands before known_through it is known that nothing is missing");
    } else {
        tracing::info!(%dir, records, %next, "the broker's log was read, and nothing of it is missing");
    }
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
