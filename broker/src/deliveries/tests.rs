//! Deliveries by tables, and by random steps that must lose nothing and keep the order of keys.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn index(position: u64, key: Option<u64>) -> Index {
    Index { at: Position(position), bytes: 100, key, published_ms: 0, expires_ms: None }
}

fn at(tick_ms: u64) -> Moment {
    Moment { tick_ms, wall_ms: 1_000_000 + tick_ms }
}

fn positions(taken: &Taken) -> Vec<u64> {
    taken.messages.iter().map(|(position, _)| position.0).collect()
}

#[test]
fn a_lease_that_runs_out_is_told_once_and_its_ack_still_counts() {
    let mut deliveries = Deliveries::default();
    deliveries.insert(Position(1), index(1, None), Attempts::default());
    let taken = deliveries.take(5, 7, 100, at(0));
    assert_eq!(positions(&taken), [1]);
    assert_eq!(deliveries.fire(at(99)), []);
    assert_eq!(deliveries.fire(at(100)), [Position(1)]);
    assert_eq!(deliveries.fire(at(200)), []);
    let attempts = Attempts { assigned: 1, failed: 1 };
    deliveries.again(Position(1), attempts, 300, at(200));
    assert_eq!(deliveries.counts(), Counts { delayed: 1, ..Counts::default() });
    let lease = Lease { position: Position(1), fence: 7 };
    assert!(deliveries.held(lease).is_some());
    assert_eq!(deliveries.fire(at(300)), []);
    assert_eq!(positions(&deliveries.take(5, 8, 400, at(300))), [1]);
    assert!(deliveries.held(lease).is_none(), "somebody else has it now");
    assert!(deliveries.settle(Position(1)));
    assert_eq!(deliveries.counts(), Counts::default());
}

#[test]
fn a_lease_is_of_one_assignment() {
    let mut deliveries = Deliveries::default();
    let lease = |fence| Lease { position: Position(1), fence };
    deliveries.insert(Position(1), index(1, None), Attempts::default());
    assert!(deliveries.held(lease(0)).is_none(), "nobody has got it yet");
    deliveries.take(1, 7, UNTIMED, at(0));
    assert!(deliveries.held(lease(7)).is_some() && deliveries.held(lease(8)).is_none());
    deliveries.dead_letter(Position(1), Attempts { assigned: 1, failed: 1 }, "why", 0);
    deliveries.redrive(Position(1));
    assert!(
        deliveries.held(lease(7)).is_none() && deliveries.held(lease(0)).is_none(),
        "a redrive takes it from its holder"
    );
    // As a replay has it.
    deliveries.assigned(Position(1), Attempts { assigned: 1, failed: 0 }, 9);
    assert!(deliveries.held(lease(9)).is_some() && deliveries.held(lease(7)).is_none());
    deliveries.clear();
    deliveries.insert(Position(1), index(1, None), Attempts::default());
    assert!(deliveries.held(lease(9)).is_none(), "and so does a seek");
}

#[test]
fn what_is_over_is_not_given_out() {
    let mut deliveries = Deliveries::default();
    deliveries.insert(Position(1), Index { expires_ms: Some(1_000_010), ..index(1, None) }, Attempts::default());
    deliveries.insert(Position(2), index(2, None), Attempts::default());
    let taken = deliveries.take(5, 1, UNTIMED, at(10));
    assert_eq!((positions(&taken), taken.expired), (vec![2], vec![Position(1)]));
    deliveries.dead_letter(Position(1), Attempts::default(), "expired", 0);
    assert!(deliveries.redrive(Position(1)));
    assert_eq!(positions(&deliveries.take(5, 1, UNTIMED, at(20))), [1], "a redriven one does not expire again");
}

/// They were bounded by their age alone.
#[test]
fn too_many_dead_letters_stop_the_delivery_until_some_are_gone() {
    let mut deliveries = Deliveries::default();
    let over = Index { expires_ms: Some(0), ..index(0, None) };
    for position in 0..=DEAD_MAX as u64 {
        deliveries.insert(Position(position), over, Attempts::default());
    }
    let expired = deliveries.take(1, 1, UNTIMED, at(0)).expired;
    assert_eq!(expired.len(), DEAD_MAX, "nor does what has expired pass the bound");
    for position in expired {
        deliveries.dead_letter(position, Attempts::default(), "expired", 1_000 - position.0 % 1_000);
    }
    deliveries.insert(Position(1_000_000), index(1, None), Attempts::default());
    assert!(deliveries.is_full_of_dead());
    assert_eq!(deliveries.take(1, 1, UNTIMED, at(0)), Taken::default());
    let oldest = deliveries.dead_before(2, 10);
    assert_eq!(oldest.iter().map(|position| position.0 % 1_000).collect::<Vec<_>>(), [999; 10], "the oldest first");
    assert!(deliveries.forget(oldest[0]) && deliveries.redrive(oldest[1]));
    assert_eq!(deliveries.dead_before(2, 10).len(), 10);
    assert_eq!(deliveries.dead_before(1, 10), []);
    assert_eq!(positions(&deliveries.take(2, 1, UNTIMED, at(0))), [oldest[1].0, 1_000_000]);
}

