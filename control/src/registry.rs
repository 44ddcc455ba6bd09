//! The registry: which instances live, fed by their reports. A pure core: time is an argument, counted from the control
//! plane's start, and whoever holds it asks it to [`Registry::expire`].
//!
//! Nothing of it is kept on disk: after a restart it refills from the roles' reports within seconds. Until then what it says is
//! less than the truth, which is why `hub` makes roles that are running wait ([`REFILL`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use model::identity::Subject;
use model::name::Name;
use model::snapshot::Endpoint;

/// From one heartbeat to the next.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long an instance may be silent: three heartbeats are missing then. It holds for one whose stream has ended as well.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How long the registry may be incomplete after a start; longer than a role's longest wait between two attempts to connect.
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// An instance begins a stream. It counts once it reports that it is healthy.
    ///
    /// One that reconnects stays what it was, so that no endpoint flickers; one that has moved begins anew.
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
            return Err(Error::Full);
        }
        self.streams += 1;
        let stream = Some(self.streams);
        let entry = Instance { subset, address, healthy, draining, silent: false, seen: at, stream };
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
                if at.saturating_sub(instance.seen) <= SILENCE_MAX {
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
    /// the others are gone.
    fn hears_nobody(&self, at: Duration) -> bool {
        let mut counted = self.instances.values().flat_map(BTreeMap::values).filter(|instance| !instance.silent);
        let silent = |instance: &Instance| at.saturating_sub(instance.seen) > SILENCE_MAX;
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
mod tests {
    use super::*;

    /// What happens to the instances `a` and `b` of one service, and when, in tenths of a second.
    enum Step {
        Hello(&'static str),
        Beat(&'static str),
        Sick(&'static str),
        Draining(&'static str),
        End(&'static str),
        /// The control plane itself.
        Slept,
        Look,
    }
    use Step::{Beat, Draining, End, Hello as Begin, Look, Sick, Slept};

    /// What it tells, and its steps: when, what happens, and who lives after it.
    type Story = (&'static str, Vec<(u64, Step, &'static str)>);

    #[derive(Default)]
    struct Run {
        registry: Registry,
        streams: BTreeMap<&'static str, Stream>,
    }

    fn subject() -> Subject {
        Subject::Service(Name::new("s").unwrap())
    }

    fn hello(name: &str) -> Hello {
        let address = Some(([127, 0, 0, 1], u16::from(name.as_bytes()[0])).into());
        Hello { instance: Name::new(name).unwrap(), subset: None, address }
    }

    impl Run {
        fn step(&mut self, tenths: u64, step: &Step) -> String {
            let at = Duration::from_millis(tenths * 100);
            if matches!(step, Slept) {
                self.registry.forgive(at);
            }
            let before = self.live();
            let mut told = self.registry.expire(at);
            match step {
                Begin(name) => {
                    let stream = self.registry.hello(&subject(), hello(name), at).unwrap();
                    self.streams.insert(name, stream);
                }
                Beat(name) => told |= self.registry.heartbeat(&self.streams[name], true, false, at).unwrap(),
                Sick(name) => told |= self.registry.heartbeat(&self.streams[name], false, false, at).unwrap(),
                Draining(name) => told |= self.registry.heartbeat(&self.streams[name], true, true, at).unwrap(),
                End(name) => self.registry.ended(&self.streams[name]),
                Slept | Look => {}
            }
            let after = self.live();
            assert_eq!(told, before != after, "at {tenths}: {before:?} to {after:?}");
            after
        }

        fn live(&self) -> String {
            self.registry.endpoints(&subject()).iter().map(|endpoint| endpoint.instance.to_string()).collect()
        }
    }

    #[test]
    fn who_lives() {
        let stories: [Story; 10] = [
            (
                "a hello is no health",
                vec![(0, Begin("a"), ""), (1, Beat("a"), "a"), (2, Sick("a"), ""), (3, Beat("a"), "a")],
            ),
            ("two", vec![(0, Begin("b"), ""), (0, Beat("b"), "b"), (1, Begin("a"), "b"), (1, Beat("a"), "ab")]),
            ("three are missing", vec![(0, Begin("a"), ""), (0, Beat("a"), "a"), (30, Look, "a"), (31, Look, "")]),
            (
                "out and back",
                vec![
                    (0, Begin("a"), ""),
                    (0, Beat("a"), "a"),
                    (0, Begin("b"), "a"),
                    (20, Beat("b"), "ab"),
                    (31, Beat("b"), "b"),
                    (40, Beat("a"), "ab"),
                ],
            ),
            (
                "an end is grace",
                vec![
                    (0, Begin("a"), ""),
                    (0, Beat("a"), "a"),
                    (5, End("a"), "a"),
                    (30, Begin("b"), "a"),
                    (31, Beat("b"), "b"),
                ],
            ),
            (
                "a drained end is none",
                vec![(0, Begin("a"), ""), (0, Beat("a"), "a"), (5, Draining("a"), ""), (6, End("a"), "")],
            ),
            (
                "a reconnect does not flicker",
                vec![
                    (0, Begin("a"), ""),
                    (0, Beat("a"), "a"),
                    (5, End("a"), "a"),
                    (9, Begin("a"), "a"),
                    (10, Beat("a"), "a"),
                ],
            ),
            (
                "a return after silence begins anew",
                vec![
                    (0, Begin("a"), ""),
                    (0, Beat("a"), "a"),
                    (0, Begin("b"), "a"),
                    (20, Sick("b"), "a"),
                    (40, Begin("a"), ""),
                    (41, Beat("a"), "a"),
                ],
            ),
            (
                "who hears nobody is alone",
                vec![
                    (0, Begin("a"), ""),
                    (0, Beat("a"), "a"),
                    (0, Begin("b"), "a"),
                    (0, Beat("b"), "ab"),
                    (90, Look, "ab"),
                    (100, Beat("a"), "ab"),
                    (101, Look, "ab"),
                    (130, Beat("a"), "ab"),
                    (131, Look, "ab"),
                    (132, Look, "a"),
                ],
            ),
            (
                "own sleep is nobody's fault",
                vec![(0, Begin("a"), ""), (0, Beat("a"), "a"), (90, Slept, "a"), (120, Look, "a"), (121, Look, "")],
            ),
        ];
        for (story, steps) in stories {
            let mut run = Run::default();
            for (tenths, step, live) in steps {
                assert_eq!(run.step(tenths, &step), live, "{story}, at {tenths}");
            }
        }
    }

    #[test]
    fn only_the_latest_stream_speaks_for_an_instance() {
        let mut registry = Registry::default();
        let old = registry.hello(&subject(), hello("a"), Duration::ZERO).unwrap();
        let new = registry.hello(&subject(), hello("a"), Duration::ZERO).unwrap();
        assert!(!registry.is_current(&old) && registry.is_current(&new));
        assert_eq!(registry.heartbeat(&old, true, false, Duration::ZERO), Err(Error::Superseded));
        assert_eq!(registry.heartbeat(&new, true, false, Duration::ZERO), Ok(true));
        registry.ended(&old);
        assert_eq!(registry.endpoints(&subject()).len(), 1);
    }

    #[test]
    fn a_subject_has_a_bound_of_instances() {
        let mut registry = Registry::default();
        for index in 0..INSTANCES_MAX {
            registry.hello(&subject(), hello(&format!("a-{index}")), Duration::ZERO).unwrap();
        }
        assert_eq!(registry.hello(&subject(), hello("b"), Duration::ZERO), Err(Error::Full));
        assert!(registry.hello(&subject(), hello("a-7"), Duration::ZERO).is_ok());
        assert!(registry.hello(&Subject::Broker, hello("b"), Duration::ZERO).is_ok());
    }
}
