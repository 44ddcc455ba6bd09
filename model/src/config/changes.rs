//! What differs between two configurations, by the keys of the mesh file: for people who are about to change a mesh.
//!
//! The nouns are written out as the mesh file writes them, with all defaults, and compared key by key. Nothing is decided by it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Config, Place, Route};
use crate::unit;

/// What stands in the place of a value that is not shown.
pub const HIDDEN: &str = "(hidden)";

/// One key that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The key, from the top of the mesh file: `services.orders.env.COLOUR`. Places in a list count from 0.
    pub path: String,
    /// What stood there; `None`: nothing. What has keys of its own is written as `{…}`, and the value of an environment's variable, which
    /// is often a password, as [`HIDDEN`].
    pub old: Option<String>,
    /// What stands there now; `None`: nothing.
    pub new: Option<String>,
}

/// What becomes different when `new` takes the place of `old`, in the order of the keys.
#[must_use]
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(&mut changes, String::new(), Some(&written(old)), Some(&written(new)));
    for change in changes.iter_mut().filter(|change| is_env(&change.path)) {
        for side in [&mut change.old, &mut change.new].into_iter().flatten() {
            HIDDEN.clone_into(side);
        }
    }
    changes
}

fn compare(changes: &mut Vec<Change>, path: String, old: Option<&Value>, new: Option<&Value>) {
    match (old, new) {
        _ if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(changes, path, old.get(key), new.get(key));
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if has_keys(old) && has_keys(new) => {
            for index in 0..old.len().max(new.len()) {
                compare(changes, format!("{path}[{index}]"), old.get(index), new.get(index));
            }
        }
        _ => changes.push(Change { path, old: old.map(text), new: new.map(text) }),
    }
}

/// Whether it is a variable of a service's, or of a subset's, environment.
fn is_env(path: &str) -> bool {
    let keys: Vec<&str> = path.split('.').collect();
    matches!(keys.as_slice(), ["services", _, "env", ..] | ["services", _, "subsets", _, "env", ..])
}

fn has_keys(list: &[Value]) -> bool {
    list.iter().all(Value::is_object)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(_) => "{…}".to_owned(),
        Value::Array(values) => format!("[{}]", values.iter().map(text).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// The configuration as a mesh file would write it, with all defaults.
fn written(config: &Config) -> Value {
    let mut file = object(config);
    file.insert("services".to_owned(), services(config));
    file.insert("routes".to_owned(), routes(config));
    for queue in children(&mut file, "queues") {
        if let Some(keep) = queue.remove("dead_letter_keep") {
            queue.insert("dead_letter".to_owned(), Value::Object(Map::from_iter([("keep".to_owned(), keep)])));
        }
    }
    for kind in ["queues", "topics"] {
        children(&mut file, kind).for_each(backoff);
    }
    children(&mut file, "gateways").for_each(|gateway| rename(gateway, "body_bytes_max", "body_max"));
    if let Some(Value::Object(broker)) = file.get_mut("broker") {
        rename(broker, "message_bytes_max", "message_max");
    }
    plain(Value::Object(file))
}

/// Without the place, the groups and the sources, which the mesh file does not know.
fn services(config: &Config) -> Value {
    let services = config.services.iter().map(|(name, service)| {
        let mut written = object(service);
        written.remove("place");
        match &service.place {
            Place::External(external) => drop(written.insert("external".to_owned(), object(external).into())),
            Place::Mesh(workload) => {
                let mut part = object(workload);
                part.remove("groups");
                written.append(&mut part);
                let mut subsets = Map::new();
                for group in &workload.groups {
                    let mut part = object(group);
                    part.remove("name");
                    if let Some(words) = &group.command {
                        part.insert("command".to_owned(), words.join(" ").into());
                    }
                    match &group.name {
                        None => written.append(&mut part),
                        Some(name) => drop(subsets.insert(name.to_string(), part.into())),
                    }
                }
                if !subsets.is_empty() {
                    written.insert("subsets".to_owned(), subsets.into());
                }
            }
        }
        if let Some(Value::Object(inbound)) = written.get_mut("inbound") {
            rename(inbound, "body_bytes_max", "body_max");
        }
        if let Some(Value::Array(consumed)) = written.get_mut("consumes") {
            for consumption in consumed.iter_mut().filter_map(Value::as_object_mut) {
                if let Some(Value::Object(mut source)) = consumption.remove("source") {
                    consumption.append(&mut source);
                }
            }
        }
        (name.to_string(), Value::Object(written))
    });
    Value::Object(services.collect())
}

/// Without the route that every service has at the end.
fn routes(config: &Config) -> Value {
    let written: BTreeMap<String, Vec<&Route>> = config
        .routes
        .iter()
        .map(|(name, routes)| (name.to_string(), routes.iter().filter(|route| **route != Route::plain(name)).collect()))
        .filter(|(_, routes): &(_, Vec<&Route>)| !routes.is_empty())
        .collect();
    Value::Object(object(&written))
}

fn backoff(destination: &mut Map<String, Value>) {
    let Some(Value::Object(delivery)) = destination.get_mut("delivery") else { return };
    let parts = [("backoff_initial", "initial"), ("backoff_max", "max")];
    let parts = parts.into_iter().filter_map(|(noun, word)| Some((word.to_owned(), delivery.remove(noun)?)));
    let backoff = parts.collect::<Map<_, _>>();
    delivery.insert("backoff".to_owned(), backoff.into());
}

/// Lengths of time with their unit, statuses as the mesh file writes them, and nothing where nothing stands.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(map) => match duration(&map) {
            Some(time) => unit::write_duration(time).into(),
            None if map.len() == 1 && map.contains_key("status") => map["status"].clone(),
            None => {
                let parts = map.into_iter().filter(|(_, value)| !value.is_null());
                Value::Object(parts.map(|(key, value)| (key, plain(value))).collect())
            }
        },
        Value::Array(values) => Value::Array(values.into_iter().map(plain).collect()),
        other => other,
    }
}

