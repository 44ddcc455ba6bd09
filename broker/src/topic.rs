//! A topic: events that every subscription gets, and the subscriptions.
//!
//! In memory an event is a line of an index; its payload stays in the log. A subscription walks along the index with a cursor and
//! holds what it has passed and not settled, at most [`WINDOW`] events, so that one stuck key neither grows without bound nor hides.

use std::collections::{BTreeMap, VecDeque};

use model::config;
use model::identity::Subject;
use model::name::Name;
use model::position::Position;
use policy::schedule::Attempts;

use crate::dedup::Window as Dedup;
use crate::deliveries::Index;
use crate::queue::Served;
use crate::wake::ToNotify;

/// How many events of a subscription may be unsettled behind its cursor. At that it is blocked, and the status says so.
pub const WINDOW: usize = 1_024;

/// How many events a topic's index holds, about half a GiB. At that, events that every subscription has settled go before their
/// `keep` is over; where there are none, publishing is refused.
pub const EVENTS_MAX: usize = 8_000_000;

/// A topic.
#[derive(Debug, Default)]
pub struct Topic {
    /// Its settings; `None` for one that is no longer declared, whose events stay for as long as the broker keeps any.
    pub config: Option<config::Topic>,
    /// Its subscriptions.
    pub subscriptions: BTreeMap<Name, Subscription>,
    /// What it has accepted lately.
    pub window: Dedup,
    /// How many events it has accepted, by publisher.
    pub published: BTreeMap<Subject, u64>,
    /// How many were answered as duplicates.
    pub duplicates: u64,
    events: VecDeque<(Position, Index)>,
    /// Behind the newest event that there ever was: where 'latest' is when all of them have expired, too.
    end: Position,
    /// The number of the first event in `events`; events are numbered as they come.
    first: u64,
}

/// A subscription to a topic.
#[derive(Debug, Default)]
pub struct Subscription {
    /// Its delivery.
    pub served: Served,
    /// The number of the next event that it has not looked at.
    pub cursor: u64,
    /// Whether it stands still.
    pub paused: bool,
    /// Events that the topic has dropped before they were settled here.
    pub missed: u64,
}

/// Where a subscription is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// To the first event at or behind a position.
    Position(Position),
    /// To the first event that was published at or after a wall time in milliseconds.
    Time(u64),
    /// To the oldest event there is.
    Earliest,
    /// Behind the newest.
    Latest,
}

impl Topic {
    /// Takes an event in; positions only grow.
    pub fn push(&mut self, position: Position, index: Index) {
        self.events.push_back((position, index));
        self.end = self.end.max(Position(position.0 + 1));
        if self.events.len() > EVENTS_MAX && !self.holds_unsettled() {
            self.events.pop_front();
            self.first += 1;
        }
    }

