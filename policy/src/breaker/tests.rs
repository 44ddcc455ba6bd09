//! Tables, and a model of the breaker under random steps.

use super::*;
use proptest::prelude::*;

fn settings(consecutive_failures: u32) -> config::Breaker {
    config::Breaker { consecutive_failures, open: Duration::from_secs(1), open_max: Duration::from_secs(30) }
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
    for outcome in [Outcome::Served, Outcome::Overloaded] {
        feed(&breaker, Outcome::LOCAL_FAULT, at(0));
        feed(&breaker, Outcome::UPSTREAM_FAULT, at(0));
        feed(&breaker, outcome, at(0));
        assert_eq!(breaker.standing(at(0)), Standing::Closed);
    }
    // A cancelled attempt neither counts nor resets.
    feed(&breaker, Outcome::LOCAL_FAULT, at(0));
    feed(&breaker, Outcome::LOCAL_FAULT, at(0));
    feed(&breaker, Outcome::Unknown, at(0));
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
    assert!(second.since(until) > Duration::from_millis(1_599), "the open time doubles");
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
        4 => (0usize..8, outcome).prop_map(|(index, outcome)| Step::Settle(index, outcome)),
        1 => (0usize..8).prop_map(Step::Drop),
        2 => (0u64..3_000).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Never two probes; nothing passes before the open time is over; a breaker can always be probed again.
    #[test]
    fn the_state_machine_holds(steps in prop::collection::vec(step(), 0..200), threshold in 1u32..5, random: u64) {
        let breaker = Breaker::new(&settings(threshold));
        let (mut now, mut held, mut closed_to) = (0u64, Vec::<Permit>::new(), Tick::ZERO);
        for step in steps {
            let change = match step {
                Step::Wait(millis) => { now += millis; None }
                Step::Admit => {
                    if let Ok(permit) = breaker.admit(at(now)) {
                        prop_assert!(at(now) >= closed_to, "passed while open");
                        held.push(permit);
                    }
                    None
                }
                Step::Drop(index) => { if index < held.len() { drop(held.swap_remove(index)); } None }
                Step::Settle(index, outcome) if index < held.len() => held.swap_remove(index).settle(outcome, random, at(now)),
                Step::Settle(..) => None,
            };
            if let Some(Change::Opened { until, .. }) = change { closed_to = until; }
            let probes = held.iter().filter(|permit| permit.is_probe()).count();
            prop_assert!(probes <= 1, "two probes");
            prop_assert_eq!(probes == 1, breaker.standing(at(now)) == Standing::HalfOpen);
        }
        held.clear();
        prop_assert!(breaker.admit(at(now + 30_000)).is_ok());
    }
}
