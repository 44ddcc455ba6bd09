//! The registry: which instances live, fed by their reports. A pure core: time is an argument, counted from the control
//! plane's start, and whoever holds it asks it to [`Registry::expire`].
//!
//! After a restart the instances that lived before are **presumed** to live on: they are endpoints until they connect, which is
//! when their own word counts, or for [`PRESUMED_MAX`]. `instances` keeps them on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use model::identity::Subject;
use model::name::Name;
use model::snapshot::Endpoint;
use serde::{Deserialize, Serialize};

/// From one heartbeat to the next.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long an instance may be silent: three heartbeats are missing then. It holds for one whose stream has ended as well.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How long an instance is presumed to live after a restart of the control plane, from when the first role has connected. A role tries
/// to connect each second; one that needs longer is slow, or the way from it is still cut.
pub const PRESUMED_MAX: Duration = Duration::from_secs(30);
/// How long roles that serve work on what they have after a start at which nobody knows who lived before; longer than a role's
/// longest wait between two attempts to connect.
pub const REFILL: Duration = Duration::from_secs(5);
/// As many instances that fall silent together say that it is the control plane which is cut off, and not they that are gone.
const ALONE_MIN: usize = 2;
/// Instances of one subject.
pub const INSTANCES_MAX: usize = 1_024;

/// The instances that live.
#[derive(Debug, Default)]
pub struct Registry {
    instances: BTreeMap<Subject, BTreeMap<Name, Instance>>,
    streams: u64,
    /// Nobody is heard any more: nobody is taken out for it.
    cut_off: bool,
}

/// What an instance says of itself when its stream begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its name.
    pub instance: Name,
    /// The subset it belongs to.
    pub subset: Option<Name>,
    /// Where the mesh reaches it; `None`: nowhere, as with a gateway.
    pub address: Option<SocketAddr>,
}

/// A stream that an instance reports on. An instance has one: the latest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    subject: Subject,
    instance: Name,
    number: u64,
}

/// An instance, as it last reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The subset it belongs to.
    pub subset: Option<Name>,
    /// Where the mesh reaches it.
    pub address: Option<SocketAddr>,
    /// Whether its application answers. `false` before the first heartbeat.
    pub healthy: bool,
    /// Whether it is about to end.
    pub draining: bool,
    /// It has been silent for too long and is out, though its stream stands.
    pub silent: bool,
    /// It lived before the control plane's restart and has not connected since.
    pub presumed: bool,
    // Last; of a presumed one, since when it is awaited.
    seen: Duration,
    // The stream that speaks for it; `None` once that has ended.
    stream: Option<u64>,
}

/// A report is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are [`INSTANCES_MAX`] instances of the subject.
    #[error("the subject has {INSTANCES_MAX} instances already")]
    Full,
    /// The instance has begun another stream since.
    #[error("the instance has begun another stream since")]
    Superseded,
}

impl Registry {
    /// Presumes that instances live which lived before the control plane's restart, as many of each subject as are allowed.
    pub fn presume(&mut self, lived: impl IntoIterator<Item = (Subject, Hello)>, at: Duration) {
        for (subject, Hello { instance, subset, address }) in lived {
            let instances = self.instances.entry(subject).or_default();
            if instances.len() < INSTANCES_MAX {
                instances.entry(instance).or_insert(Instance {
                    subset,
                    address,
                    healthy: true,
                    draining: false,
                    silent: false,
                    presumed: true,
                    seen: at,
                    stream: None,
                });
            }
        }
    }

    /// An instance begins a stream. It counts once it reports that it is healthy.
    ///
    /// One that reconnects stays what it was, so that no endpoint flickers; one that has moved begins anew. Whoever comes takes the
    /// place of one that is presumed only.
    ///
    /// # Errors
    /// When the subject has as many instances as are allowed.
    pub fn hello(&mut self, subject: &Subject, hello: Hello, at: Duration) -> Result<Stream, Error> {
        let instances = self.instances.entry(subject.clone()).or_default();
        let Hello { instance, subset, address } = hello;
        let known = instances.get(&instance).filter(|known| known.address == address && known.subset == subset);
        let (healthy, draining) =
            known.map_or((false, false), |known| (known.healthy && !known.silent, known.draining));
        if !instances.contains_key(&instance) && instances.len() >= INSTANCES_MAX {
            let presumed = instances.iter().find(|(_, instance)| instance.presumed).map(|(name, _)| name.clone());
            instances.remove(&presumed.ok_or(Error::Full)?);
        }
        self.streams += 1;
        let stream = Some(self.streams);
        let entry = Instance { subset, address, healthy, draining, silent: false, presumed: false, seen: at, stream };
        instances.insert(instance.clone(), entry);
        Ok(Stream { subject: subject.clone(), instance, number: self.streams })
    }

    /// An instance says how it is. Answers whether that changed what others are told.
    ///
    /// # Errors
    /// When another stream speaks for the instance now.
    pub fn heartbeat(&mut self, stream: &Stream, healthy: bool, draining: bool, at: Duration) -> Result<bool, Error> {
        let instance = self.instance_of(stream).ok_or(Error::Superseded)?;
        let before = instance.is_live();
        (instance.healthy, instance.draining, instance.silent, instance.seen) = (healthy, draining, false, at);
        Ok(before != instance.is_live())
    }

