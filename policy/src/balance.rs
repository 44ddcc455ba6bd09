//! Which endpoint gets an attempt: power of two choices (Mitzenmacher 2001) by peak EWMA, as Finagle, tower
//! (`tower/src/load/peak_ewma.rs`) and Linkerd do it.
//!
//! Two endpoints are drawn, the one with the lower cost is taken; cost = (estimated round trip + penalty) × (attempts in
//! progress + 1). What this leaves to whom: which endpoints there are, to the snapshot; whether an endpoint should be asked, to
//! [`crate::breaker`].
//!
//! An endpoint whose breaker is open is ejected: it is not picked. Of a set no more than a share is (Envoy
//! `max_ejection_percent`): where more breakers are open, all of them are asked as if they were closed (Envoy "panic"), since
//! what so many do alike is hardly the fault of each, and the few others would have to carry it all. Their penalties make them
//! dear, so that the others still come first.

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
    /// Its breaker is open, or half-open with the probe under way; this would be its cost.
    Open(f64),
}

/// The endpoint that gets an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    /// Which one.
    pub index: usize,
    /// Its breaker is open, and it is picked all the same: more are open than may be ejected.
    pub in_spite: bool,
}

/// Why no endpoint is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// There is none.
    #[error("no instance is alive")]
    None,
    /// Every breaker is open, and all may be ejected.
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
        Standing::Open { .. } | Standing::HalfOpen => Candidate::Open(load.cost(now)),
    }
}

/// How many of `count` endpoints may be ejected at a time: that share, rounded down, so that less than 100 % always leaves one.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a few"
)]
pub fn ejected_max(count: usize, share: f64) -> usize {
    // 29 % of 100 is 28.999…
    (share.mul_add(count as f64, 1e-9)) as usize
}

/// Picks one of `count` endpoints, of which the share `ejected` may be left alone for their breakers. Two are drawn; only when
/// one of them is not simply fit, the others are looked through from there on.
///
/// # Errors
/// When none of them can be asked.
pub fn pick(
    count: usize,
    random: u64,
    ejected: f64,
    candidate: impl Fn(usize) -> Candidate,
) -> Result<Picked, NoEndpoint> {
    let bound = u32::try_from(count).unwrap_or(u32::MAX);
    match bound {
        0 => return Err(NoEndpoint::None),
        1 => return only(candidate(0), ejected),
        _ => {}
    }
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the draw")]
    let (high, low) = ((random >> 32) as u32, random as u32);
    let first = draw::index(high, bound);
    // Drawn among the others, so that it is another one.
    let second = (first + 1 + draw::index(low, bound - 1)) % bound;
    match (candidate(first as usize), candidate(second as usize)) {
        (Candidate::Fit(one), Candidate::Fit(other)) => {
            let index = if one <= other { first } else { second } as usize;
            Ok(Picked { index, in_spite: false })
        }
        _ => scan(count, first as usize, ejected, candidate),
    }
}

/// The only endpoint, whatever it costs.
fn only(candidate: Candidate, ejected: f64) -> Result<Picked, NoEndpoint> {
    match candidate {
        Candidate::Fit(_) => Ok(Picked { index: 0, in_spite: false }),
        Candidate::Open(_) if ejected_max(1, ejected) == 0 => Ok(Picked { index: 0, in_spite: true }),
        Candidate::Open(_) => Err(NoEndpoint::AllOpen),
        Candidate::Tried => Err(NoEndpoint::AllTried),
    }
}

/// The cheaper of the first two, from `start` on, that can be asked.
fn scan(
    count: usize,
    start: usize,
    ejected: f64,
    candidate: impl Fn(usize) -> Candidate,
) -> Result<Picked, NoEndpoint> {
    let open = (0..count).filter(|index| matches!(candidate(*index), Candidate::Open(_))).count();
    let all = open > ejected_max(count, ejected);
    let (mut best, mut tried) = (None::<(f64, Picked)>, false);
    for index in (start..count).chain(0..start) {
        let (cost, in_spite) = match candidate(index) {
            Candidate::Fit(cost) => (cost, false),
            Candidate::Open(cost) if all => (cost, true),
            Candidate::Tried => {
                tried = true;
                continue;
            }
            Candidate::Open(_) => continue,
        };
        let picked = Picked { index, in_spite };
        match best {
            None => best = Some((cost, picked)),
            Some((least, found)) => return Ok(if least <= cost { found } else { picked }),
        }
    }
    let none = if tried { NoEndpoint::AllTried } else { NoEndpoint::AllOpen };
    best.map(|(_, picked)| picked).ok_or(none)
}

#[cfg(test)]
mod tests;
