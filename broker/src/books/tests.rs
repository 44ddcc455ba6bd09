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
}

impl Bench {
    fn new() -> Self {
        let mut books = Books::new(7);
        books.configure(part());
        Self { books, log: Vec::new(), next: 1, tick_ms: 0, held: Vec::new() }
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

    fn flush(&mut self) {
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
        self.flush();
        let now = self.now();
        if let Ok((Some(record), _)) = self.books.decide(change, now) {
            let at = self.write(record.clone());
            self.books.apply(at, 0, &record, now);
        }
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
    Publish { to_queue: bool, id: u128, check: u32, key: Option<u64>, expires: bool },
    Take { queue: bool, max: usize, hold: Option<u64> },
    Settle(usize),
    End(usize, Cause),
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
    prop_oneof![
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
            let given = bench.books.take(&group, &name("mailer"), max, hold.map(Duration::from_millis), now);
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
