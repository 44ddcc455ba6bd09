//! The checkers: what must be true of every run, whatever the faults were.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Entry, Event};
use crate::shop::{QUEUE_CONSUMER, TOPIC_CONSUMER};

/// All violations in a run, as sentences.
#[must_use]
pub fn violations(entries: &[Entry]) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(nothing_acknowledged_is_lost(entries));
    found.extend(every_accepted_order_ends(entries));
    found.extend(order_per_key(entries));
    found.extend(every_refusal_is_explained(entries));
    found
}

/// A message that the broker acknowledged was handled by each of its consumers.
fn nothing_acknowledged_is_lost(entries: &[Entry]) -> Vec<String> {
    let mut lost = Vec::new();
    for entry in entries {
        let Event::Published { message, key, position } = &entry.event else { continue };
        let consumer = if key.is_empty() { QUEUE_CONSUMER } else { TOPIC_CONSUMER };
        if !handled(entries, consumer, message) {
            lost.push(format!("{message} was acknowledged at position {position} and never handled by {consumer}"));
        }
    }
    lost
}

/// An order that the client saw accepted was shipped and notified.
fn every_accepted_order_ends(entries: &[Entry]) -> Vec<String> {
    let mut open = Vec::new();
    for entry in entries {
        let Event::Answered { order, status: 201, .. } = &entry.event else { continue };
        for (consumer, message) in [(QUEUE_CONSUMER, format!("f-{order}")), (TOPIC_CONSUMER, format!("o-{order}"))] {
            if !handled(entries, consumer, &message) {
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
            _ => None,
        })
        .collect()
}

fn handled(entries: &[Entry], by: &str, wanted: &str) -> bool {
    entries.iter().any(|entry| {
        matches!(&entry.event, Event::Handled { consumer, message, .. } if *consumer == by && message == wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
