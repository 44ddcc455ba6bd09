//! Tables, and a model of the breaker under random steps.

use super::*;
use proptest::prelude::*;

fn settings(consecutive_failures: u32) -> config::Breaker {
    config::Breaker { consecutive_failures, ..config::Breaker::default() }
}

fn at(millis: u64) -> Tick {
    Tick::since_origin(Duration::from_millis(millis))
}

fn feed(breaker: &Breaker, outcome: Outcome, now: Tick) -> Option<Change> {
    breaker.admit(now).unwrap().settle(outcome, u64::MAX, now)
}

fn opened(breaker: &Breaker, failures: u32, now: Tick) -> Tick {
    for _ in 1..failures {
        assert_eq!(feed(breaker, Outcome::LOCAL_FAULT, now), None);
    }
    match feed(breaker, Outcome::UPSTREAM_FAULT, now) {
        Some(Change::Opened { until, by: Origin::Upstream }) => until,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_opens_on_faults_in_a_row_and_on_nothing_else() {
    let breaker = Breaker::new(&settings(3));
    for outcome in [Outcome::Served, Outcome::Overloaded, Outcome::Dependency] {
        feed(&breaker, Outcome::LOCAL_FAULT, at(0));
        feed(&breaker, Outcome::UPSTREAM_FAULT, at(0));
        feed(&breaker, outcome, at(0));
        assert_eq!(breaker.standing(at(0)), Standing::Closed);
    }
    // A cancelled attempt neither counts nor resets.
    feed(&breaker, Outcome::LOCAL_FAULT, at(0));
    feed(&breaker, Outcome::LOCAL_FAULT, at(0));
    feed(&breaker, Outcome::Unknown, at(0));
    feed(&breaker, Outcome::Unanswered, at(0));
    assert!(matches!(feed(&breaker, Outcome::LOCAL_FAULT, at(0)), Some(Change::Opened { by: Origin::Local, .. })));
    assert!(matches!(breaker.admit(at(1)), Err(Refused::Open { by: Origin::Local, .. })));
}

#[test]
fn half_open_admits_one_probe_which_decides() {
    let breaker = Breaker::new(&settings(2));
    let until = opened(&breaker, 2, at(0));
    assert!(until > at(799) && until <= at(1_000));
    assert_eq!(breaker.standing(until), Standing::Due);
    let probe = breaker.admit(until).unwrap();
    assert!(probe.is_probe());
    assert_eq!(breaker.admit(until).unwrap_err(), Refused::HalfOpen);
    let Some(Change::Opened { until: second, .. }) = probe.settle(Outcome::LOCAL_FAULT, u64::MAX, until) else {
        panic!()
    };
    let doubled = Duration::from_millis(1_600)..=Duration::from_secs(2);
    assert!(doubled.contains(&second.since(until)), "the open time doubles: {:?}", second.since(until));
    let probe = breaker.admit(second).unwrap();
    assert_eq!(probe.settle(Outcome::Served, 0, second), Some(Change::Closed));
    // The count begins anew, and so does the open time.
    assert_eq!(feed(&breaker, Outcome::LOCAL_FAULT, second), None);
    assert!(matches!(feed(&breaker, Outcome::LOCAL_FAULT, second),
        Some(Change::Opened { until, .. }) if until.since(second) <= Duration::from_secs(1)));
}

#[test]
fn late_answers_are_ignored() {
    let breaker = Breaker::new(&settings(2));
    let (late_success, late_fault) = (breaker.admit(at(0)).unwrap(), breaker.admit(at(0)).unwrap());
    let until = opened(&breaker, 2, at(0));
    assert_eq!(late_success.settle(Outcome::Served, 0, at(10)), None);
    assert!(breaker.admit(at(10)).is_err());
    let probe = breaker.admit(until).unwrap();
    assert_eq!(late_fault.settle(Outcome::LOCAL_FAULT, 0, until), None);
    assert_eq!(probe.settle(Outcome::Served, 0, until), Some(Change::Closed));
}

#[test]
fn a_dropped_or_cancelled_probe_gives_its_slot_back() {
    let breaker = Breaker::new(&settings(1));
    let until = opened(&breaker, 1, at(0));
    drop(breaker.admit(until).unwrap());
    assert_eq!(breaker.standing(until), Standing::Due);
    assert_eq!(breaker.admit(until).unwrap().settle(Outcome::Unknown, 0, until), None);
    assert!(breaker.admit(until).unwrap().is_probe());
}

#[test]
fn a_probe_that_takes_long_keeps_nobody_out() {
    for slow_is_served in [true, false] {
        let breaker = Breaker::new(&settings(1));
        let until = opened(&breaker, 1, at(0));
        let slow = breaker.admit(until).unwrap();
        assert_eq!(breaker.admit(until.after(Duration::from_millis(999))).unwrap_err(), Refused::HalfOpen);
        let later = until.after(Duration::from_secs(1));
        assert_eq!(breaker.standing(later), Standing::Due);
        let second = breaker.admit(later).unwrap();
        assert!(second.is_probe());
        assert_eq!(breaker.standing(later), Standing::HalfOpen);
        // Whichever ends first decides, and the other is late.
        if slow_is_served {
            assert_eq!(slow.settle(Outcome::Served, 0, later), Some(Change::Closed));
            assert_eq!(second.settle(Outcome::LOCAL_FAULT, 0, later), None);
            assert_eq!(breaker.standing(later), Standing::Closed);
        } else {
            assert!(matches!(slow.settle(Outcome::LOCAL_FAULT, 0, later), Some(Change::Opened { .. })));
            assert_eq!(second.settle(Outcome::Served, 0, later), None);
            assert!(matches!(breaker.standing(later), Standing::Open { .. }));
        }
    }
}

#[test]
fn a_slow_probe_that_is_dropped_does_not_free_the_slot_of_the_next() {
    let breaker = Breaker::new(&settings(1));
    let until = opened(&breaker, 1, at(0));
    let slow = breaker.admit(until).unwrap();
    let later = until.after(Duration::from_secs(2));
    let second = breaker.admit(later).unwrap();
    drop(slow);
    assert_eq!(breaker.standing(later), Standing::HalfOpen);
    assert_eq!(second.settle(Outcome::Served, 0, later), Some(Change::Closed));
}

#[test]
fn an_answer_that_has_begun_well_is_what_a_probe_is_for() {
    let breaker = Breaker::new(&settings(1));
    let until = opened(&breaker, 1, at(0));
    let mut probe = breaker.admit(until).unwrap();
    assert_eq!(probe.begun(), Some(Change::Closed));
    assert_eq!(probe.begun(), None);
    assert_eq!(breaker.standing(until), Standing::Closed);
    // Its rest counts like any other answer's.
    assert!(matches!(probe.settle(Outcome::LOCAL_FAULT, 0, until), Some(Change::Opened { .. })));
}

#[test]
fn what_passes_in_spite_of_an_open_breaker_can_only_close_it() {
    let breaker = Breaker::new(&settings(1));
    let until = opened(&breaker, 1, at(0));
    assert_eq!(breaker.pass(at(1)).settle(Outcome::LOCAL_FAULT, 0, at(2)), None);
    assert_eq!(breaker.standing(at(2)), Standing::Open { until, by: Origin::Upstream });
    let (one, mut other) = (breaker.pass(at(3)), breaker.pass(at(3)));
    assert!(!one.is_probe());
    assert_eq!(one.settle(Outcome::Served, 0, at(4)), Some(Change::Closed));
    assert_eq!((other.begun(), breaker.standing(at(4))), (None, Standing::Closed));
    // Where it is due, one that passes is the probe, and where it is closed, it counts.
    let until = opened(&breaker, 1, at(5));
    assert!(breaker.pass(until).is_probe());
    let breaker = Breaker::new(&settings(1));
    assert!(matches!(breaker.pass(at(0)).settle(Outcome::LOCAL_FAULT, 0, at(0)), Some(Change::Opened { .. })));
}

#[test]
fn the_open_time_has_its_bound() {
    for openings in 0..=u8::MAX {
        for random in [0, u64::MAX / 2, u64::MAX] {
            let time = open_time(&settings(1), openings, random);
            assert!(time >= Duration::from_millis(800) && time <= Duration::from_secs(30), "{openings} {time:?}");
        }
    }
    assert!(open_time(&settings(1), u8::MAX, 0) >= Duration::from_secs(24));
}

#[test]
fn of_many_threads_one_gets_the_probe() {
    let breaker = Breaker::new(&settings(1));
    let until = opened(&breaker, 1, at(0));
    let held: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| breaker.admit(until).ok())).collect();
        asked.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(held.len(), 1);
}

