//! The checkers: what must be true of every run, whatever the faults were.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::history::{Entry, Event};
use crate::levels;
use crate::plan::{Kind, LEVELS_HOST, Plan};
use crate::shop::{PULL_CONSUMER, QUEUE_CONSUMER, TOPIC_CONSUMER};

/// How long after a fault its traces may still be met: breakers that are open, connections that are dialled anew.
const RECOVERY: Duration = Duration::from_secs(6);

/// All violations in a run, as sentences.
#[must_use]
pub fn violations(entries: &[Entry]) -> Vec<String> {
    let mut found = unfinished(entries);
    found.extend(a_position_is_one_message(entries));
    found.extend(order_per_key(entries));
    found.extend(every_refusal_is_explained(entries));
    found.extend(nothing_is_done_twice(entries));
    found.extend(revisions_come_whole(entries));
    found
}

/// What may still come true: work that is not done yet.
#[must_use]
pub fn unfinished(entries: &[Entry]) -> Vec<String> {
    let handled: BTreeSet<(&str, &str)> = entries
        .iter()
        .filter_map(|entry| match &entry.event {
            Event::Handled { consumer, message, .. } => Some((*consumer, message.as_str())),
            _ => None,
        })
        .collect();
    let mut found = nothing_acknowledged_is_lost(entries, &handled);
    found.extend(every_accepted_order_ends(entries, &handled));
    found
}

/// No role ends by itself, but one whose disk has failed.
#[must_use]
pub fn no_role_ends(entries: &[Entry], plan: &Plan) -> Vec<String> {
    let may_end = |host: &str, at: Duration| {
        let fails = |kind: &Kind| matches!(kind, Kind::Disk(on, ..) if *on == host);
        plan.faults.iter().any(|fault| fails(&fault.kind) && (fault.begins..=fault.ends).contains(&at))
    };
    let ended = entries.iter().filter_map(|entry| match &entry.event {
        Event::Ended { host, why } if !may_end(host, entry.at) => {
            Some(format!("the role on {host} ended by itself at {:?}: {why}", entry.at))
        }
        _ => None,
    });
    ended.collect()
}

/// While nothing comes between its two ends a stream lasts as long as its server sends, and a small call is answered, whoever else does
/// not read. What fails within six seconds of a fault is the fault's.
#[must_use]
pub fn what_nothing_disturbs_works(entries: &[Entry], plan: &Plan) -> Vec<String> {
    let disturbed = |from: Duration, to: Duration| {
        let own = plan.faults.iter().filter(|fault| fault.kind.touches("orders-0", LEVELS_HOST));
        own.into_iter().any(|fault| fault.begins <= to && fault.ends + RECOVERY >= from)
    };
    let failed = entries.iter().filter_map(|entry| match &entry.event {
        Event::Streamed { began, broke: Some(why) } if !disturbed(*began, entry.at) => {
            Some(format!("a stream from {began:?} broke at {:?} though nothing was wrong: {why}", entry.at))
        }
        Event::Called { failed: Some(why) } if !disturbed(entry.at.saturating_sub(levels::CALL_BOUND), entry.at) => {
            Some(format!("a call to levels failed at {:?} though nothing was wrong: {why}", entry.at))
        }
        _ => None,
    });
    failed.collect()
}

/// A request that is not idempotent is carried out once, however often it was tried.
fn nothing_is_done_twice(entries: &[Entry]) -> Vec<String> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let again = entries.iter().filter_map(|entry| match &entry.event {
        Event::Executed { request } if !done.insert(request) => {
            Some(format!("{request} was carried out again at {:?}", entry.at))
        }
        _ => None,
    });
    again.collect()
}

/// Where two calls by one route follow the same revision, what was routed between them followed it too.
fn revisions_come_whole(entries: &[Entry]) -> Vec<String> {
    let torn = entries.iter().filter_map(|entry| match &entry.event {
        Event::Probed { revisions: [before, between, after] } if before == after && between != before => {
            Some(format!("at {:?} one route followed revision {before} and the other {between}", entry.at))
        }
        _ => None,
    });
    torn.collect()
}

/// Who is served the message of this id.
fn consumer_of(message: &str) -> &'static str {
    match message.split_once('-') {
        Some(("f", _)) => QUEUE_CONSUMER,
        Some(("p", _)) => PULL_CONSUMER,
        _ => TOPIC_CONSUMER,
    }
}

/// A message that the broker acknowledged was handled by each of its consumers.
fn nothing_acknowledged_is_lost(entries: &[Entry], handled: &BTreeSet<(&str, &str)>) -> Vec<String> {
    let mut lost = Vec::new();
    for entry in entries {
        let Event::Published { message, position, .. } = &entry.event else { continue };
        let consumer = consumer_of(message);
        if !handled.contains(&(consumer, message.as_str())) {
            lost.push(format!("{message} was acknowledged at position {position} and never handled by {consumer}"));
        }
    }
    lost
}