    /// Whether the index is full of events that somebody has not settled.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.events.len() >= EVENTS_MAX && self.holds_unsettled()
    }

    /// Whether a subscription has not settled the oldest event.
    fn holds_unsettled(&self) -> bool {
        let oldest = self.events.front().map_or(Position(0), |(position, _)| *position);
        self.subscriptions.values().any(|subscription| self.position(subscription) <= oldest)
    }

    /// Notes that an event stands elsewhere in the log now; a subscription's dead letter may outlive the event here.
    pub fn relocate(&mut self, position: Position, at: Position) {
        if let Some((_, index)) = self.find(position).and_then(|number| self.events.get_mut(number)) {
            index.at = at;
        }
        for subscription in self.subscriptions.values_mut() {
            subscription.served.deliveries.relocate(position, at);
        }
    }

    /// Makes a subscription that begins at a position. One that is there stays as it is.
    pub fn subscribe(&mut self, name: &Name, from: Position) {
        let cursor = self.number_of(from);
        let entry = self.subscriptions.entry(name.clone());
        entry.or_insert_with(|| Subscription { cursor, ..Subscription::default() });
    }

    /// Moves a subscription; what it had not settled is forgotten, its dead letters stay.
    pub fn seek(&mut self, name: &Name, to: Position) {
        let cursor = self.number_of(to);
        if let Some(subscription) = self.subscriptions.get_mut(name) {
            subscription.served.deliveries.clear();
            subscription.cursor = cursor;
        }
        self.admit(name);
    }

    /// Lets a subscription look at events as far as its window allows.
    pub fn admit(&mut self, name: &Name) {
        self.advance(name, |subscription, _| subscription.served.deliveries.messages().len() < WINDOW);
    }

    /// Lets every subscription look at new events, and notes for whom there may be something.
    pub fn admit_all(&mut self, to_notify: &mut ToNotify) {
        let (events, first) = (&self.events, self.first);
        for subscription in self.subscriptions.values_mut() {
            subscription
                .advance(events, first, |subscription, _| subscription.served.deliveries.messages().len() < WINDOW);
            to_notify.note(&subscription.served.wake);
        }
    }

    /// Lets a subscription look at events up to a position, as it had when it did something with the event there.
    pub fn admit_through(&mut self, name: &Name, position: Position) {
        self.advance(name, |_, next| next <= position);
    }

    fn advance(&mut self, name: &Name, more: impl Fn(&Subscription, Position) -> bool) {
        let (events, first) = (&self.events, self.first);
        if let Some(subscription) = self.subscriptions.get_mut(name) {
            subscription.advance(events, first, more);
        }
    }

    /// Where `target` is.
    #[must_use]
    pub fn resolve(&self, target: Target) -> Position {
        match target {
            Target::Position(position) => position,
            Target::Earliest => self.events.front().map_or_else(|| self.end(), |(position, _)| *position),
            Target::Latest => self.end(),
            Target::Time(wall_ms) => {
                // Wall time may have been set back between two events; the first that is late enough is looked for from the oldest on.
                let found = self.events.iter().find(|(_, index)| index.published_ms >= wall_ms);
                found.map_or_else(|| self.end(), |(position, _)| *position)
            }
        }
    }

    /// The position behind the newest event there ever was.
    #[must_use]
    pub const fn end(&self) -> Position {
        self.end
    }

    /// Notes that there were events before a position, as a checkpoint knows from where a subscription stands.
    pub fn end_at_least(&mut self, position: Position) {
        self.end = self.end.max(position);
    }

    /// Drops events that were published before a wall time, at most `max` of them; subscriptions that had not settled them miss them.
    pub fn expire(&mut self, before_ms: u64, max: usize) {
        for _ in 0..max {
            let Some((position, _)) = self.events.front().filter(|(_, index)| index.published_ms < before_ms) else {
                break;
            };
            let position = *position;
            for subscription in self.subscriptions.values_mut() {
                let passed = subscription.cursor > self.first;
                let is_dead = subscription.served.deliveries.dead().contains_key(&position);
                if !passed {
                    subscription.cursor = self.first + 1;
                    subscription.missed += 1;
                } else if !is_dead && subscription.served.deliveries.settle(position) {
                    subscription.missed += 1;
                }
            }
            self.events.pop_front();
            self.first += 1;
        }
    }

    /// Events from a position on.
    pub fn from(&self, position: Position) -> impl Iterator<Item = &(Position, Index)> {
        let number = usize::try_from(self.number_of(position) - self.first).unwrap_or(usize::MAX);
        self.events.range(number.min(self.events.len())..)
    }

    /// The event at a position.
    #[must_use]
    pub fn get(&self, position: Position) -> Option<&Index> {
        self.find(position).and_then(|number| self.events.get(number)).map(|(_, index)| index)
    }

    /// All events.
    #[must_use]
    pub const fn events(&self) -> &VecDeque<(Position, Index)> {
        &self.events
    }

    /// Events that a subscription has not settled.
    #[must_use]
    pub fn lag(&self, subscription: &Subscription) -> u64 {
        let ahead = (self.first + self.events.len() as u64).saturating_sub(subscription.cursor);
        subscription.served.deliveries.messages().len() as u64 + ahead
    }

    /// The position of a subscription: everything before it is settled.
    #[must_use]
    pub fn position(&self, subscription: &Subscription) -> Position {
        match subscription.served.deliveries.messages().keys().next() {
            Some(unsettled) => *unsettled,
            None => self.position_of(subscription.cursor),
        }
    }

    /// The position of the event with a number.
    #[must_use]
    pub fn position_of(&self, number: u64) -> Position {
        let index = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.events.get(index).map_or_else(|| self.end(), |(position, _)| *position)
    }

    /// The number of the first event at or behind a position.
    fn number_of(&self, position: Position) -> u64 {
        self.first + self.events.partition_point(|(other, _)| *other < position) as u64
    }

    fn find(&self, position: Position) -> Option<usize> {
        self.events.binary_search_by_key(&position, |(position, _)| *position).ok()
    }
}