/// One step of a random run.
#[derive(Debug, Clone, Copy)]
enum Step {
    Admit,
    Pass,
    Begun(usize),
    Settle(usize, Outcome),
    Drop(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop::sample::select(vec![
        Outcome::Served,
        Outcome::Overloaded,
        Outcome::LOCAL_FAULT,
        Outcome::UPSTREAM_FAULT,
        Outcome::LOCAL_FAULT,
        Outcome::Unknown,
    ]);
    prop_oneof![
        4 => Just(Step::Admit),
        1 => Just(Step::Pass),
        1 => (0usize..8).prop_map(Step::Begun),
        4 => (0usize..8, outcome).prop_map(|(index, outcome)| Step::Settle(index, outcome)),
        1 => (0usize..8).prop_map(Step::Drop),
        2 => (0u64..3_000).prop_map(Step::Wait),
    ]
}

proptest! {
    /// One probe in each of its times at most; none is let pass before the open time is over; a breaker can always be probed
    /// again.
    #[test]
    fn the_state_machine_holds(steps in prop::collection::vec(step(), 0..200), threshold in 1u32..5, random: u64) {
        let breaker = Breaker::new(&settings(threshold));
        let (mut now, mut held, mut closed_to, mut probed) = (0u64, Vec::<Permit>::new(), Tick::ZERO, None::<u64>);
        for step in steps {
            let change = match step {
                Step::Wait(millis) => { now += millis; None }
                Step::Admit => {
                    if let Ok(permit) = breaker.admit(at(now)) {
                        prop_assert!(at(now) >= closed_to, "passed while open");
                        if permit.is_probe() {
                            let in_time = |before: &Permit| before.is_probe() && probed.is_some_and(|at| now < at + 1_000);
                            prop_assert!(held.iter().filter(|before| in_time(before)).count() == 0 || probed.is_none(), "two probes");
                            probed = Some(now);
                        }
                        held.push(permit);
                    }
                    None
                }
                Step::Pass => { held.push(breaker.pass(at(now))); None }
                Step::Begun(index) => held.get_mut(index).and_then(Permit::begun),
                Step::Drop(index) => { if index < held.len() { drop(held.swap_remove(index)); probed = None; } None }
                Step::Settle(index, outcome) if index < held.len() => {
                    let permit = held.swap_remove(index);
                    if permit.is_probe() { probed = None; }
                    permit.settle(outcome, random, at(now))
                }
                Step::Settle(..) => None,
            };
            match change {
                Some(Change::Opened { until, .. }) => (closed_to, probed) = (until, None),
                Some(Change::Closed) => (closed_to, probed) = (Tick::ZERO, None),
                None => {}
            }
            if breaker.standing(at(now)) == Standing::HalfOpen {
                prop_assert!(held.iter().any(Permit::is_probe), "half-open without a probe");
            }
        }
        held.clear();
        prop_assert!(breaker.admit(at(now + 30_000)).is_ok());
    }
}
