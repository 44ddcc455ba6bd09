//! Cycles of synchronous calls: each service waits for the next, and the last for the first.
//!
//! Under load such a circle fills with requests that wait for each other, and none of its services can be deployed alone.
//! One finding for each group of services that reach each other, with the shortest way round.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::context::{Context, list};
use crate::config::Config;
use crate::config::finding::{Mistake, Place, code};
use crate::name::Name;

/// Services of a circle that a finding lists; of a longer one, the first of them.
const LISTED_MAX: usize = 16;

pub(super) fn cycles(context: &mut Context<'_, '_>, config: &Config) {
    let edges: BTreeMap<&Name, BTreeSet<Name>> =
        config.services.keys().map(|name| (name, config.reached_from(name))).collect();
    let circling: BTreeSet<Name> = config.waves().1.into_iter().collect();
    let mut reported: BTreeSet<Name> = BTreeSet::new();
    for (key, located) in context.mesh.services.clone() {
        let Some((start, _)) = config.services.get_key_value(key.text()) else { continue };
        if reported.contains(start) || !circling.contains(start) {
            continue;
        }
        let Some(circle) = shortest_circle(&edges, start) else { continue };
        let way: Vec<_> = circle.iter().chain([start]).map(Name::as_str).collect();
        let next = circle.get(1).unwrap_or(start);
        let calls = located.value.as_ref().and_then(|service| service.calls.as_ref());
        let at = list(calls).iter().find(|call| leads_to(config, call.text(), next)).map_or(key.at, |call| call.at);
        report(context, at, &way);
        reported.extend(circle);
    }
}

fn report(context: &mut Context<'_, '_>, at: Place, way: &[&str]) {
    let message = match way {
        [one, _] => format!("`{one}` calls itself and waits for the answer"),
        _ if way.len() > LISTED_MAX => {
            let listed = way[..LISTED_MAX].join(" → ");
            format!("these services wait for each other: {listed} → … ({} in all)", way.len() - 1)
        }
        _ => format!("these services wait for each other: {}", way.join(" → ")),
    };
    let mistake = Mistake::new(code::CALL_CYCLE, message);
    context.error(
        at,
        mistake.expected("calls in one direction; what goes the other way can be sent over a queue or a topic"),
    );
}

fn leads_to(config: &Config, call: &str, next: &Name) -> bool {
    Name::new(call).is_ok_and(|call| config.backends_of(&call).contains(next))
}

/// The services of the shortest way from `start` back to it, `start` first.
fn shortest_circle(edges: &BTreeMap<&Name, BTreeSet<Name>>, start: &Name) -> Option<Vec<Name>> {
    let mut before: BTreeMap<&Name, &Name> = BTreeMap::new();
    let mut waiting = VecDeque::from([start]);
    while let Some(service) = waiting.pop_front() {
        for next in edges.get(service).into_iter().flatten() {
            if next == start {
                let mut way = vec![service.clone()];
                let mut step = service;
                while let Some(previous) = before.get(step) {
                    way.push((*previous).clone());
                    step = previous;
                }
                way.reverse();
                return Some(way);
            }
            if let std::collections::btree_map::Entry::Vacant(slot) = before.entry(next) {
                slot.insert(service);
                waiting.push_back(next);
            }
        }
    }
    None
}