/// A position is given to one message, and a message that is published again has the position it had. So a log that has forgotten
/// something is found out even where all that it forgot had been handled.
fn a_position_is_one_message(entries: &[Entry]) -> Vec<String> {
    let mut messages: BTreeMap<u64, &str> = BTreeMap::new();
    let mut positions: BTreeMap<&str, u64> = BTreeMap::new();
    let mut odd = Vec::new();
    for entry in entries {
        let Event::Published { message, position, .. } = &entry.event else { continue };
        let other = *messages.entry(*position).or_insert(message);
        let before = *positions.entry(message).or_insert(*position);
        if other != message {
            odd.push(format!("position {position} was acknowledged for {other} and, at {:?}, for {message}", entry.at));
        }
        if before != *position {
            odd.push(format!("{message} was acknowledged at position {before} and, at {:?}, at {position}", entry.at));
        }
    }
    odd
}

/// An order that the client saw accepted was shipped, notified and packed.
fn every_accepted_order_ends(entries: &[Entry], handled: &BTreeSet<(&str, &str)>) -> Vec<String> {
    let mut open = Vec::new();
    for entry in entries {
        let Event::Answered { order, status: 201, .. } = &entry.event else { continue };
        for message in [format!("f-{order}"), format!("o-{order}"), format!("p-{order}")] {
            let consumer = consumer_of(&message);
            if !handled.contains(&(consumer, message.as_str())) {
                open.push(format!("order {order} was accepted and {consumer} never handled {message}"));
            }
        }
    }
    open
}

/// Of one key, a message is handed over for the first time only after all that stand before it were handled.
fn order_per_key(entries: &[Entry]) -> Vec<String> {
    let mut positions: BTreeMap<&str, (&str, u64)> = BTreeMap::new();
    for entry in entries {
        if let Event::Published { message, key, position } = &entry.event
            && !key.is_empty()
        {
            positions.insert(message, (key, *position));
        }
    }
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut odd = Vec::new();
    for entry in entries {
        match &entry.event {
            Event::Delivered { consumer: TOPIC_CONSUMER, message, key, .. } if seen.insert(message) => {
                let Some((_, position)) = positions.get(message.as_str()) else { continue };
                let before =
                    positions.iter().find(|(other, (k, p))| k == key && p < position && !done.contains(**other));
                if let Some((other, _)) = before {
                    odd.push(format!(
                        "key {key}: {message} was handed over at {:?} before {other} was handled",
                        entry.at
                    ));
                }
            }
            Event::Handled { consumer: TOPIC_CONSUMER, message, .. } => {
                done.insert(message);
            }
            _ => {}
        }
    }
    odd
}

/// What Meshwork answers in an application's stead says who refused and why.
fn every_refusal_is_explained(entries: &[Entry]) -> Vec<String> {
    entries
        .iter()
        .filter_map(|entry| match &entry.event {
            Event::Answered { order, status, application: false, explained: false } => {
                Some(format!("order {order} was refused with {status} and no reason at {:?}", entry.at))
            }
            Event::Refused { what, status, explained: false } => {
                Some(format!("{what} was refused to an application with {status} and no reason at {:?}", entry.at))
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(events: Vec<Event>) -> Vec<Entry> {
        events.into_iter().map(|event| Entry { at: Duration::ZERO, event }).collect()
    }

    fn published(message: &str, position: u64) -> Event {
        Event::Published { message: message.to_owned(), key: "k".to_owned(), position }
    }

    fn delivered(message: &str) -> Event {
        Event::Delivered { consumer: TOPIC_CONSUMER, message: message.to_owned(), key: "k".to_owned() }
    }

    fn handled(message: &str) -> Event {
        Event::Handled { consumer: TOPIC_CONSUMER, message: message.to_owned(), key: "k".to_owned() }
    }

    #[test]
    fn a_good_run_has_no_violations() {
        let run = entries(vec![
            published("o-1", 1),
            published("o-2", 2),
            delivered("o-1"),
            delivered("o-1"),
            handled("o-1"),
            delivered("o-2"),
            handled("o-2"),
        ]);
        assert_eq!(violations(&run), Vec::<String>::new());
    }

    #[test]
    fn each_checker_sees_what_it_is_for() {
        for (events, part) in [
            (vec![published("o-1", 1)], "never handled"),
            (
                vec![
                    published("o-1", 1),
                    published("o-2", 2),
                    delivered("o-2"),
                    handled("o-2"),
                    delivered("o-1"),
                    handled("o-1"),
                ],
                "before o-1 was handled",
            ),
            (
                vec![Event::Answered { order: "9".to_owned(), status: 503, application: false, explained: false }],
                "no reason",
            ),
            (vec![Event::Refused { what: "x".to_owned(), status: 503, explained: false }], "no reason"),
            (vec![published("o-1", 1), published("o-2", 1)], "for o-1 and"),
            (vec![published("o-1", 1), published("o-1", 2)], "at position 1 and"),
            (vec![Event::Executed { request: "r".to_owned() }, Event::Executed { request: "r".to_owned() }], "again"),
            (vec![Event::Probed { revisions: ["2", "1", "2"].map(str::to_owned) }], "the other 1"),
            (
                vec![Event::Answered { order: "9".to_owned(), status: 201, application: true, explained: false }],
                "was accepted",
            ),
        ] {
            let found = violations(&entries(events));
            assert!(found.iter().any(|violation| violation.contains(part)), "{part}: {found:?}");
        }
    }
}
