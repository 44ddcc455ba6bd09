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

/// The checkpoint was made twice, once for its size and once for the log.
#[test]
fn a_checkpoint_is_made_once_where_nothing_moves() {
    let segments = usage(&[(1, 100), (10, 100), (20, 100)]);
    let short = FRAMES_BYTES + 1_000;
    for (messages, bytes_left, is_cut, is_made) in [
        (&[][..], short, true, true),
        (&[(5, 50)], short, true, false),
        (&[], FRAMES_BYTES, false, false),
        (&[(5, 150)], short, false, false),
        (&[(5, 50)], FRAMES_BYTES + 60, false, false),
    ] {
        let ledger = ledger();
        let chosen = choose_short(&segments, &live(messages), bytes_left, &ledger);
        assert_eq!(chosen.is_some(), is_cut, "{messages:?} {bytes_left}");
        let checkpoint = chosen.and_then(|(_, checkpoint)| checkpoint);
        assert_eq!(checkpoint.is_some(), is_made, "{messages:?} {bytes_left}");
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
