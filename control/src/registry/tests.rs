//! Who lives, when, and who is told of it.

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
    /// The control plane ends and starts again.
    Restart,
    Look,
}
use Step::{Beat, Draining, End, Hello as Begin, Look, Restart, Sick, Slept};

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
            Restart => {
                let lived = std::mem::take(&mut self.registry).living();
                self.registry.presume(lived, at);
            }
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

/// `a` and `b` live at 1, when the control plane restarts.
fn restarted() -> Vec<(u64, Step, &'static str)> {
    vec![
        (0, Begin("a"), ""),
        (0, Beat("a"), "a"),
        (0, Begin("b"), "a"),
        (0, Beat("b"), "ab"),
        (1, Restart, "ab"),
        (2, Look, "ab"),
    ]
}

#[test]
fn who_lived_before_a_restart_is_presumed_to_live() {
    let after = |more: Vec<(u64, Step, &'static str)>| restarted().into_iter().chain(more).collect::<Vec<_>>();
    // `a` comes at 600 and says how it is each second until 950.
    let steady = |until_b_is_out: u64| {
        let live = move |at| if at <= until_b_is_out { "ab" } else { "a" };
        let beats = (601..950).step_by(10).map(move |at| (at, Beat("a"), live(at)));
        after([(500, Look, "ab"), (600, Begin("a"), "ab")].into_iter().chain(beats).collect())
    };
    let stories: [Story; 7] = [
        ("nobody has come for a minute, so the way is cut; from the first one on the others have 30 s", steady(901)),
        (
            "a late one comes in time, and its own word counts",
            after(vec![(3, Begin("a"), "ab"), (4, Beat("a"), "ab"), (20, Begin("b"), "ab"), (21, Sick("b"), "a")]),
        ),
        (
            "who has come is awaited no longer than anyone",
            after(vec![
                (3, Begin("a"), "ab"),
                (3, Begin("b"), "ab"),
                (4, Beat("a"), "ab"),
                (33, Beat("a"), "ab"),
                (34, Beat("a"), "a"),
            ]),
        ),
        (
            "a second restart",
            after(vec![(3, Begin("a"), "ab"), (4, Beat("a"), "ab"), (5, Restart, "ab"), (6, Begin("b"), "ab")]),
        ),
        (
            "who drained is not presumed",
            vec![
                (0, Begin("a"), ""),
                (0, Beat("a"), "a"),
                (0, Begin("b"), "a"),
                (0, Beat("b"), "ab"),
                (1, Draining("b"), "a"),
                (2, Restart, "a"),
            ],
        ),
        ("who was sick is not presumed", vec![(0, Begin("a"), ""), (0, Sick("a"), ""), (1, Restart, "")]),
        (
            "who had no stream at that moment is",
            vec![(0, Begin("a"), ""), (0, Beat("a"), "a"), (1, End("a"), "a"), (2, Restart, "a")],
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
fn one_that_has_moved_takes_the_place_of_what_is_presumed_of_it() {
    let mut registry = Registry::default();
    registry.presume([(subject(), hello("a"))], Duration::ZERO);
    let presumed =
        |registry: &Registry| registry.instances().map(|(.., instance)| instance.presumed).collect::<Vec<_>>();
    assert_eq!(presumed(&registry), [true]);
    let moved = Hello { address: Some(([127, 0, 0, 1], 9_999).into()), ..hello("a") };
    let stream = registry.hello(&subject(), moved.clone(), Duration::ZERO).unwrap();
    assert!(registry.endpoints(&subject()).is_empty(), "where it was it is no more");
    assert_eq!(registry.heartbeat(&stream, true, false, Duration::ZERO), Ok(true));
    assert_eq!(registry.endpoints(&subject())[0].address, moved.address.unwrap());
    assert_eq!(presumed(&registry), [false]);
}

#[test]
fn who_is_presumed_takes_nobody_s_place() {
    let mut registry = Registry::default();
    let many = (0..INSTANCES_MAX + 3).map(|index| (subject(), hello(&format!("a-{index}"))));
    registry.presume(many, Duration::ZERO);
    assert_eq!(registry.endpoints(&subject()).len(), INSTANCES_MAX);
    for index in 0..INSTANCES_MAX {
        registry.hello(&subject(), hello(&format!("b-{index}")), Duration::ZERO).unwrap();
    }
    assert_eq!(registry.hello(&subject(), hello("c"), Duration::ZERO), Err(Error::Full));
    assert!(registry.presumed_subjects().is_empty());
}
