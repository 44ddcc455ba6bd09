//! A breaker's state as one 64-bit word, so that it changes in one atomic exchange.

use crate::classify::Origin;
use crate::time::Tick;

/// Openings in a row that are counted; the open time has long reached its bound by then.
const OPENINGS_MAX: u8 = 31;
/// Milliseconds since the origin that fit: 34 years.
const MILLIS_MAX: u64 = (1 << 40) - 1;
const NANOS_OF_MILLI: u64 = 1_000_000;

/// A time in whole milliseconds since the origin of ticks, never before the tick it was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Millis(u64);

impl Millis {
    /// Long past.
    pub(super) const ZERO: Self = Self(0);

    pub(super) fn of(tick: Tick) -> Self {
        Self(tick.as_nanos().div_ceil(NANOS_OF_MILLI).min(MILLIS_MAX))
    }

    pub(super) const fn tick(self) -> Tick {
        Tick::from_nanos(self.0 * NANOS_OF_MILLI)
    }
}

/// Which of the three states, with what each of them needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Closed {
        /// Faults in a row.
        failures: u32,
    },
    Open {
        /// When it may be probed.
        until: Millis,
    },
    HalfOpen {
        /// When another probe may be made, whatever has become of the last one.
        until: Millis,
    },
}

/// The state. From the lowest bit: phase 2, origin 1, openings 5, epoch 16, failures or milliseconds 40.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) phase: Phase,
    /// What opened it last.
    pub(super) by: Origin,
    /// Openings since it was last closed.
    pub(super) openings: u8,
    /// Grows with each change of phase; an attempt of another epoch is late. It wraps after 65,536 changes.
    pub(super) epoch: u16,
}

impl Word {
    /// The same in another phase and in the next epoch.
    pub(super) const fn next(self, phase: Phase) -> Self {
        Self { phase, epoch: self.epoch.wrapping_add(1), ..self }
    }

    pub(super) fn pack(self) -> u64 {
        let (phase, payload) = match self.phase {
            Phase::Closed { failures } => (0, u64::from(failures)),
            Phase::Open { until } => (1, until.0),
            Phase::HalfOpen { until } => (2, until.0),
        };
        let by = u64::from(self.by == Origin::Upstream) << 2;
        let openings = u64::from(self.openings.min(OPENINGS_MAX)) << 3;
        phase | by | openings | u64::from(self.epoch) << 8 | payload << 24
    }

    #[expect(clippy::cast_possible_truncation, reason = "each field is masked to its width")]
    pub(super) const fn unpack(word: u64) -> Self {
        let payload = word >> 24;
        Self {
            phase: match word & 0b11 {
                0 => Phase::Closed { failures: payload as u32 },
                1 => Phase::Open { until: Millis(payload) },
                _ => Phase::HalfOpen { until: Millis(payload) },
            },
            by: if word & 0b100 == 0 { Origin::Local } else { Origin::Upstream },
            openings: (word >> 3) as u8 & OPENINGS_MAX,
            epoch: (word >> 8) as u16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_word_survives_its_packing(phase in 0..3, upstream: bool, openings in 0u8..=31, epoch: u16, failures: u32, millis in 0..=MILLIS_MAX) {
            let until = Millis(millis);
            let phase = [Phase::Closed { failures }, Phase::Open { until }, Phase::HalfOpen { until }][phase as usize];
            let by = if upstream { Origin::Upstream } else { Origin::Local };
            let word = Word { phase, by, openings, epoch };
            prop_assert_eq!(Word::unpack(word.pack()), word);
        }

        #[test]
        fn a_time_is_never_cut(nanos in 0..MILLIS_MAX * NANOS_OF_MILLI) {
            let tick = Tick::from_nanos(nanos);
            let kept = Millis::of(tick).tick();
            prop_assert!(kept >= tick && kept.since(tick).as_nanos() < u128::from(NANOS_OF_MILLI));
        }
    }
}
