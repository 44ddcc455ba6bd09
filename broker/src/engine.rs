//! The engine: where records are kept. The trait is the shape of a log, so that queues and topics are written once on whatever has
//! that shape; what an engine cannot do, its capabilities say.
//!
//! An engine knows bytes and positions, not messages. It blocks; the committer calls it on a lane of its own.

pub mod conformance;
pub mod embedded;

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use model::config::Durability;
use model::position::Position;

/// Keeps records.
pub trait Engine: Debug + Send {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Takes a record in and answers with its position: the one after the record before. It is neither durable nor readable
    /// before [`Engine::commit`].
    ///
    /// # Errors
    /// [`Error::Full`]: there is no room but what is kept for [`Room::Reserve`]. [`Error::Backlog`]: as much waits as may; commit first.
    /// [`Error::Failed`]: it takes nothing more.
    fn append(&mut self, record: &[u8], room: Room) -> Result<Position, Error>;

    /// Makes what was appended readable, and as durable as `durability` asks.
    ///
    /// # Errors
    /// [`Error::Failed`]: nobody knows what was kept, and it takes nothing more. Never [`Error::Full`]: what was taken in has its room.
    fn commit(&mut self, durability: Durability) -> Result<(), Error>;

    /// A reader, usable from other threads.
    fn reader(&self) -> Arc<dyn Reader>;

    /// Hands every record from a position on to `visit`, in order.
    ///
    /// # Errors
    /// As [`Reader::read`].
    fn replay(&self, from: Position, visit: &mut dyn FnMut(Position, &[u8])) -> Result<(), Error>;

    /// Lets go of the records of segments that begin with these positions; never of the last one's.
    ///
    /// # Errors
    /// [`Error::Full`]: there is no room even for that, and nothing has changed. Else when what keeps them says no.
    fn release(&mut self, first: &[Position]) -> Result<(), Error>;

    /// The next record begins another segment, so that all before it can be released.
    ///
    /// # Errors
    /// As [`Engine::append`] of [`Room::Reserve`].
    fn begin_segment(&mut self) -> Result<(), Error>;

    /// Holds at least so many bytes for [`Room::Reserve`] from now on; while it cannot, nothing else is taken in.
    fn keep_reserve(&mut self, bytes: u64);

    /// What it holds.
    fn usage(&self) -> Usage;
}

/// Which room a record may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Any but the last: for what is new.
    Plain,
    /// Also the last: for what lets messages go, so that a full disk can be worked off.
    Reserve,
}

/// Reads records.
pub trait Reader: Debug + Send + Sync {
    /// The record at a position.
    ///
    /// # Errors
    /// [`Error::Absent`] when it was released or never written; [`Error::Failed`] when its bytes are not what was written.
    fn read(&self, at: Position) -> Result<Bytes, Error>;
}

/// What an engine can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Capabilities {
    /// Its name in a mesh file.
    pub name: &'static str,
    /// The levels at which it can answer.
    pub sync: bool,
    /// Whether it can answer before a sync.
    pub os: bool,
    /// Whether a batch that was not answered is there whole or not at all after a crash. If not, a part from its beginning may be.
    pub atomic_batches: bool,
    /// Whether it outlives the loss of a machine.
    pub replicated: bool,
    /// The largest record in bytes.
    pub record_bytes_max: usize,
}

/// What an engine holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Usage {
    /// Bytes in use.
    pub bytes: u64,
    /// Its pieces, oldest first: what [`Engine::release`] can let go of at a time.
    pub segments: Vec<Segment>,
    /// The position of the next record.
    pub next: Position,
    /// While it gets no more room: how many bytes it still takes, [`Room::Reserve`] included. `None`: nothing is short.
    pub bytes_left: Option<u64>,
}

/// A piece of an engine's log.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Segment {
    /// Its first record.
    pub first: Position,
    /// Bytes in use.
    pub bytes: u64,
    /// Bytes that it takes of the disk.
    pub room: u64,
}

/// What can go wrong.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// What is on the disk is not what was written. The text names the file and the place in it.
    #[error("{0}")]
    Damaged(String),
    /// There is no room.
    #[error("{0}")]
    Full(String),
    /// As much waits for a commit as may.
    #[error("as much waits for a commit as may")]
    Backlog,
    /// There is no such record.
    #[error("{0}")]
    Absent(String),
    /// A write, a sync or a read has failed.
    #[error("{0}")]
    Failed(String),
}
