//! Tables, and seeded runs of a small cluster.

use std::collections::BinaryHeap;
use std::time::Duration;

use super::*;
use crate::classify::Outcome;
use proptest::prelude::*;

const MILLI: Duration = Duration::from_millis(1);

fn at(millis: u64) -> Tick {
    Tick::since_origin(MILLI * u32::try_from(millis).unwrap())
}

fn millis(load: &Load, now: Tick) -> f64 {
    load.cost(now) / 1e6
}

fn close(value: f64, wanted: f64) {
    assert!((value - wanted).abs() <= wanted.abs() * 1e-3 + 1e-6, "{value} is not {wanted}");
}

#[test]
fn cost_is_round_trip_times_attempts_in_progress() {
    let load = Load::new(at(0));
    close(millis(&load, at(0)), 30.0);
    let (first, second) = (load.start(at(0)), load.start(at(0)));
    close(millis(&load, at(0)), 90.0);
    // The first answer replaces the default.
    first.end(Outcome::Served, at(4));
    close(millis(&load, at(4)), 8.0);
    drop(second);
    close(millis(&load, at(4)), 4.0);
    assert_eq!(load.in_progress(), 0);
}

#[test]
fn a_peak_is_believed_at_once_and_forgotten_in_ten_seconds() {
    let load = Load::new(at(0));
    load.start(at(0)).end(Outcome::Served, at(1));
    load.start(at(1)).end(Outcome::Served, at(101));
    close(millis(&load, at(101)), 100.0);
    close(millis(&load, at(10_101)), 100.0 / std::f64::consts::E);
    // A short round trip pulls it down by the share of the time that has passed.
    load.start(at(10_100)).end(Outcome::Served, at(10_101));
    close(millis(&load, at(10_101)), 100.0 / std::f64::consts::E + (1.0 - 1.0 / std::f64::consts::E));
}

#[test]
fn a_fast_failure_makes_an_endpoint_dearer() {
    for outcome in [Outcome::LOCAL_FAULT, Outcome::UPSTREAM_FAULT, Outcome::Overloaded, Outcome::Dependency] {
        let load = Load::new(at(0));
        load.start(at(0)).end(Outcome::Served, at(10));
        load.start(at(10)).end(outcome, at(10));
        close(millis(&load, at(10)), 110.0);
        for _ in 0..100 {
            load.start(at(10)).end(outcome, at(10));
        }
        close(millis(&load, at(10)), 1_010.0);
        assert!(millis(&load, at(60_000)) < 1.0);
    }
    let load = Load::new(at(0));
    load.start(at(0)).end(Outcome::Unknown, at(10_000));
    close(millis(&load, at(0)), 30.0);
}

#[test]
fn a_quick_head_does_not_hide_what_fails_behind_it() {
    let load = Load::new(at(0));
    load.start(at(0)).end(Outcome::Served, at(1));
    for outcome in [Outcome::Served, Outcome::Unknown, Outcome::Unanswered] {
        load.failed_late(outcome, at(1));
        close(millis(&load, at(1)), 1.0);
    }
    load.failed_late(Outcome::LOCAL_FAULT, at(1));
    close(millis(&load, at(1)), 101.0);
}

#[test]
fn no_answer_for_so_long_is_a_round_trip_of_that_at_least() {
    let load = Load::new(at(0));
    load.start(at(0)).end(Outcome::Served, at(10));
    load.start(at(10)).end(Outcome::Unanswered, at(15));
    close(millis(&load, at(10)), 10.0);
    load.start(at(15)).end(Outcome::Unanswered, at(515));
    close(millis(&load, at(515)), 500.0);
}

#[test]
fn less_than_all_leaves_one() {
    for (count, share, expected) in [
        (0, 0.5, 0),
        (1, 0.5, 0),
        (1, 0.99, 0),
        (1, 1.0, 1),
        (2, 0.5, 1),
        (3, 0.5, 1),
        (4, 0.5, 2),
        (5, 0.0, 0),
        (100, 0.29, 29),
    ] {
        assert_eq!(ejected_max(count, share), expected, "{count} {share}");
    }
}

#[test]
fn what_cannot_be_asked_is_not_picked() {
    use Candidate::{Fit, Tried};
    #[expect(non_upper_case_globals, reason = "reads like the other candidates")]
    const Open: Candidate = Candidate::Open(0.5);
    for (candidates, expected) in [
        (vec![], Err(NoEndpoint::None)),
        (vec![Open], Err(NoEndpoint::AllOpen)),
        (vec![Open, Open, Open], Err(NoEndpoint::AllOpen)),
        (vec![Tried], Err(NoEndpoint::AllTried)),
        (vec![Open, Tried], Err(NoEndpoint::AllTried)),
        (vec![Fit(9.0)], Ok(0)),
        (vec![Open, Tried, Fit(9.0), Open], Ok(2)),
        (vec![Fit(2.0), Fit(1.0)], Ok(1)),
        (vec![Fit(2.0), Open, Fit(1.0)], Ok(2)),
    ] {
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..200 {
            let picked = pick(candidates.len(), rng.u64(..), 1.0, |index| candidates[index]);
            let expected = expected.map(|index| Picked { index, in_spite: false });
            assert_eq!(picked, expected, "{candidates:?}");
        }
    }
}

