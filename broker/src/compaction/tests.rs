//! Which segments go.

use super::*;
use crate::engine::Segment;

fn usage(segments: &[(u64, u64)]) -> Usage {
    let segments = segments.iter().map(|(first, bytes)| Segment { first: Position(*first), bytes: *bytes }).collect();
    Usage { segments, ..Usage::default() }
}

fn live(messages: &[(u64, u32)]) -> BTreeMap<Position, (Position, u32)> {
    messages.iter().map(|(at, bytes)| (Position(*at), (Position(at * 10), *bytes))).collect()
}

#[test]
fn the_oldest_segments_go_when_at_most_half_of_them_is_of_use() {
    const MIB: u32 = 1 << 20;
    for (segments, messages, before) in [
        (&[(1, 100), (10, 100), (20, 100)][..], &[][..], Some(20)),
        (&[(1, 100), (10, 100), (20, 100)], &[(5, 50)], Some(20)),
        (&[(1, 100), (10, 100), (20, 100)], &[(5, 51), (12, 51)], None),
        (&[(1, 100), (10, 100), (20, 100)], &[(5, 10), (12, 100)], Some(10)),
        (&[(1, 100), (10, 100), (20, 100)], &[(5, 100), (12, 0), (20, 100)], Some(20)),
        (&[(1, 100)], &[], None),
        (&[(1, 64 << 20), (10, 64 << 20), (20, 100)], &[(5, 10 * MIB), (12, 10 * MIB)], Some(10)),
    ] {
        let cut = choose(&usage(segments), &live(messages), CARRY_BYTES_MAX);
        assert_eq!(cut.as_ref().map(|cut| cut.before.0), before, "{segments:?} {messages:?}");
        for at in cut.iter().flat_map(|cut| cut.carried.keys()) {
            assert!(Some(at.0) < before);
        }
    }
}