impl Subscription {
    fn advance(&mut self, events: &VecDeque<(Position, Index)>, first: u64, more: impl Fn(&Self, Position) -> bool) {
        while let Some((position, index)) =
            events.get(usize::try_from(self.cursor.saturating_sub(first)).unwrap_or(usize::MAX))
        {
            if !more(self, *position) {
                break;
            }
            // A seek back meets events that are dead letters here already; they stay that.
            if !self.served.deliveries.dead().contains_key(position) {
                self.served.deliveries.insert(*position, *index, Attempts::default());
            }
            self.cursor += 1;
        }
    }

    /// Whether it looks at no more events, since too many are unsettled.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.served.deliveries.messages().len() >= WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliveries::{Lease, UNTIMED};
    use crate::moment::Moment;

    const NOW: Moment = Moment { tick_ms: 0, wall_ms: 0 };

    fn index(position: u64) -> Index {
        Index { at: Position(position), bytes: 1, key: None, published_ms: position * 10, expires_ms: None }
    }

    fn topic(events: impl Iterator<Item = u64>) -> (Topic, Name) {
        let (mut topic, name) = (Topic::default(), Name::new("mailer").unwrap());
        topic.subscribe(&name, Position(0));
        for position in events {
            topic.push(Position(position), index(position));
        }
        (topic, name)
    }

    #[test]
    fn the_window_bounds_what_is_unsettled_and_the_position_follows_the_oldest() {
        let (mut topic, name) = topic((0..3_000).map(|number| number * 2));
        topic.admit(&name);
        let subscription = &topic.subscriptions[&name];
        assert!(subscription.is_blocked());
        assert_eq!((topic.lag(subscription), topic.position(subscription)), (3_000, Position(0)));
        let served = &mut topic.subscriptions.get_mut(&name).unwrap().served.deliveries;
        assert_eq!(served.take(2, 7, UNTIMED, NOW).messages.len(), 2);
        assert!(served.held(Lease { position: Position(2), fence: 7 }).is_some());
        served.settle(Position(0));
        topic.admit(&name);
        let subscription = &topic.subscriptions[&name];
        assert_eq!((topic.lag(subscription), topic.position(subscription)), (2_999, Position(2)));
        assert_eq!(subscription.cursor, 1_025);
    }

    #[test]
    fn a_subscription_goes_where_it_is_sent() {
        let (mut topic, name) = topic((1..=5).map(|number| number * 10));
        for (target, position) in [
            (Target::Earliest, 10),
            (Target::Latest, 51),
            (Target::Position(Position(21)), 30),
            (Target::Time(400), 40),
            (Target::Time(401), 50),
            (Target::Time(1_000), 51),
        ] {
            topic.seek(&name, topic.resolve(target));
            assert_eq!(topic.position(&topic.subscriptions[&name]).0, position, "{target:?}");
        }
    }

    #[test]
    fn what_is_dropped_before_it_was_settled_is_counted() {
        let (mut topic, name) = topic(1..=4);
        topic.admit_through(&name, Position(2));
        topic.subscriptions.get_mut(&name).unwrap().served.deliveries.settle(Position(1));
        topic.expire(35, 100);
        let subscription = &topic.subscriptions[&name];
        assert_eq!((subscription.missed, topic.events().len(), subscription.cursor), (2, 1, 3));
        assert_eq!(topic.position(subscription), Position(4));
    }
}
