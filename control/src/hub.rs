//! The hub: the configuration in force, the registry and what each role was told, under one lock, with one bell that rings when
//! a role's part may have changed.
//!
//! Streams (`serve::discovery`) and the admin API read and write here; nothing here knows about sockets or files.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::config::Config;
use model::identity::Subject;
use model::name::Name;
use model::snapshot::Snapshot;
use runtime::drain::Drain;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::cut::cut;
use crate::registry::{self, Hello, Registry, Stream};
use crate::sidecars::Sidecars;

/// How often the silent are taken out.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(250);
/// An expiry that comes later than this says that the control plane itself did not run.
const SLEPT_MIN: Duration = Duration::from_secs(1);

/// A configuration with its number; cheap to clone.
#[derive(Debug, Clone)]
pub struct Revision {
    /// Grows by one with each configuration.
    pub number: u64,
    /// The configuration.
    pub config: Arc<Config>,
}

/// The shared state of a control plane.
#[derive(Debug)]
pub struct Hub {
    started: Instant,
    // One lock: every operation is short, does no I/O and needs more than one of the parts. It is never held across an await.
    state: Mutex<State>,
    bell: watch::Sender<()>,
    // Rings when a role has answered for a snapshot or is gone. Apart from the bell, at which every stream looks for news.
    answers: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    revision: Revision,
    registry: Registry,
    // Until then roles that serve wait for their first snapshot; `None` when the registry knows who lived in an earlier life, or
    // there was none.
    refilled: Option<Instant>,
    // What each subject was told last, and at which change that was cut: when nothing has changed since, it still holds.
    told: BTreeMap<Subject, (u64, Arc<Snapshot>)>,
    changes: u64,
    // The last version that each subject was told; `version` for one that was told nothing in this life of the control plane.
    versions: BTreeMap<Subject, u64>,
    version: u64,
    sidecars: Sidecars,
}

impl Hub {
    /// A hub on `revision`. `restarted` says that an earlier life of this control plane may have told roles of instances that the
    /// registry does not know yet. What is told is numbered above `version`, which is above what any earlier life has told.
    #[must_use]
    pub fn new(revision: Revision, restarted: bool, version: u64) -> Arc<Self> {
        let started = Instant::now();
        let state = State {
            revision,
            registry: Registry::default(),
            refilled: restarted.then_some(started + registry::REFILL),
            told: BTreeMap::new(),
            changes: 0,
            versions: BTreeMap::new(),
            version,
            sidecars: Sidecars::default(),
        };
        Arc::new(Self {
            started,
            state: Mutex::new(state),
            bell: watch::Sender::new(()),
            answers: watch::Sender::new(()),
        })
    }

    /// Presumes that instances live which lived before the restart; what is told is then no less than what was told before.
    pub fn presume(&self, lived: Vec<(Subject, Hello)>) {
        let mut state = self.state();
        state.registry.presume(lived, self.started.elapsed());
        state.refilled = None;
        self.ring(state);
    }

    /// Rings when a role's part may have changed.
    #[must_use]
    pub fn bell(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }

