//! Which messages a destination has accepted lately, by (source, id): the same one again is answered with the first one's
//! position, another one under the same identity is refused.
//!
//! The window is a count, not a time, so that it is bounded whatever the rate (NATS' window of two minutes grows with it: nats-server
//! #8485), and the log rebuilds it at a start. Past the window a repeated message is a new one; consumers deduplicate by the pair.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use model::position::Position;

use crate::record::Identity;

/// How many identities a destination remembers.
pub const WINDOW: usize = 1 << 17;

/// The identities accepted lately.
///
/// Every message asks for one and adds one, at a place in memory that nobody can foresee; so the table holds four bytes for each, and
/// what they stand for is in a row beside it, of which a new message touches the two ends.
#[derive(Debug, Default)]
pub struct Window {
    /// Numbers of identities in the row, by their hash. Asked by key alone; nothing iterates over it, so its order shows nowhere.
    numbers: HashTable<u32>,
    row: VecDeque<Known>,
    /// The number of the first one in the row. Numbers wrap.
    first: u32,
    /// Clients choose identities, and may not choose what they collide with.
    hasher: RandomState,
}

/// A message that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    id: u128,
    check: u32,
    /// `None`: it was not written, and waits here for those behind it to be forgotten too.
    place: Option<Place>,
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
        let number = self.numbers.find(self.hash(identity.id), |number| self.known(*number).id == identity.id);
        number.map_or(Verdict::New, |number| self.known(*number).verdict(identity))
    }

    /// As [`Window::judge`], and remembers the message if it is new: one search for both, since every message pays for it.
    pub fn claim(&mut self, identity: Identity, place: Place) -> Verdict {
        match self.entry(identity, place) {
            None => Verdict::New,
            Some(index) => self.row[index].verdict(identity),
        }
    }

    /// Remembers a message, wherever it was before; the oldest is forgotten where there is no room.
    pub fn remember(&mut self, identity: Identity, place: Place) {
        if let Some(index) = self.entry(identity, place) {
            self.row[index] = Known { id: identity.id, check: identity.check, place: Some(place) };
        }
    }

    /// Forgets a message whose batch was not written.
    pub fn revoke(&mut self, identity: Identity) {
        let Self { numbers, row, first, hasher } = self;
        let index = |number: u32| number.wrapping_sub(*first) as usize;
        let found = numbers.find_entry(hasher.hash_one(identity.id), |number| row[index(*number)].id == identity.id);
        let Ok(found) = found else { return };
        let (number, _) = found.remove();
        row[index(number)].place = None;
        while row.back().is_some_and(|known| known.place.is_none()) {
            row.pop_back();
        }
    }

    /// How many identities it has at most: those that were not written too.
    #[must_use]
    pub fn len(&self) -> usize {
        self.row.len()
    }

    /// What is in the log, oldest first.
    pub fn stored(&self) -> impl Iterator<Item = (Identity, Position)> + '_ {
        self.row.iter().filter_map(|known| match known.place {
            Some(Place::Stored(position)) => Some((Identity { id: known.id, check: known.check }, position)),
            Some(Place::Pending(_)) | None => None,
        })
    }

    fn hash(&self, id: u128) -> u64 {
        self.hasher.hash_one(id)
    }

    fn known(&self, number: u32) -> &Known {
        &self.row[number.wrapping_sub(self.first) as usize]
    }

    /// Where in the row an identity is; `None`: it was new and is the last one now.
    fn entry(&mut self, identity: Identity, place: Place) -> Option<usize> {
        let Self { numbers, row, first, hasher } = self;
        let index = |number: u32| number.wrapping_sub(*first) as usize;
        let hash_again = |number: &u32| hasher.hash_one(row[index(*number)].id);
        let is_it = |number: &u32| row[index(*number)].id == identity.id;
        match numbers.entry(hasher.hash_one(identity.id), is_it, hash_again) {
            Entry::Occupied(number) => return Some(index(*number.get())),
            Entry::Vacant(room) => {
                #[expect(clippy::cast_possible_truncation, reason = "the row has at most WINDOW + 1 of them")]
                room.insert(first.wrapping_add(row.len() as u32));
            }
        }
        row.push_back(Known { id: identity.id, check: identity.check, place: Some(place) });
        if row.len() > WINDOW {
            self.forget_first();
        }
        None
    }

    fn forget_first(&mut self) {
        let Some(oldest) = self.row.pop_front() else { return };
        let hash = self.hash(oldest.id);
        // One that was revoked is not in the table, though its identity may be, under a later number.
        if let Ok(number) = self.numbers.find_entry(hash, |number| *number == self.first) {
            number.remove();
        }
        self.first = self.first.wrapping_add(1);
    }
}

impl Known {
    fn verdict(&self, identity: Identity) -> Verdict {
        match self.place {
            Some(place) if self.check == identity.check => Verdict::Same(place),
            _ => Verdict::Other,
        }
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
        assert_eq!(window.row.len(), 0);
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
        assert_eq!((window.numbers.len(), window.stored().count()), (WINDOW, WINDOW));
    }

    #[test]
    fn a_batch_that_was_not_written_leaves_nothing_behind_whatever_the_order() {
        let identity = |number: u128| Identity { id: number, check: 0 };
        for order in [[1, 2, 3], [3, 2, 1], [2, 1, 3], [2, 3, 1]] {
            let mut window = Window { first: u32::MAX - 1, ..Window::default() };
            window.remember(identity(0), Place::Stored(Position(9)));
            for number in 1..=3 {
                assert_eq!(window.claim(identity(number), Place::Pending(number as usize)), Verdict::New);
            }
            for (done, number) in order.into_iter().enumerate() {
                window.revoke(identity(number));
                assert_eq!(window.judge(identity(number)), Verdict::New);
                for kept in &order[done + 1..] {
                    assert_eq!(window.judge(identity(*kept)), Verdict::Same(Place::Pending(*kept as usize)));
                }
            }
            assert_eq!((window.numbers.len(), window.row.len()), (1, 1));
            assert_eq!(window.judge(identity(0)), Verdict::Same(Place::Stored(Position(9))));
        }
    }

    #[test]
    fn an_identity_that_comes_again_after_it_was_revoked_outlives_its_first_place() {
        let mut window = Window::default();
        let identity = |number: u128| Identity { id: number, check: 0 };
        window.claim(identity(1), Place::Pending(0));
        window.claim(identity(2), Place::Pending(1));
        window.revoke(identity(1));
        window.remember(identity(2), Place::Stored(Position(1)));
        window.remember(identity(1), Place::Stored(Position(2)));
        for number in 3..WINDOW as u128 + 1 {
            window.remember(identity(number), Place::Stored(Position(number as u64)));
        }
        // The first place of identity 1 has been pushed out, and identity 2 after it; its second one has not.
        window.remember(identity(WINDOW as u128 + 1), Place::Stored(Position(0)));
        assert_eq!(window.judge(identity(2)), Verdict::New);
        assert_eq!(window.judge(identity(1)), Verdict::Same(Place::Stored(Position(2))));
    }
}