#[test]
fn no_more_are_ejected_than_may_be() {
    use Candidate::{Fit, Open, Tried};
    for (candidates, may_get) in [
        // The only one, and of two one.
        (vec![Open(1.0)], &[(0, true)][..]),
        (vec![Open(1.0), Fit(9.0)], &[(1, false)]),
        (vec![Open(2.0), Open(1.0)], &[(1, true)]),
        // Of four, two; of three open ones the closed one comes first wherever it is drawn.
        (vec![Open(1.0), Open(1.0), Fit(9.0), Fit(9.0)], &[(2, false), (3, false)]),
        (vec![Open(9.0), Open(9.0), Open(9.0), Fit(1.0)], &[(0, true), (1, true), (3, false)]),
        (vec![Tried, Open(1.0), Open(2.0)], &[(1, true)]),
    ] {
        let mut rng = fastrand::Rng::with_seed(5);
        let picked: std::collections::BTreeSet<_> = (0..400)
            .map(|_| pick(candidates.len(), rng.u64(..), 0.5, |index| candidates[index]).unwrap())
            .map(|picked| (picked.index, picked.in_spite))
            .collect();
        assert_eq!(picked.into_iter().collect::<Vec<_>>(), may_get, "{candidates:?}");
    }
    // Without any that may be left alone, all are asked.
    assert!(pick(2, 0, 0.0, |index| if index == 0 { Open(1.0) } else { Fit(2.0) }).unwrap().in_spite);
}

#[test]
fn an_endpoint_that_is_due_gets_its_probe_in_spite_of_its_penalties() {
    let breaker = Breaker::new(&model::config::Breaker { consecutive_failures: 1, ..Default::default() });
    let load = Load::new(at(0));
    load.start(at(0)).end(Outcome::LOCAL_FAULT, at(0));
    let _ = breaker.admit(at(0)).unwrap().settle(Outcome::LOCAL_FAULT, 0, at(0));
    assert!(matches!(candidate(&load, &breaker, at(1)), Candidate::Open(_)));
    assert_eq!(candidate(&load, &breaker, at(1_001)), Candidate::Fit(0.0));
    let _probe = breaker.admit(at(1_001)).unwrap();
    assert!(matches!(candidate(&load, &breaker, at(1_001)), Candidate::Open(_)));
}

/// Sends a request each millisecond to endpoints that take so long, and counts where they went.
fn run(seed: u64, latencies_ms: &[u64], fails: &[bool], requests: u64) -> Vec<u32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let loads: Vec<Load> = latencies_ms.iter().map(|_| Load::new(at(0))).collect();
    let mut counts = vec![0; loads.len()];
    let (mut ends, mut held) = (BinaryHeap::new(), std::collections::HashMap::new());
    for now in 0..requests {
        while let Some(&std::cmp::Reverse((when, id))) = ends.peek().filter(|std::cmp::Reverse((when, _))| *when <= now)
        {
            ends.pop();
            let (index, attempt): (usize, InProgress) = held.remove(&id).unwrap();
            attempt.end(if fails[index] { Outcome::UPSTREAM_FAULT } else { Outcome::Served }, at(when));
        }
        let cost = |index: usize| Candidate::Fit(loads[index].cost(at(now)));
        let Picked { index, .. } = pick(loads.len(), rng.u64(..), 0.5, cost).unwrap();
        counts[index] += 1;
        held.insert(now, (index, loads[index].start(at(now))));
        ends.push(std::cmp::Reverse((now + latencies_ms[index] + rng.u64(0..3), now)));
    }
    counts
}

#[test]
fn the_slow_endpoint_gets_less() {
    for seed in 0..20 {
        let counts = run(seed, &[5, 5, 100], &[false; 3], 20_000);
        assert!(counts[2] * 5 < counts[0].min(counts[1]), "seed {seed}: {counts:?}");
    }
}

#[test]
fn equals_share_equally() {
    for seed in 0..20 {
        let counts = run(seed, &[5; 4], &[false; 4], 20_000);
        assert!(counts.iter().all(|count| (3_500..6_500).contains(count)), "seed {seed}: {counts:?}");
    }
}

#[test]
fn the_endpoint_that_fails_fast_gets_less() {
    for seed in 0..20 {
        let counts = run(seed, &[10, 10, 0], &[false, false, true], 20_000);
        assert!(counts[2] * 5 < counts[0].min(counts[1]), "seed {seed}: {counts:?}");
    }
}

proptest! {
    #[test]
    fn a_pick_can_be_asked(states in prop::collection::vec(0u8..3, 0..9), share in 0.0f64..=1.0, random: u64) {
        let candidate = |index: usize| match states[index] {
            0 => Candidate::Open(index as f64),
            1 => Candidate::Tried,
            _ => Candidate::Fit(index as f64),
        };
        let open = states.iter().filter(|state| **state == 0).count();
        let too_many = open > ejected_max(states.len(), share);
        match pick(states.len(), random, share, candidate) {
            Ok(Picked { index, in_spite: false }) => prop_assert_eq!(states[index], 2),
            Ok(Picked { index, in_spite: true }) => prop_assert!(states[index] == 0 && too_many),
            Err(NoEndpoint::None) => prop_assert!(states.is_empty()),
            Err(NoEndpoint::AllOpen) => prop_assert!(open == states.len() && !too_many),
            Err(NoEndpoint::AllTried) => prop_assert!(states.contains(&1) && !states.contains(&2) && (open == 0 || !too_many)),
        }
    }
}
