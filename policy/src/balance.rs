//! Which endpoint gets an attempt: power of two choices (Mitzenmacher 2001) by peak EWMA, as Finagle, tower
//! (`tower/src/load/peak_ewma.rs`) and Linkerd do it.
//!
//! Two endpoints are drawn, the one with the lower cost is taken; cost = (estimated round trip + penalty) × (attempts in
//! progress + 1). What this leaves to whom: which endpoints there are, to the snapshot; whether an endpoint may be asked at
//! all, to [`crate::breaker`].

mod load;

pub use load::{DECAY, DEFAULT_ROUND_TRIP, InProgress, Load, PENALTY, PENALTY_DECAY, PENALTY_MAX};

use crate::breaker::{Breaker, Standing};
use crate::draw;
use crate::time::Tick;

/// How an endpoint stands for one attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Candidate {
    /// It may be asked, at this cost.
    Fit(f64),
    /// An earlier attempt of the same request has gone there.
    Tried,
    /// Its breaker is open, or half-open with the probe under way.
    Open,
}

/// Why no endpoint is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// There is none.
    #[error("no instance is alive")]
    None,
    /// Every breaker is open. Choosing one all the same ("panic") is the caller's to decide (envoy#2671: users are surprised).
    #[error("the breaker of every instance is open")]
    AllOpen,
    /// All whose breakers are not open were tried. A caller may begin anew with none excluded.
    #[error("every instance that may be asked was tried")]
    AllTried,
}

/// How an endpoint that was not tried yet stands. One that is due for its probe costs nothing: its penalties would otherwise
/// keep the probe away from it for long (linkerd2-proxy, `proxy/balance`).
#[must_use]
pub fn candidate(load: &Load, breaker: &Breaker, now: Tick) -> Candidate {
    match breaker.standing(now) {
        Standing::Closed => Candidate::Fit(load.cost(now)),
        Standing::Due => Candidate::Fit(0.0),
        Standing::Open { .. } | Standing::HalfOpen => Candidate::Open,
    }
}

/// Picks one of `count` endpoints. Two are drawn; only when one of them cannot be asked, the others are looked through from
/// there on for one that can.
///
/// # Errors
/// When none of them can be asked.
pub fn pick(count: usize, random: u64, candidate: impl Fn(usize) -> Candidate) -> Result<usize, NoEndpoint> {
    let bound = u32::try_from(count).unwrap_or(u32::MAX);
    match bound {
        0 => return Err(NoEndpoint::None),
        1 => return scan(1, 0, candidate),
        _ => {}
    }
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the draw")]
    let (high, low) = ((random >> 32) as u32, random as u32);
    let first = draw::index(high, bound);
    // Drawn among the others, so that it is another one.
    let second = (first + 1 + draw::index(low, bound - 1)) % bound;
    match (candidate(first as usize), candidate(second as usize)) {
        (Candidate::Fit(one), Candidate::Fit(other)) => Ok(if one <= other { first } else { second } as usize),
        _ => scan(count, first as usize, candidate),
    }
}

/// The cheaper of the first two, from `start` on, that can be asked.
fn scan(count: usize, start: usize, candidate: impl Fn(usize) -> Candidate) -> Result<usize, NoEndpoint> {
    let (mut best, mut tried) = (None::<(f64, usize)>, false);
    for index in (start..count).chain(0..start) {
        match (candidate(index), best) {
            (Candidate::Fit(cost), None) => best = Some((cost, index)),
            (Candidate::Fit(cost), Some((least, found))) => return Ok(if least <= cost { found } else { index }),
            (Candidate::Tried, _) => tried = true,
            (Candidate::Open, _) => {}
        }
    }
    let none = if tried { NoEndpoint::AllTried } else { NoEndpoint::AllOpen };
    best.map(|(_, index)| index).ok_or(none)
}

#[cfg(test)]
mod tests;
