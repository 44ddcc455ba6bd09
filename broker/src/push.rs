//! Push delivery: for each service that is pushed to, one task takes what may be delivered now and calls the service's path through
//! the mesh, as many times at once as it may; the answer's status settles the message.

mod deliver;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use model::config::Source;
use model::name::Name;
use model::snapshot::BrokerPart;
use runtime::drain::Drain;
use runtime::http::SharedHandler;
use tokio::sync::watch;

use crate::core::Core;
use crate::ledger::lock;
use crate::record::Group;

/// All push deliveries of a broker.
pub struct Pushes {
    core: Arc<Core>,
    caller: SharedHandler,
    drain: Drain,
    /// One for each source and service; the task ends when it is told `None`.
    running: Mutex<BTreeMap<(Group, Name), Told>>,
}

/// What a running push is told.
type Told = watch::Sender<Option<Settings>>;

/// How one service is pushed to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Settings {
    path: String,
    concurrency: usize,
}

/// One service's pushes.
struct Push {
    core: Arc<Core>,
    caller: SharedHandler,
    group: Group,
    consumer: Name,
}

impl Pushes {
    /// No pushes yet.
    #[must_use]
    pub fn new(core: Arc<Core>, caller: SharedHandler, drain: Drain) -> Self {
        Self { core, caller, drain, running: Mutex::default() }
    }

    /// Starts what is declared, changes what has changed, ends what is not declared any more.
    pub fn apply(&self, part: &BrokerPart) {
        let mut declared = declared(part);
        let mut running = lock(&self.running);
        running.retain(|key, settings| match declared.remove(key) {
            Some(wanted) => {
                settings.send_if_modified(|held| {
                    let changed = held.as_ref() != Some(&wanted);
                    *held = Some(wanted);
                    changed
                });
                true
            }
            None => {
                settings.send_replace(None);
                false
            }
        });
        for ((group, consumer), wanted) in declared {
            let (sender, settings) = watch::channel(Some(wanted));
            let (core, caller) = (self.core.clone(), self.caller.clone());
            let push = Push { core, caller, group: group.clone(), consumer: consumer.clone() };
            self.drain.spawn(push.run(settings, self.drain.clone()));
            running.insert((group, consumer), sender);
        }
    }
}

fn declared(part: &BrokerPart) -> BTreeMap<(Group, Name), Settings> {
    let consumptions = part.consumers.iter().flat_map(|(consumer, all)| all.iter().map(move |one| (consumer, one)));
    let pushed = consumptions.filter_map(|(consumer, consumption)| {
        let group = match consumption.source.clone() {
            Source::Queue(name) => Group::Queue(name),
            Source::Topic(topic) => Group::Subscription { topic, name: consumer.clone() },
        };
        let settings =
            Settings { path: consumption.path.clone()?, concurrency: usize::from(consumption.concurrency.max(1)) };
        Some(((group, consumer.clone()), settings))
    });
    pushed.collect()
}

impl Push {
    async fn run(self, mut settings: watch::Receiver<Option<Settings>>, drain: Drain) {
        let Some(wake) = lock(&self.core.ledger.books).served(&self.group).map(|served| served.wake.clone()) else {
            return;
        };
        let mut in_flight = FuturesUnordered::new();
        loop {
            let notified = wake.notify.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let now = settings.borrow_and_update().clone();
            let is_ending = now.is_none() || drain.is_requested();
            if is_ending && in_flight.is_empty() {
                return;
            }
            if let Some(Settings { path, concurrency }) = now.filter(|_| !is_ending) {
                let room = concurrency.saturating_sub(in_flight.len());
                let given =
                    if room == 0 { Vec::new() } else { self.core.take(&self.group, &self.consumer, room, None) };
                for given in given {
                    in_flight.push(self.deliver(path.clone(), given));
                }
            }
            tokio::select! {
                () = &mut notified => {}
                Some(()) = in_flight.next(), if !in_flight.is_empty() => {}
                Ok(()) = settings.changed(), if !is_ending => {}
                () = drain.requested(), if !is_ending => {}
            }
        }
    }
}
