//! Whatever happens, the log says the same again: random steps on the books, with what the committer would write, then a replay.

use model::config::{Consumption, Durability, Queue as QueueConfig, Topic as TopicConfig};
use model::identity::Subject;
use proptest::prelude::*;

use super::*;
use crate::checkpoint;
use crate::record::Identity;
use crate::topic::Target;
use crate::verdict::{Change, Slot};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn part() -> Arc<BrokerPart> {
    let delivery = Delivery { attempts: 3, backoff_initial: Duration::from_millis(10), ..Delivery::default() };
    let queue = QueueConfig {
        delivery: delivery.clone(),
        dead_letter_keep: Duration::from_secs(3_600),
        messages_max: 30,
        durability: Durability::Sync,
    };
    let topic = TopicConfig { key: None, keep: Duration::from_secs(3_600), delivery, durability: Durability::Sync };
    let consumption = Consumption { source: Source::Topic(name("events")), path: None, concurrency: 8 };
    Arc::new(BrokerPart {
        queues: [(name("work"), queue)].into(),
        topics: [(name("events"), topic)].into(),
        publishers: BTreeMap::new(),
        consumers: [(name("mailer"), vec![consumption])].into(),
        message_bytes_max: 1 << 20,
    })
}

/// The books with the log that a committer would have written.
struct Bench {
    books: Books,
    log: Vec<(Position, Record)>,
    next: u64,
    tick_ms: u64,
    held: Vec<(Group, Lease)>,
    /// What was decided and is being written.
    writing: Vec<Record>,
}

impl Bench {
    fn new() -> Self {
        let mut books = Books::new(7);
        books.configure(part());
        Self { books, log: Vec::new(), next: 1, tick_ms: 0, held: Vec::new(), writing: Vec::new() }
    }

    fn now(&self) -> Moment {
        Moment { tick_ms: self.tick_ms, wall_ms: 1_000_000 + self.tick_ms }
    }

    fn write(&mut self, record: Record) -> Position {
        let position = Position(self.next);
        self.next += 1;
        self.log.push((position, record));
        position
    }

    /// Decides about changes as one batch, which is written when [`Bench::finish`] says so.
    fn begin(&mut self, changes: Vec<Change>) {
        self.flush();
        let now = self.now();
        for change in changes {
            self.writing.extend(self.books.decide(change, now).ok().and_then(|(record, _)| record));
        }
    }

    fn finish(&mut self, is_written: bool) {
        let now = self.now();
        for record in std::mem::take(&mut self.writing) {
            if is_written {
                let at = self.write(record.clone());
                self.books.apply(at, 0, &record, now);
            } else {
                self.books.abandon(&record);
            }
        }
    }

    fn flush(&mut self) {
        self.finish(true);
        for record in std::mem::take(&mut self.books.journal) {
            self.write(record);
        }
    }

    fn publish(&mut self, header: Published) {
        self.flush();
        if let Slot::New(..) = self.books.judge(&header, 0) {
            let at = self.write(Record::Published(header.clone()));
            self.books.published(at, at, 100, &header);
        }
    }

    fn change(&mut self, change: Change) {
        self.begin(vec![change]);
        self.finish(true);
    }

    /// Messages whose acknowledgement is being written.
    fn settling(&self, of: &Group) -> Vec<Position> {
        let settled = self.writing.iter().filter_map(|record| match record {
            Record::Settled { group, positions } if group == of => Some(positions.clone()),
            _ => None,
        });
        settled.flatten().collect()
    }

    /// Cuts the log off in front of a checkpoint, as compaction does once nothing before it is needed.
    fn checkpoint(&mut self) {
        self.flush();
        let bytes = checkpoint::write(&self.books, self.now());
        self.log.clear();
        self.write(Record::Checkpoint { part: 0, last: true, bytes });
    }

    fn replayed(&self) -> Books {
        let mut books = Books::new(8);
        for (position, record) in &self.log {
            match record {
                Record::Checkpoint { bytes, .. } => {
                    books = Books::new(8);
                    checkpoint::read(bytes, &mut books, self.now()).unwrap();
                }
                record => books.apply(*position, 100, record, self.now()),
            }
        }
        books.configure(part());
        books
    }
}

/// What must be the same after a restart, as a text that can be compared.
fn summary(books: &Books) -> String {
    let mut text = String::new();
    for group in books.groups() {
        let served = books.served(&group).unwrap();
        let messages: Vec<_> = match group {
            Group::Queue(_) => {
                let messages = served.deliveries.messages().iter();
                messages.map(|(position, message)| (position.0, message.attempts, message.fence)).collect()
            }
            // How far a subscription has looked ahead is nobody's business; its position and its lag are.
            Group::Subscription { .. } => Vec::new(),
        };
        let dead: Vec<_> = served.deliveries.dead().iter().map(|(p, d)| (p.0, d.attempts, &d.reason)).collect();
        text += &format!("{group}: {messages:?} dead {dead:?} tally {:?}\n", served.tally);
    }
    for topic in books.topics.values() {
        let subscriptions = topic.subscriptions.iter();
        let subscriptions: Vec<_> = subscriptions
            .map(|(name, held)| (name.to_string(), topic.position(held), topic.lag(held), held.paused, held.missed))
            .collect();
        text += &format!("{subscriptions:?} window {:?}\n", topic.window.stored().collect::<Vec<_>>());
    }
    text
}