/// As serde writes one.
fn duration(map: &Map<String, Value>) -> Option<Duration> {
    let nanos = u32::try_from(map.get("nanos")?.as_u64()?).ok()?;
    (map.len() == 2).then_some(Duration::new(map.get("secs")?.as_u64()?, nanos))
}

fn object(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        // The nouns are written out as objects with text for keys.
        _ => Map::new(),
    }
}

fn children<'a>(map: &'a mut Map<String, Value>, key: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let parent = map.get_mut(key).and_then(Value::as_object_mut);
    parent.into_iter().flat_map(|parent| parent.iter_mut()).filter_map(|(_, value)| value.as_object_mut())
}

fn rename(map: &mut Map<String, Value>, noun: &str, word: &str) {
    if let Some(value) = map.remove(noun) {
        map.insert(word.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESH: &str = "
mesh: shop
services:
  a: {protocol: http, command: run a --fast, env: {COLOUR: red}, calls: [b], publishes: [q]}
  b: {protocol: http, subsets: {v1: {command: b 1}, v2: {command: b 2}}}
  c: {protocol: http, consumes: [{queue: q, path: /q}]}
routes:
  - {service: b, timeouts: {request: 2s}, backends: [{service: b, subset: v1, weight: 95}, {service: b, subset: v2, weight: 5}]}
queues: {q: {}}
gateways: {public: {listen: '127.0.0.1:8080', backends: [{service: a}]}}
";

    #[test]
    fn changes_are_told_by_the_keys_of_the_mesh_file() {
        let config = |text: &str| crate::config::check("mesh.yaml", text).unwrap().config;
        let found = |old: &str, new: &str| -> Vec<String> {
            let changes = changes(&config(old), &config(new));
            let side = |side: Option<String>| side.unwrap_or_else(|| "-".to_owned());
            changes.into_iter().map(|c| format!("{}: {} > {}", c.path, side(c.old), side(c.new))).collect()
        };
        assert_eq!(found(MESH, MESH), [""; 0]);
        for (from, to, expected) in [
            ("run a --fast", "run a", vec!["services.a.command: run a --fast > run a"]),
            (
                "COLOUR: red",
                "COLOUR: blue, X: '1'",
                vec!["services.a.env.COLOUR: (hidden) > (hidden)", "services.a.env.X: - > (hidden)"],
            ),
            (
                "env: {COLOUR: red}",
                "instances: 3",
                vec!["services.a.env.COLOUR: (hidden) > -", "services.a.instances: 1 > 3"],
            ),
            ("calls: [b]", "calls: [b, c]", vec!["services.a.calls: [b] > [b, c]"]),
            ("v2: {command: b 2}", "v2: {command: b 3}", vec!["services.b.subsets.v2.command: b 2 > b 3"]),
            ("path: /q", "path: /q, concurrency: 2", vec!["services.c.consumes[0].concurrency: 8 > 2"]),
            ("weight: 95", "weight: 90", vec!["routes.b[0].backends[0].weight: 95 > 90"]),
            ("request: 2s", "request: 250ms", vec!["routes.b[0].timeouts.request: 2s > 250ms"]),
            ("q: {}", "q: {dead_letter: {keep: 1d}}", vec!["queues.q.dead_letter.keep: 14d > 1d"]),
            ("q: {}", "q: {delivery: {backoff: {max: 5s}}}", vec!["queues.q.delivery.backoff.max: 1m > 5s"]),
            ("127.0.0.1:8080", "127.0.0.1:8081", vec!["gateways.public.listen: 127.0.0.1:8080 > 127.0.0.1:8081"]),
            ("queues:", "broker: {message_max: 2MiB}\nqueues:", vec!["broker.message_max: 1048576 > 2097152"]),
            ("  c: {", "  d: {protocol: http}\n  c: {", vec!["services.d: - > {…}"]),
        ] {
            assert_eq!(found(MESH, &MESH.replace(from, to)), expected, "{to}");
            let mut back: Vec<String> = found(&MESH.replace(from, to), MESH);
            back.iter_mut().for_each(|line| {
                let (path, sides) = line.split_once(": ").unwrap();
                let (old, new) = sides.split_once(" > ").unwrap();
                *line = format!("{path}: {new} > {old}");
            });
            assert_eq!(back, expected, "back from {to}");
        }
    }
}
