//! Which dead letters an operator means: chosen ones, or all that there are when he asks. A message that dies meanwhile is not among them.
//!
//! They are gone through in steps, and each position is passed once. What becomes of them is left to [`crate::redrive`] and [`crate::purge`].

use model::position::Position;

use crate::books::Books;
use crate::record::Group;
use crate::refusal::Refusal;

/// How many dead letters one request may choose.
pub const CHOSEN_MAX: usize = 10_000;

/// What is left to go through.
#[derive(Debug)]
pub enum Selection {
    /// Everything in a range, its ends included.
    Range(Position, Position),
    /// These, from the last to the first.
    Chosen(Vec<Position>),
}

/// The dead letters of a group at some positions, or all of them, and how many these are.
///
/// # Errors
/// When too many are chosen, or one that is no dead letter.
pub fn choose(books: &Books, group: &Group, positions: Option<Vec<Position>>) -> Result<(Selection, u64), Refusal> {
    let absent = || Refusal::Absent(format!("there is no {group}"));
    let dead = books.served(group).ok_or_else(absent)?.deliveries.dead();
    let Some(mut chosen) = positions else {
        let (first, last) = (dead.keys().next(), dead.keys().next_back());
        let none = Selection::Chosen(Vec::new());
        let range = first.zip(last).map_or(none, |(first, last)| Selection::Range(*first, *last));
        return Ok((range, dead.len() as u64));
    };
    if chosen.len() > CHOSEN_MAX {
        return Err(Refusal::Invalid(format!("at most {CHOSEN_MAX} dead letters are chosen at a time")));
    }
    if let Some(odd) = chosen.iter().find(|position| !dead.contains_key(position)) {
        return Err(Refusal::Absent(format!("{group} has no dead letter at position {odd}")));
    }
    chosen.sort_unstable_by(|one, other| other.cmp(one));
    chosen.dedup();
    let count = chosen.len() as u64;
    Ok((Selection::Chosen(chosen), count))
}

impl Selection {
    /// The next dead letters, and whether there are none behind them.
    pub fn next(&mut self, books: &Books, group: &Group, max: usize) -> (Vec<Position>, bool) {
        match self {
            Self::Chosen(chosen) => {
                let rest = chosen.len().saturating_sub(max);
                let mut next = chosen.split_off(rest);
                next.reverse();
                (next, rest == 0)
            }
            Self::Range(first, last) => {
                let Some(served) = books.served(group).filter(|_| first <= last) else {
                    return (Vec::new(), true);
                };
                let mut behind = served.deliveries.dead().range(*first..=*last).map(|(position, _)| *position);
                let next: Vec<Position> = behind.by_ref().take(max).collect();
                let beyond = behind.next();
                *first = beyond.unwrap_or(Position(last.0.saturating_add(1)));
                (next, beyond.is_none())
            }
        }
    }
}