/// What a consumer, a timer or an operator may do.
#[derive(Debug, Clone)]
enum Step {
    Publish(Option<u64>),
    Take(usize, u64),
    Settle(usize),
    Again(usize, u64),
    Bury(usize),
    Redrive(usize),
    Fire,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::option::of(0..4u64).prop_map(Step::Publish),
        4 => (1..4usize, 1..50u64).prop_map(|(max, hold)| Step::Take(max, hold)),
        3 => (0..8usize).prop_map(Step::Settle),
        2 => (0..8usize, 0..50u64).prop_map(|(which, wait)| Step::Again(which, wait)),
        1 => (0..8usize).prop_map(Step::Bury),
        1 => (0..8usize).prop_map(Step::Redrive),
        2 => Just(Step::Fire),
        2 => (1..40u64).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Nothing is lost, each message is in exactly one place, and of a key at most one is out at a time, in order.
    #[test]
    fn every_message_is_in_one_place(steps in prop::collection::vec(step(), 1..200)) {
        let mut deliveries = Deliveries::default();
        let (mut published, mut settled, mut tick) = (0u64, 0u64, 0u64);
        let mut leased: Vec<Position> = Vec::new();
        let mut last_of_key: BTreeMap<u64, Position> = BTreeMap::new();
        let mut buried_once: Vec<Position> = Vec::new();
        for step in steps {
            match step {
                Step::Publish(key) => {
                    published += 1;
                    deliveries.insert(Position(published), index(published, key), Attempts::default());
                }
                Step::Take(max, hold) => {
                    for (position, message) in deliveries.take(max, 1, tick + hold, at(tick)).messages {
                        if let Some(key) = message.index.key
                            && message.attempts.assigned == 1 && !buried_once.contains(&position) {
                            let before = last_of_key.insert(key, position);
                            prop_assert!(before.is_none_or(|before| before < position), "order of key {key}");
                        }
                        prop_assert!(!leased.contains(&position));
                        leased.push(position);
                    }
                }
                Step::Settle(which) if which < leased.len() => {
                    prop_assert!(deliveries.settle(leased.swap_remove(which)));
                    settled += 1;
                }
                Step::Again(which, wait) if which < leased.len() => {
                    let position = leased.swap_remove(which);
                    let attempts = deliveries.messages()[&position].attempts;
                    deliveries.again(position, attempts, tick + wait, at(tick));
                }
                Step::Bury(which) if which < leased.len() => {
                    let position = leased.swap_remove(which);
                    buried_once.push(position);
                    deliveries.dead_letter(position, Attempts::default(), "why", 0);
                }
                Step::Redrive(which) => {
                    let dead = deliveries.dead().keys().nth(which).copied();
                    if let Some(position) = dead {
                        prop_assert!(deliveries.redrive(position));
                    }
                }
                Step::Fire => {
                    for position in deliveries.fire(at(tick)) {
                        leased.retain(|other| *other != position);
                        let attempts = deliveries.messages()[&position].attempts;
                        deliveries.again(position, attempts, tick, at(tick));
                    }
                }
                Step::Pass(wait) => tick += wait,
                _ => {}
            }
            let counts = deliveries.counts();
            prop_assert_eq!(counts.leased, leased.len());
            let here = counts.ready + counts.leased + counts.delayed + counts.waiting + counts.dead;
            prop_assert_eq!(here as u64 + settled, published);
            let mut out: BTreeMap<u64, u32> = BTreeMap::new();
            for message in deliveries.messages().values().filter(|message| message.state != State::Waiting) {
                if let Some(key) = message.index.key {
                    *out.entry(key).or_default() += 1;
                }
            }
            prop_assert!(out.values().all(|count| *count == 1), "{out:?}");
        }
        // Whatever has happened, everything can be brought to its end.
        for round in 0..published + 1 {
            let now = at(tick + 1_000 * (round + 1));
            for position in deliveries.fire(now) {
                deliveries.again(position, Attempts::default(), now.tick_ms, now);
            }
            for (position, _) in deliveries.take(usize::MAX, 1, UNTIMED, now).messages {
                deliveries.settle(position);
                settled += 1;
            }
            for position in leased.drain(..) {
                settled += u64::from(deliveries.settle(position));
            }
        }
        prop_assert_eq!(settled + deliveries.dead().len() as u64, published);
    }
}
