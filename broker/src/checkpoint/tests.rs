//! Checkpoints read back, and only when they are whole.

use model::position::Position;
use policy::schedule::Attempts;

use super::*;
use crate::record::tests::unhex;
use crate::record::{Destination, Group, Identity, Published, Record};

const NOW: Moment = Moment { tick_ms: 1_000, wall_ms: 1_000_000 };

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Books in which everything is that can be.
fn books(fence: u64) -> Books {
    let mut books = Books::new(1);
    let (work, events, mailer) = (name("work"), name("events"), name("mailer"));
    let group = Group::Subscription { topic: events.clone(), name: mailer.clone() };
    let queue = Group::Queue(work.clone());
    let attempts = Attempts { assigned: 2, failed: 1 };
    let mut at = 0;
    let mut apply = |record: Record| {
        at += 1;
        books.apply(Position(at), 100, &record, NOW);
    };
    apply(Record::Subscribed { topic: events.clone(), name: mailer.clone(), from: Position(0) });
    for number in 0..6u8 {
        for destination in [Destination::Queue(work.clone()), Destination::Topic(events.clone())] {
            apply(Record::Published(Published {
                destination,
                publisher: Subject::Service(name("orders")),
                published_ms: 5,
                expires_ms: (number == 5).then_some(u64::MAX),
                key: Some(u64::from(number % 3)),
                identity: Some(Identity { id: u128::from(number), check: 9 }),
            }));
        }
    }
    let (queued, published) = ([2, 4, 6, 8], [3, 5, 7, 9]);
    for (group, positions) in [(queue, queued), (group, published)] {
        let [settled, delayed, dead, assigned] = positions.map(Position);
        apply(Record::Settled { group: group.clone(), positions: vec![settled] });
        apply(Record::Again { group: group.clone(), position: delayed, attempts, due_ms: 1_000_500 });
        let reason = "why".to_owned();
        apply(Record::Dead { group: group.clone(), position: dead, attempts, reason, died_ms: 7 });
        apply(Record::Assigned { group, consumer: mailer.clone(), fence, messages: vec![(assigned, attempts)] });
    }
    apply(Record::Paused { topic: events, name: mailer, paused: true });
    books
}

#[test]
fn what_the_books_say_reads_back() {
    let written = write(&books(7), NOW);
    let mut again = Books::new(2);
    read(&written, &mut again, NOW).unwrap();
    assert_eq!(write(&again, NOW), written);
    let queue = &again.queues["work"];
    let counts = queue.served.deliveries.counts();
    assert_eq!((counts.ready, counts.delayed, counts.waiting, counts.dead), (2, 1, 1, 1), "{counts:?}");
    let subscription = &again.topics["events"].subscriptions["mailer"];
    assert_eq!((subscription.paused, subscription.cursor, subscription.served.tally.settled), (true, 6, 1));
    assert_eq!(queue.served.deliveries.messages()[&Position(8)].fence, 7);
}

/// Version 1 knew no fences.
#[test]
fn a_checkpoint_of_version_1_is_read() {
    let mut again = Books::new(2);
    read(&unhex(include_str!("checkpoint-1.hex").trim_end()), &mut again, NOW).unwrap();
    assert_eq!(write(&again, NOW), write(&books(0), NOW));
    assert_eq!(read(&[3], &mut Books::new(2), NOW), Err(Error::Field("version")), "nor is a later one guessed at");
}

#[test]
fn a_checkpoint_that_is_cut_is_refused() {
    let written = write(&books(7), NOW);
    for end in 0..written.len() {
        assert!(read(&written[..end], &mut Books::new(1), NOW).is_err(), "cut at {end}");
    }
}

#[test]
fn only_a_whole_checkpoint_counts() {
    let mut parts = Parts::default();
    assert_eq!(parts.take(0, false, b"never finished"), None);
    assert_eq!(parts.take(0, false, b"a"), None);
    assert_eq!(parts.take(2, true, b"c"), None, "one is missing");
    assert_eq!(parts.take(1, true, b"b"), Some(b"ab".to_vec()));
    assert_eq!(parts.take(0, true, b"x"), Some(b"x".to_vec()));
}