#[derive(Debug, Clone)]
enum Step {
    Publish {
        to_queue: bool,
        id: u128,
        check: u32,
        key: Option<u64>,
        expires: bool,
    },
    Take {
        queue: bool,
        max: usize,
        hold: Option<u64>,
    },
    Settle(usize),
    End(usize, Cause),
    /// Several at once, by leases that stay in hand: acknowledged where there is no cause.
    Begin(Vec<(usize, Option<Cause>)>),
    Finish(bool),
    Redrive(bool),
    Seek(u8),
    Pause(bool),
    Pass(u64),
    Checkpoint,
}

fn step() -> impl Strategy<Value = Step> {
    let cause = prop_oneof![
        Just(Cause::Failed),
        Just(Cause::Reject),
        Just(Cause::Later { after: None }),
        Just(Cause::Nack { delay: Some(Duration::ZERO) }),
    ];
    let ending = (0..6usize, prop::option::of(cause.clone()));
    prop_oneof![
        4 => prop::collection::vec(ending, 1..4).prop_map(Step::Begin),
        3 => prop::bool::weighted(0.7).prop_map(Step::Finish),
        6 => (any::<bool>(), 0..40u128, 0..2u32, prop::option::of(0..3u64), prop::bool::weighted(0.1))
            .prop_map(|(to_queue, id, check, key, expires)| Step::Publish { to_queue, id, check, key, expires }),
        5 => (any::<bool>(), 1..4usize, prop::option::of(1..100u64))
            .prop_map(|(queue, max, hold)| Step::Take { queue, max, hold }),
        4 => (0..6usize).prop_map(Step::Settle),
        4 => (0..6usize, cause).prop_map(|(which, cause)| Step::End(which, cause)),
        1 => any::<bool>().prop_map(Step::Redrive),
        1 => (0..60u8).prop_map(Step::Seek),
        1 => any::<bool>().prop_map(Step::Pause),
        3 => (1..80u64).prop_map(Step::Pass),
        1 => Just(Step::Checkpoint),
    ]
}

fn group(queue: bool) -> Group {
    if queue { Group::Queue(name("work")) } else { Group::Subscription { topic: name("events"), name: name("mailer") } }
}

