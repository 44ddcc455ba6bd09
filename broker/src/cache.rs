//! Records that were written lately, so that what is delivered right after it was published is not read from the disk.

use std::collections::VecDeque;

use bytes::Bytes;
use model::position::Position;

/// How many bytes of records are kept.
pub const BYTES_MAX: usize = 32 << 20;

/// The last records, by position.
#[derive(Debug, Default)]
pub struct Cache {
    records: VecDeque<(Position, Bytes)>,
    bytes: usize,
}

impl Cache {
    /// Keeps a record, which is newer than all before, and lets go of the oldest.
    pub fn insert(&mut self, at: Position, record: Bytes) {
        self.bytes += record.len();
        self.records.push_back((at, record));
        while self.bytes > BYTES_MAX {
            let Some((_, oldest)) = self.records.pop_front() else { break };
            self.bytes -= oldest.len();
        }
    }

    /// The record at a position.
    #[must_use]
    pub fn get(&self, at: Position) -> Option<Bytes> {
        let index = self.records.binary_search_by_key(&at, |(at, _)| *at).ok()?;
        self.records.get(index).map(|(_, record)| record.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let mut cache = Cache::default();
        let record = Bytes::from(vec![1; BYTES_MAX / 4]);
        for position in [1, 3, 5, 7, 9] {
            cache.insert(Position(position), record.clone());
        }
        assert_eq!(cache.get(Position(1)), None);
        assert_eq!(cache.get(Position(4)), None);
        assert_eq!(cache.get(Position(3)), Some(record));
    }
}
