//! Which messages a destination has accepted lately, by (source, id): the same one again is answered with the first one's
//! position, another one under the same identity is refused.
//!
//! The window is a count, not a time, so that it is bounded whatever the rate (NATS' window of two minutes grows with it: nats-server
//! #8485), and the log rebuilds it at a start. Past the window a repeated message is a new one; consumers deduplicate by the pair.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use model::position::Position;

use crate::record::Identity;

/// How many identities a destination remembers.
pub const WINDOW: usize = 1 << 17;

/// The identities accepted lately.
#[derive(Debug, Default)]
pub struct Window {
    // Asked by key alone; nothing iterates over it, so its order shows nowhere.
    known: HashMap<u128, Known>,
    order: VecDeque<u128>,
}

/// A message that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    check: u32,
    place: Place,
}

/// Where a message of the window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the log.
    Stored(Position),
    /// Accepted into the batch that is being written, as its how-manieth record.
    Pending(usize),
}

/// What the window says about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is new.
    New,
    /// It was accepted already.
    Same(Place),
    /// Another message was accepted under its identity.
    Other,
}

impl Window {
    /// Whether a message was accepted already.
    #[must_use]
    pub fn judge(&self, identity: Identity) -> Verdict {
        match self.known.get(&identity.id) {
            None => Verdict::New,
            Some(known) if known.check == identity.check => Verdict::Same(known.place),
            Some(_) => Verdict::Other,
        }
    }

    /// As [`Window::judge`], and remembers the message if it is new: one search for both, since every message pays for it.
    pub fn claim(&mut self, identity: Identity, place: Place) -> Verdict {
        match self.known.entry(identity.id) {
            Entry::Occupied(known) if known.get().check == identity.check => Verdict::Same(known.get().place),
            Entry::Occupied(_) => Verdict::Other,
            Entry::Vacant(room) => {
                room.insert(Known { check: identity.check, place });
                self.push(identity.id);
                Verdict::New
            }
        }
    }

    /// Remembers a message, wherever it was before; the oldest is forgotten where there is no room.
    pub fn remember(&mut self, identity: Identity, place: Place) {
        if self.known.insert(identity.id, Known { check: identity.check, place }).is_none() {
            self.push(identity.id);
        }
    }

    fn push(&mut self, id: u128) {
        self.order.push_back(id);
        if self.order.len() > WINDOW
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Forgets a message whose batch was not written.
    pub fn revoke(&mut self, identity: Identity) {
        if self.known.remove(&identity.id).is_some() {
            // It is among the last ones.
            if let Some(index) = self.order.iter().rposition(|id| *id == identity.id) {
                self.order.remove(index);
            }
        }
    }

    /// What is in the log, oldest first.
    pub fn stored(&self) -> impl Iterator<Item = (Identity, Position)> + '_ {
        self.order.iter().filter_map(|id| match self.known.get(id) {
            Some(Known { check, place: Place::Stored(position) }) => {
                Some((Identity { id: *id, check: *check }, *position))
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_known_and_another_is_not_taken_for_it() {
        let mut window = Window::default();
        let identity = Identity { id: 7, check: 1 };
        assert_eq!(window.judge(identity), Verdict::New);
        assert_eq!(window.claim(identity, Place::Pending(0)), Verdict::New);
        assert_eq!(window.judge(identity), Verdict::Same(Place::Pending(0)));
        assert_eq!(window.claim(identity, Place::Pending(1)), Verdict::Same(Place::Pending(0)));
        assert_eq!(window.claim(Identity { check: 2, ..identity }, Place::Pending(1)), Verdict::Other);
        window.remember(identity, Place::Stored(Position(3)));
        assert_eq!(window.judge(identity), Verdict::Same(Place::Stored(Position(3))));
        assert_eq!(window.judge(Identity { check: 2, ..identity }), Verdict::Other);
        window.revoke(identity);
        assert_eq!(window.judge(identity), Verdict::New);
        assert_eq!(window.order.len(), 0);
    }

    #[test]
    fn the_oldest_go_first() {
        let mut window = Window::default();
        let identity = |number: usize| Identity { id: number as u128, check: 0 };
        for number in 0..=WINDOW {
            window.remember(identity(number), Place::Stored(Position(number as u64)));
        }
        assert_eq!(window.judge(identity(0)), Verdict::New);
        assert_ne!(window.judge(identity(1)), Verdict::New);
        assert_eq!((window.known.len(), window.stored().count()), (WINDOW, WINDOW));
    }
}
