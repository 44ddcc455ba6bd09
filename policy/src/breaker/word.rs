//! A breaker's state as one 64-bit word, so that it changes in one atomic exchange.

use crate::classify::Origin;

/// Openings in a row that are counted; the open time has long reached its bound by then.
const OPENINGS_MAX: u8 = 31;
const EPOCH_MASK: u32 = 0x00FF_FFFF;

/// Which of the three states. A half-open breaker's probe is always under way: without one it is open, and due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Closed,
    Open,
    HalfOpen,
}

/// The state. From the lowest bit: phase 2, origin 1, openings 5, epoch 24, failures 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) phase: Phase,
    /// What opened it last.
    pub(super) by: Origin,
    /// Openings since it was last closed.
    pub(super) openings: u8,
    /// Grows with each change of phase; an attempt of another epoch is late. It wraps after 16 million changes.
    pub(super) epoch: u32,
    /// Faults in a row while closed.
    pub(super) failures: u32,
}

impl Word {
    /// The same in another phase and in the next epoch.
    pub(super) const fn next(self, phase: Phase) -> Self {
        Self { phase, epoch: self.epoch.wrapping_add(1) & EPOCH_MASK, ..self }
    }

    pub(super) fn pack(self) -> u64 {
        let phase = match self.phase {
            Phase::Closed => 0,
            Phase::Open => 1,
            Phase::HalfOpen => 2,
        };
        let by = u64::from(self.by == Origin::Upstream) << 2;
        let openings = u64::from(self.openings.min(OPENINGS_MAX)) << 3;
        phase | by | openings | u64::from(self.epoch & EPOCH_MASK) << 8 | u64::from(self.failures) << 32
    }

    #[expect(clippy::cast_possible_truncation, reason = "each field is masked to its width")]
    pub(super) const fn unpack(word: u64) -> Self {
        Self {
            phase: match word & 0b11 {
                0 => Phase::Closed,
                1 => Phase::Open,
                _ => Phase::HalfOpen,
            },
            by: if word & 0b100 == 0 { Origin::Local } else { Origin::Upstream },
            openings: (word >> 3) as u8 & OPENINGS_MAX,
            epoch: (word >> 8) as u32 & EPOCH_MASK,
            failures: (word >> 32) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_word_survives_its_packing(phase in 0..3, upstream: bool, openings in 0u8..=31, epoch in 0u32..=EPOCH_MASK, failures: u32) {
            let phase = [Phase::Closed, Phase::Open, Phase::HalfOpen][phase as usize];
            let by = if upstream { Origin::Upstream } else { Origin::Local };
            let word = Word { phase, by, openings, epoch, failures };
            prop_assert_eq!(Word::unpack(word.pack()), word);
        }
    }
}