fn run(bench: &mut Bench, step: Step) {
    let now = bench.now();
    match step {
        Step::Publish { to_queue, id, check, key, expires } => {
            let (queue, topic) = (Destination::Queue(name("work")), Destination::Topic(name("events")));
            bench.publish(Published {
                destination: if to_queue { queue } else { topic },
                publisher: Subject::Service(name("orders")),
                published_ms: now.wall_ms,
                expires_ms: expires.then_some(now.wall_ms + 50),
                key,
                identity: (id > 3).then_some(Identity { id, check }),
            });
        }
        Step::Take { queue, max, hold } => {
            let group = group(queue);
            let settling = bench.settling(&group);
            let given = bench.books.take(&group, &name("mailer"), max, hold.map(Duration::from_millis), now);
            let again = given.iter().find(|given| settling.contains(&given.lease.position));
            assert_eq!(again, None, "it is given out while its acknowledgement is written");
            bench.held.extend(given.into_iter().map(|given| (group.clone(), given.lease)));
        }
        Step::Settle(which) if which < bench.held.len() => {
            let (group, lease) = bench.held.swap_remove(which);
            bench.change(Change::Settle { group, leases: vec![lease] });
        }
        Step::End(which, cause) if which < bench.held.len() => {
            let (group, lease) = bench.held.swap_remove(which);
            bench.change(Change::End { group, lease, cause, reason: String::new() });
        }
        Step::Begin(endings) => {
            let endings = endings.into_iter().filter(|(which, _)| *which < bench.held.len());
            let change = |(which, cause): (usize, Option<Cause>)| {
                let (group, lease): (Group, Lease) = bench.held[which].clone();
                match cause {
                    None => Change::Settle { group, leases: vec![lease] },
                    Some(cause) => Change::End { group, lease, cause, reason: String::new() },
                }
            };
            let changes = endings.map(change).collect();
            bench.begin(changes);
        }
        Step::Finish(is_written) => bench.finish(is_written),
        Step::Redrive(queue) => {
            let group = group(queue);
            let positions = bench.books.served(&group).unwrap().deliveries.dead().keys().copied().collect();
            bench.change(Change::Redrive { group, positions });
        }
        Step::Seek(to) => {
            let target = Target::Position(Position(to.into()));
            bench.change(Change::Seek { topic: name("events"), name: name("mailer"), target });
        }
        Step::Pause(paused) => bench.change(Change::Pause { topic: name("events"), name: name("mailer"), paused }),
        Step::Pass(millis) => {
            bench.tick_ms += millis;
            let now = bench.now();
            bench.books.fire(now);
        }
        Step::Checkpoint => bench.checkpoint(),
        Step::Settle(_) | Step::End(..) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_log_says_what_the_books_say(steps in prop::collection::vec(step(), 1..120)) {
        let mut bench = Bench::new();
        for step in steps {
            run(&mut bench, step);
        }
        bench.flush();
        prop_assert_eq!(summary(&bench.replayed()), summary(&bench.books));
    }
}

/// One message, leased until the tick 100.
fn leased() -> (Bench, Group, Lease) {
    let mut bench = Bench::new();
    bench.publish(Published {
        destination: Destination::Queue(name("work")),
        publisher: Subject::Service(name("orders")),
        published_ms: 0,
        expires_ms: None,
        key: None,
        identity: None,
    });
    let group = group(true);
    let now = bench.now();
    let given = bench.books.take(&group, &name("worker"), 1, Some(Duration::from_millis(100)), now);
    (bench, group, given[0].lease)
}

fn pass(bench: &mut Bench, millis: u64) {
    bench.tick_ms += millis;
    let now = bench.now();
    bench.books.fire(now);
}

fn take_one(bench: &mut Bench) -> Option<Lease> {
    let now = bench.now();
    let given = bench.books.take(&group(true), &name("other"), 1, None, now);
    given.first().map(|given| given.lease)
}

fn failed(bench: &Bench) -> Option<u32> {
    let messages = bench.books.served(&group(true)).unwrap().deliveries.messages();
    messages.values().next().map(|message| message.attempts.failed)
}

/// A slow disk: the lease runs out, before or while the acknowledgement is written.
#[test]
fn what_is_acknowledged_is_given_to_nobody_while_that_is_written() {
    for (before, meanwhile) in [(0, 0), (0, 150), (150, 0), (150, 1_000)] {
        for is_written in [true, false] {
            let (mut bench, group, lease) = leased();
            pass(&mut bench, before);
            bench.begin(vec![Change::Settle { group: group.clone(), leases: vec![lease] }]);
            assert!(bench.writing.len() == 1, "it counts: nobody else has got the message");
            pass(&mut bench, meanwhile);
            assert_eq!(take_one(&mut bench), None, "{before} {meanwhile}");
            bench.finish(is_written);
            pass(&mut bench, 1_000);
            pass(&mut bench, 1_000);
            let left = take_one(&mut bench);
            assert_eq!(left.is_some(), !is_written, "{before} {meanwhile}: what was not written is given out again");
        }
    }
}

#[test]
fn an_attempt_ends_once() {
    let nack = |group: &Group, lease, cause| Change::End { group: group.clone(), lease, cause, reason: String::new() };
    let later = Cause::Nack { delay: Some(Duration::from_millis(50)) };
    // Twice at once, and one after the other.
    for at_once in [true, false] {
        let (mut bench, group, lease) = leased();
        match at_once {
            true => bench.begin(vec![nack(&group, lease, later), nack(&group, lease, later)]),
            false => [later, later].into_iter().for_each(|cause| bench.change(nack(&group, lease, cause))),
        }
        bench.finish(true);
        assert_eq!(failed(&bench), Some(1), "at once: {at_once}");
    }
    // After its lease has run out it has ended already, and is not put off again.
    let (mut bench, group, lease) = leased();
    pass(&mut bench, 150);
    bench.change(nack(&group, lease, Cause::Nack { delay: Some(Duration::from_secs(60)) }));
    pass(&mut bench, 1_000);
    assert_eq!(failed(&bench), Some(1));
    assert!(take_one(&mut bench).is_some());
    // That nobody will ever take it may still be said, and is no second failure.
    let (mut bench, group, lease) = leased();
    pass(&mut bench, 150);
    bench.change(nack(&group, lease, Cause::Reject));
    let dead = bench.books.served(&group).unwrap().deliveries.dead();
    assert_eq!(dead.values().next().map(|dead| dead.attempts), Some(Attempts { assigned: 1, failed: 1 }));
}

/// The next holder has it while a late word of the last one is written.
#[test]
fn a_late_word_takes_nothing_from_the_next_holder() {
    let (mut bench, group, lease) = leased();
    let end = |cause| Change::End { group: group.clone(), lease, cause, reason: String::new() };
    bench.begin(vec![end(Cause::Nack { delay: Some(Duration::from_secs(60)) })]);
    pass(&mut bench, 1_000);
    let next = take_one(&mut bench);
    bench.finish(true);
    assert_eq!(next, None);
    assert_eq!(failed(&bench), Some(1), "its nack counts, and its lease's end does not count again");
    pass(&mut bench, 60_000);
    assert!(take_one(&mut bench).is_some());
}
