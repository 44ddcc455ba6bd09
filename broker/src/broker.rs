//! A broker as its role holds it: started on a folder, told its part of the mesh, asked through a handler.

use std::path::PathBuf;
use std::sync::Arc;

use model::name::Name;
use model::position::Position;
use model::snapshot::BrokerPart;
use runtime::drain::Drain;
use runtime::http::SharedHandler;
use runtime::lanes::{self, Place};
use runtime::metrics::Metrics;
use storage::disk::Disk;

use crate::committer::{BATCH_MAX, Committer, WAITING_MAX};
use crate::core::Core;
use crate::engine::Engine;
use crate::ledger::{Ledger, lock};
use crate::metrics::{EngineMetrics, MessageMetrics};
use crate::moment::Clock;
use crate::payloads::Payloads;
use crate::push::Pushes;
use crate::record;
use crate::recovery;
use crate::redrive::Redrives;
use crate::status::Status;
use crate::verdict::Command;
use crate::{serve, timer};

/// What a broker is started with.
pub struct Options {
    /// The mesh's name.
    pub mesh: Name,
    /// Where files are.
    pub disk: Arc<dyn Disk>,
    /// The folder of its log.
    pub dir: PathBuf,
    /// Where the disk's work is done.
    pub place: Place,
    /// Where it registers what it measures.
    pub metrics: Metrics,
    /// The way out: push deliveries are calls to `http://<service><path>`.
    pub caller: SharedHandler,
    /// When it ends, what is being delivered is finished and nothing more is begun.
    pub drain: Drain,
}

/// A running broker. Its log is let go of some time after the last clone of its handler, once the lanes have ended.
pub struct Broker {
    core: Arc<Core>,
    pushes: Pushes,
    handler: SharedHandler,
}

/// Why a broker could not start, or not take over what it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine could not be opened: damaged (the text names the file and the place), in use, or its disk says no.
    #[error("the broker's log could not be opened: {0}")]
    Engine(crate::engine::Error),
    /// The log holds something that this version does not know.
    #[error("the broker's log at position {position}: {why}; a later version may have written it, so start that one")]
    Record {
        /// Where.
        position: Position,
        /// What is wrong with it.
        why: record::Error,
    },
    /// No thread for the disk's work.
    #[error("no thread for the broker's disk: {0}")]
    Thread(std::io::Error),
}

// By hand: each text above tells its cause already, and a cause that is also an error's source is printed twice.
impl From<crate::engine::Error> for Error {
    fn from(error: crate::engine::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Thread(error)
    }
}

impl Broker {
    /// Opens the log, reads it into the books, and starts what runs by itself. Must be called on a runtime.
    ///
    /// # Errors
    /// When the log cannot be opened or read, or there is no thread for the disk's work.
    pub fn start(options: Options) -> Result<Self, Error> {
        let clock = Clock::start();
        let (books, engine) = recovery::open(&options, clock)?;
        let metrics = EngineMetrics::register(&options.metrics);
        let ledger = Arc::new(Ledger::new(books, clock, &engine, metrics));
        let messages = MessageMetrics(ledger.clone());
        options.metrics.register(|registry| registry.register_collector(Box::new(messages)));
        let payloads = Payloads::start(ledger.clone(), engine.reader(), options.place)?;
        let mut committer = Committer::new(Box::new(engine), ledger.clone());
        let commit = move |commands: &mut Vec<Command>| committer.commit(commands);
        let lane = lanes::disk_lane("broker-log", options.place, WAITING_MAX, BATCH_MAX, commit)?;
        let core = Arc::new(Core::new(options.mesh, ledger, payloads, lane, Redrives::new(options.drain.clone())));
        options.drain.spawn(timer::run(core.clone(), options.drain.clone()));
        let pushes = Pushes::new(core.clone(), options.caller, options.drain);
        let handler = serve::handler(core.clone());
        Ok(Self { core, pushes, handler })
    }

    /// Takes over what is declared: queues, topics, who may publish and consume. A queue that vanished keeps its messages.
    ///
    /// # Errors
    /// None in this version: what an engine cannot do, `check` refuses before.
    pub fn apply(&self, part: Arc<BrokerPart>) -> Result<(), Error> {
        {
            let mut books = lock(&self.core.ledger.books);
            books.configure(part.clone());
            // A start reads what had expired into the books again, and nobody is to be pushed it.
            books.sweep(self.core.ledger.clock.now_for_age());
        }
        self.core.part.store(Some(part.clone()));
        self.core.flush();
        self.pushes.apply(&part);
        Ok(())
    }

    /// The HTTP and gRPC API. Who calls is the request's extension [`runtime::http::Peer`].
    #[must_use]
    pub fn handler(&self) -> SharedHandler {
        self.handler.clone()
    }

    /// Why the broker takes nothing any more until it is started again; `None` while it is well.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.core.ledger.failure()
    }

    /// Waits until the broker takes nothing any more, and says why.
    pub async fn failed(&self) -> String {
        self.core.ledger.failed().await
    }

    /// How the broker is.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(&self.core.ledger)
    }
}
