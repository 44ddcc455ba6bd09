//! Which segments go, and what is written for that when room is short.

use std::sync::Arc;

use model::name::Name;
use runtime::metrics::Metrics;
use storage::disk::memory::MemoryDisk;

use super::*;
use crate::books::Books;
use crate::engine::Segment;
use crate::engine::embedded::{Embedded, Kept};
use crate::metrics::EngineMetrics;
use crate::moment::Clock;

/// Segments by their first record and their bytes; the last one has room for as much again.
fn usage(segments: &[(u64, u64)], bytes_left: Option<u64>) -> Usage {
    let mut segments: Vec<_> = segments
        .iter()
        .map(|(first, bytes)| Segment { first: Position(*first), bytes: *bytes, room: *bytes })
        .collect();
    let next = segments.last().map_or(Position(1), |last| Position(last.first.0 + 10));
    if let Some(last) = segments.last_mut() {
        last.room *= 2;
    }
    Usage { bytes: segments.iter().map(|segment| segment.bytes).sum(), segments, next, bytes_left }
}

fn live(messages: &[(u64, u64)]) -> Vec<Live> {
    let live = |(at, bytes): &(u64, u64)| Live { at: Position(*at), position: Position(at * 10), bytes: *bytes };
    messages.iter().map(live).collect()
}

#[test]
fn segments_go_wherever_they_stand_when_at_most_half_of_them_is_of_use() {
    const MIB: u64 = 1 << 20;
    for (segments, messages, released, carried) in [
        (&[(1, 100), (10, 100), (20, 100)][..], &[][..], &[1, 10][..], &[][..]),
        (&[(1, 100), (10, 100), (20, 100)], &[(5, 50)], &[10, 1], &[5]),
        (&[(1, 100), (10, 100), (20, 100)], &[(5, 51), (12, 51)], &[], &[]),
        (&[(1, 100), (10, 100), (20, 100)], &[(5, 10), (12, 100)], &[1], &[5]),
        // What is of use in front of it holds nothing fast.
        (&[(1, 100), (10, 100), (20, 100)], &[(5, 100), (12, 0), (20, 100)], &[10], &[12]),
        (&[(1, 100)], &[], &[], &[]),
        (&[(1, 64 * MIB), (10, 64 * MIB), (20, 100)], &[(5, 11 * MIB), (12, 10 * MIB)], &[10], &[12]),
        // More than is carried at a time is carried in pieces.
        (&[(1, 64 * MIB), (10, 100)], &[(2, 10 * MIB), (3, 10 * MIB), (4, 10 * MIB)], &[], &[2, 3]),
        (&[(1, 64 * MIB), (10, 100)], &[(4, 10 * MIB)], &[1], &[4]),
    ] {
        let plan = choose(&usage(segments, None), &live(messages), CARRY_BYTES_MAX).unwrap_or_default();
        let of = |positions: &[u64]| positions.iter().map(|position| Position(*position)).collect::<Vec<_>>();
        assert_eq!(plan.released, of(released), "{segments:?} {messages:?}");
        let at: Vec<Position> = plan.carried.iter().map(|live| live.at).collect();
        assert_eq!(at, of(carried), "{segments:?} {messages:?}");
        assert!(!plan.begins_segment);
    }
}

#[test]
fn where_room_is_short_the_last_segment_goes_too_when_nothing_in_it_is_of_use() {
    for (messages, released, freed_bytes) in
        [(&[(5, 40)][..], &[1, 20][..], 60 + 200), (&[(5, 60)], &[20], 200), (&[(5, 40), (25, 1)], &[1], 60)]
    {
        let plan = choose(&usage(&[(1, 100), (20, 100)], Some(1_000)), &live(messages), 1_000).unwrap();
        assert_eq!(plan.released, released.iter().map(|first| Position(*first)).collect::<Vec<_>>());
        assert_eq!((plan.freed_bytes, plan.begins_segment), (freed_bytes, released.contains(&20)), "{messages:?}");
    }
}

fn paused(name: &str) -> Record {
    Record::Paused { topic: Name::new("events").unwrap(), name: Name::new(name).unwrap(), paused: true }
}

fn ledger() -> Ledger {
    let disk = Arc::new(MemoryDisk::default());
    let engine = Embedded::open(disk, "/log".as_ref(), Kept::default(), &mut |_, _| {}).unwrap().engine;
    let mut books = Books::new(1);
    books.journal.push(paused("first"));
    Ledger::new(books, Clock::start(), &engine, EngineMetrics::register(&Metrics::default()))
}

/// The checkpoint was made twice, once for its size and once for the log; and it was written where it took more than it gave back.
#[test]
fn a_checkpoint_is_made_once_where_nothing_moves_and_never_where_it_frees_less_than_it_takes() {
    const SHORT: u64 = 1 << 20;
    for (messages, freed, bytes_left, is_planned, is_made) in [
        (&[][..], SHORT, SHORT, true, true),
        (&[(5, 500)], SHORT, SHORT, true, false),
        (&[], SHORT, FRAMES_BYTES, false, false),
        (&[], FRAMES_BYTES / 2, SHORT, false, false),
        (&[(5, SHORT)], SHORT, SHORT, false, false),
    ] {
        let segments = usage(&[(1, freed), (10, 100), (20, 100)], Some(bytes_left));
        let ledger = ledger();
        let mut live = live(messages);
        live.extend([10, 20].map(|at| Live { at: Position(at), position: Position(at), bytes: 60 }));
        let (plan, checkpoint) = choose_short(&segments, &live, bytes_left, &ledger);
        assert_eq!(plan.is_some(), is_planned, "{messages:?} {freed} {bytes_left}");
        assert_eq!(checkpoint.is_some(), is_made, "{messages:?} {freed} {bytes_left}");
        lock(&ledger.books).journal.push(paused("second"));
        if let Some(checkpoint) = checkpoint {
            assert_eq!(lock(&ledger.books).journal, [paused("second")], "what it says is said with it");
            checkpoint.put_back(&ledger);
        }
        assert_eq!(
            lock(&ledger.books).journal,
            [paused("first"), paused("second")],
            "in the order in which it happened"
        );
    }
}