    /// The configuration in force.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.state().revision.clone()
    }

    /// Puts a configuration in force.
    pub fn put(&self, revision: Revision) {
        let mut state = self.state();
        state.revision = revision;
        self.ring(state);
    }

    /// When a role that serves on an earlier snapshot may be sent the first one of this life; `None`: at once.
    #[must_use]
    pub fn refilled(&self) -> Option<Instant> {
        self.state().refilled
    }

    /// An instance begins a stream.
    ///
    /// # Errors
    /// When its subject has too many instances.
    pub fn hello(&self, subject: &Subject, hello: Hello) -> Result<Stream, registry::Error> {
        let mut state = self.state();
        let stream = state.registry.hello(subject, hello, self.started.elapsed())?;
        state.sidecars.begin(&stream);
        self.ring(state);
        Ok(stream)
    }

    /// An instance says how it is.
    ///
    /// # Errors
    /// When another stream speaks for the instance now.
    pub fn heartbeat(&self, stream: &Stream, healthy: bool, draining: bool) -> Result<(), registry::Error> {
        let mut state = self.state();
        if state.registry.heartbeat(stream, healthy, draining, self.started.elapsed())? {
            self.ring(state);
        }
        Ok(())
    }

    /// A snapshot goes out on a stream.
    pub fn sent(&self, stream: &Stream, snapshot: &Snapshot) {
        self.state().sidecars.sent(stream, snapshot.version, snapshot.revision);
    }

    /// An instance says what became of a snapshot: taken up, or rejected for a reason.
    pub fn answered(&self, stream: &Stream, version: u64, rejected: Option<&str>) {
        self.state().sidecars.answered(stream, version, rejected);
        self.answers.send_replace(());
    }

    /// A stream has ended.
    pub fn ended(&self, stream: &Stream) {
        let mut state = self.state();
        state.registry.ended(stream);
        state.sidecars.end(stream);
        drop(state);
        self.answers.send_replace(());
    }

    /// Resolves once nobody sends to an instance any more: it is no endpoint, and every role that is told of its service has answered
    /// for what it is told now. A role that rejected that will not take up anything later either, and one without a stream cannot be
    /// told; neither is waited for, unless it is presumed to live: it will connect in a moment.
    pub async fn withdrawn(&self, subject: &Subject, instance: &Name) {
        let (mut bell, mut answers) = (self.bell(), self.answers.subscribe());
        while !self.state().has_withdrawn(subject, instance) {
            // Both ring until the hub is gone.
            tokio::select! {
                _ = bell.changed() => {}
                _ = answers.changed() => {}
            }
        }
    }

    /// Whether `stream` still speaks for its instance.
    #[must_use]
    pub fn is_current(&self, stream: &Stream) -> bool {
        self.state().registry.is_current(stream)
    }

    /// What `subject` is told now; `None`: the configuration does not declare it. All instances of a subject are told the same
    /// under the same version, and a new version is new content.
    #[must_use]
    pub fn snapshot(&self, subject: &Subject) -> Option<Arc<Snapshot>> {
        self.state().snapshot(subject)
    }

    /// Looks at the registry and at what roles were told.
    pub fn view<T>(&self, look: impl FnOnce(&Revision, &Registry, &Sidecars) -> T) -> T {
        let state = self.state();
        look(&state.revision, &state.registry, &state.sidecars)
    }

    /// Takes out silent instances until the drain.
    pub async fn expire(self: Arc<Self>, drain: Drain) {
        let mut ticks = tokio::time::interval(EXPIRY_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = drain.requested() => return,
            }
            self.expire_once(last.elapsed());
            last = Instant::now();
        }
    }

    fn expire_once(&self, since_last: Duration) {
        let mut state = self.state();
        // After a pause of its own (a suspended machine, no processor for long) the control plane has not read the
        // heartbeats that were sent to it meanwhile.
        if since_last > SLEPT_MIN {
            state.registry.forgive(self.started.elapsed());
        }
        if state.registry.expire(self.started.elapsed()) {
            self.ring(state);
        }
    }

    fn ring(&self, mut state: MutexGuard<'_, State>) {
        state.changes += 1;
        drop(state);
        self.bell.send_replace(());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn snapshot(&mut self, subject: &Subject) -> Option<Arc<Snapshot>> {
        let State { revision, registry, told, changes, versions, version: first, .. } = self;
        let last = told.get_mut(subject);
        if let Some((cut_at, told)) = &last
            && cut_at == changes
        {
            return Some(told.clone());
        }
        let mut fresh = cut(&revision.config, revision.number, registry, subject)?;
        if let Some((cut_at, told)) = last {
            fresh.version = told.version;
            if fresh == **told {
                *cut_at = *changes;
                return Some(told.clone());
            }
        }
        let version = versions.entry(subject.clone()).or_insert(*first);
        *version += 1;
        fresh.version = *version;
        let fresh = Arc::new(fresh);
        told.insert(subject.clone(), (*changes, fresh.clone()));
        Some(fresh)
    }

    fn has_withdrawn(&mut self, subject: &Subject, instance: &Name) -> bool {
        if self.registry.is_live(subject, instance) {
            return false;
        }
        let presumed = self.registry.presumed_subjects();
        self.sidecars.subjects().union(&presumed).all(|caller| {
            let Some(told) = self.snapshot(caller) else { return true };
            let is_told = told.services.values().any(|part| part.subject.as_ref() == Some(subject));
            !is_told || (!presumed.contains(caller) && self.sidecars.have_answered(caller, told.version))
        })
    }
}

#[cfg(test)]
mod tests;