    /// A stream has ended. An instance that was draining is out at once, another when it stays silent; neither changes what others
    /// are told now.
    pub fn ended(&mut self, stream: &Stream) {
        let Some(instance) = self.instance_of(stream) else { return };
        if instance.draining || instance.silent {
            self.remove(&stream.subject, &stream.instance);
        } else {
            instance.stream = None;
        }
    }

    /// Takes out who has been silent for too long, unless everybody is. Answers as [`Registry::heartbeat`].
    pub fn expire(&mut self, at: Duration) -> bool {
        if self.hears_nobody(at) {
            self.cut_off = true;
            return false;
        }
        if std::mem::take(&mut self.cut_off) {
            // The first ones are back. The others have as long as after a pause of the control plane's own.
            self.forgive(at);
        }
        let mut changed = false;
        for instances in self.instances.values_mut() {
            instances.retain(|_, instance| {
                if at.saturating_sub(instance.seen) <= instance.silence_max() {
                    return true;
                }
                changed |= instance.is_live();
                instance.silent = true;
                instance.stream.is_some()
            });
        }
        self.instances.retain(|_, instances| !instances.is_empty());
        changed
    }

    /// Roles work on what they know while the control plane is out of reach; whoever comes back first must not be told that all
    /// the others are gone. The same holds after a restart, until the first one has come.
    fn hears_nobody(&self, at: Duration) -> bool {
        let mut counted = self.instances.values().flat_map(BTreeMap::values).filter(|instance| !instance.silent);
        let silent = |instance: &Instance| instance.presumed || at.saturating_sub(instance.seen) > SILENCE_MAX;
        let known = counted.clone().count();
        known >= ALONE_MIN && counted.all(silent)
    }

    /// The control plane itself did not run until `at`: nobody is blamed for that time, silence counts from now.
    pub fn forgive(&mut self, at: Duration) {
        for instance in self.instances.values_mut().flat_map(BTreeMap::values_mut) {
            instance.seen = at;
        }
    }

    /// Where a subject is reached: its instances that are healthy and stay.
    #[must_use]
    pub fn endpoints(&self, subject: &Subject) -> Vec<Endpoint> {
        let live = |(name, instance): (&Name, &Instance)| {
            let address = instance.address.filter(|_| instance.is_live())?;
            Some(Endpoint { instance: name.clone(), address, subset: instance.subset.clone() })
        };
        self.instances.get(subject).into_iter().flatten().filter_map(live).collect()
    }

    /// Who lives, by subject and name: whom a restarted control plane may presume to live.
    #[must_use]
    pub fn living(&self) -> Vec<(Subject, Hello)> {
        let living = self.instances().filter(|(_, _, instance)| instance.is_live());
        let kept = living.map(|(subject, name, Instance { subset, address, .. })| {
            (subject.clone(), Hello { instance: name.clone(), subset: subset.clone(), address: *address })
        });
        kept.collect()
    }

    /// Subjects of which an instance is presumed to live.
    #[must_use]
    pub fn presumed_subjects(&self) -> BTreeSet<Subject> {
        let presumed = self.instances().filter(|(_, _, instance)| instance.presumed);
        presumed.map(|(subject, _, _)| subject.clone()).collect()
    }

    /// Whether others are told of an instance.
    #[must_use]
    pub fn is_live(&self, subject: &Subject, instance: &Name) -> bool {
        self.instances.get(subject).and_then(|instances| instances.get(instance)).is_some_and(Instance::is_live)
    }

    /// All instances in the order of their subjects and names.
    pub fn instances(&self) -> impl Iterator<Item = (&Subject, &Name, &Instance)> {
        self.instances
            .iter()
            .flat_map(|(subject, instances)| instances.iter().map(move |(name, instance)| (subject, name, instance)))
    }

    /// Whether `stream` still speaks for its instance.
    #[must_use]
    pub fn is_current(&self, stream: &Stream) -> bool {
        let instance = self.instances.get(&stream.subject).and_then(|instances| instances.get(&stream.instance));
        instance.is_some_and(|instance| instance.stream == Some(stream.number))
    }

    fn instance_of(&mut self, stream: &Stream) -> Option<&mut Instance> {
        let instance = self.instances.get_mut(&stream.subject)?.get_mut(&stream.instance)?;
        (instance.stream == Some(stream.number)).then_some(instance)
    }

    fn remove(&mut self, subject: &Subject, instance: &Name) {
        if let Some(instances) = self.instances.get_mut(subject) {
            instances.remove(instance);
            if instances.is_empty() {
                self.instances.remove(subject);
            }
        }
    }
}

impl Instance {
    /// Whether others are told of it.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.healthy && !self.draining && !self.silent
    }

    fn silence_max(&self) -> Duration {
        if self.presumed { PRESUMED_MAX } else { SILENCE_MAX }
    }
}

impl Stream {
    /// Whose it is.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Which instance speaks on it.
    #[must_use]
    pub fn instance(&self) -> &Name {
        &self.instance
    }
}

#[cfg(test)]
mod tests;
