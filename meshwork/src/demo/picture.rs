//! The declared graph as a drawing, with what was observed on each of its edges. Pure: from a proven mesh and counts to text.

use std::collections::BTreeSet;

use model::config::{Config, Place, Source};
use model::name::Name;
use serde::{Deserialize, Serialize};

use super::observe::{Calls, Delivered, Observed};

/// An edge of the declared graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "edge", rename_all = "kebab-case")]
pub enum Edge {
    /// One calls the other and waits.
    Calls {
        /// The service, or `gateway NAME`.
        from: String,
        /// The service that is called.
        to: String,
        /// What was observed.
        #[serde(flatten)]
        observed: Calls,
    },
    /// A service sends to a queue or topic.
    Publishes {
        /// The service.
        from: String,
        /// The queue or topic.
        destination: String,
        /// Messages that came in, from whomever.
        messages: u64,
    },
    /// A queue or topic is delivered to a service.
    Delivers {
        /// The queue or topic.
        destination: String,
        /// The service.
        to: String,
        /// What was observed.
        #[serde(flatten)]
        observed: Delivered,
    },
}

/// The edges of the declared graph, callers before callees.
#[must_use]
pub fn edges(config: &Config, observed: &Observed) -> Vec<Edge> {
    let calls = |from: &str, to: &Name| {
        let seen = observed.calls.get(&(from.to_owned(), to.to_string())).copied().unwrap_or_default();
        Edge::Calls { from: from.to_owned(), to: to.to_string(), observed: seen }
    };
    let mut edges = Vec::new();
    for (name, gateway) in &config.gateways {
        let services: BTreeSet<&Name> = gateway.backends.iter().map(|backend| &backend.service).collect();
        edges.extend(services.into_iter().map(|service| calls(&format!("gateway {name}"), service)));
    }
    let callers_first = config.start_order().into_iter().rev().flatten();
    for name in callers_first {
        let Some(service) = config.services.get(&name) else { continue };
        edges.extend(service.calls.iter().map(|callee| calls(name.as_str(), callee)));
        edges.extend(service.publishes.iter().map(|destination| Edge::Publishes {
            from: name.to_string(),
            destination: destination.to_string(),
            messages: observed.published.get(destination.as_str()).copied().unwrap_or(0),
        }));
    }
    for (name, service) in &config.services {
        edges.extend(service.consumes.iter().map(|consumption| delivers(name, &consumption.source, observed)));
    }
    edges
}

fn delivers(to: &Name, source: &Source, observed: &Observed) -> Edge {
    let (destination, subscription) = match source {
        Source::Queue(name) => (name.to_string(), String::new()),
        Source::Topic(name) => (name.to_string(), to.to_string()),
    };
    let seen = observed.delivered.get(&(destination.clone(), subscription)).copied().unwrap_or_default();
    Edge::Delivers { destination, to: to.to_string(), observed: seen }
}

/// The drawing. A line with a single stroke is a call, one with a double stroke carries messages.
#[must_use]
pub fn draw(config: &Config, observed: &Observed) -> String {
    let edges = edges(config, observed);
    let from = |edge: &Edge| match edge {
        Edge::Calls { from, .. } | Edge::Publishes { from, .. } => Some(from.clone()),
        Edge::Delivers { .. } => None,
    };
    let mut callers: Vec<String> = Vec::new();
    for caller in edges.iter().filter_map(from) {
        if !callers.contains(&caller) {
            callers.push(caller);
        }
    }
    let width = callers.iter().map(String::len).max().unwrap_or(0);
    let mut drawn = BTreeSet::new();
    let mut text = String::new();
    for caller in &callers {
        let own: Vec<&Edge> = edges.iter().filter(|edge| from(edge).as_ref() == Some(caller)).collect();
        for (index, edge) in own.iter().enumerate() {
            let name = if index == 0 { caller.as_str() } else { "" };
            let fork = fork(index, own.len(), matches!(edge, Edge::Publishes { .. }));
            let start = format!("  {name:>width$} {fork}");
            text += &match edge {
                Edge::Calls { to, observed, .. } => format!("{start}{}▶ {to}\n", call(observed)),
                Edge::Publishes { destination, messages, .. } => {
                    let known = !drawn.insert(destination.clone());
                    send(&start, destination, *messages, &consumers(&edges, destination), known)
                }
                Edge::Delivers { .. } => String::new(),
            };
        }
    }
    text += &alone(config, &edges);
    text
}

/// The strokes with which an edge leaves its caller.
fn fork(index: usize, of: usize, is_message: bool) -> &'static str {
    match (is_message, index, of) {
        (false, 0, 1) => "───",
        (false, 0, _) => "─┬─",
        (false, index, of) if index + 1 == of => " └─",
        (false, ..) => " ├─",
        (true, 0, 1) => "═══",
        (true, 0, _) => "═╤═",
        (true, index, of) if index + 1 == of => " ╘═",
        (true, ..) => " ╞═",
    }
}

/// Columns that a label on a line takes.
const LABEL_WIDTH: usize = 26;

fn call(observed: &Calls) -> String {
    let again = if observed.retries > 0 { format!(", {} again", number(observed.retries)) } else { String::new() };
    let failed = if observed.failures > 0 { format!(", {} failed", number(observed.failures)) } else { String::new() };
    stroke(&format!("{}{again}{failed}", number(observed.calls)), '─')
}

fn send(start: &str, destination: &str, messages: u64, consumers: &[(String, Delivered)], known: bool) -> String {
    let into = format!("{start}{}▶ [{destination}]", stroke(&number(messages), '═'));
    if known || consumers.is_empty() {
        return format!("{into}\n");
    }
    let indent = into.chars().count();
    let mut text = String::new();
    for (index, (to, observed)) in consumers.iter().enumerate() {
        let before = if index == 0 { into.clone() } else { " ".repeat(indent) };
        let fork = fork(index, consumers.len(), true);
        let again = match observed.redeliveries {
            0 => String::new(),
            again => format!(", {} again", number(again)),
        };
        text += &format!("{before}{fork}{}▶ {to}\n", stroke(&format!("{}{again}", number(observed.deliveries)), '═'));
    }
    text
}

fn consumers(edges: &[Edge], of: &str) -> Vec<(String, Delivered)> {
    let consumer = |edge: &Edge| match edge {
        Edge::Delivers { destination, to, observed } if destination == of => Some((to.clone(), *observed)),
        _ => None,
    };
    edges.iter().filter_map(consumer).collect()
}

/// Services that no edge leaves or reaches.
fn alone(config: &Config, edges: &[Edge]) -> String {
    let mut touched = BTreeSet::new();
    for edge in edges {
        match edge {
            Edge::Calls { from, to, .. } => touched.extend([from, to]),
            Edge::Publishes { from, .. } => touched.extend([from]),
            Edge::Delivers { to, .. } => touched.extend([to]),
        }
    }
    let inside = config.services.iter().filter(|(_, service)| matches!(service.place, Place::Mesh(_)));
    let names = inside.map(|(name, _)| name.to_string()).filter(|name| !touched.contains(name));
    names.map(|name| format!("  {name}\n")).collect()
}

/// A label in the middle of a line.
fn stroke(label: &str, with: char) -> String {
    let left = LABEL_WIDTH.saturating_sub(label.chars().count());
    format!(" {label} {}", with.to_string().repeat(left.max(1)))
}

/// A number with its thousands apart.
#[must_use]
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESH: &str = "
mesh: shop
services:
  storefront: {protocol: http, calls: [orders, catalog]}
  catalog: {protocol: http}
  orders: {protocol: http, calls: [catalog], publishes: [work, news]}
  shipping: {protocol: http, consumes: [{queue: work, path: /work}]}
  letters: {protocol: http, consumes: [{topic: news, path: /news}]}
  archive: {protocol: http, consumes: [{topic: news, path: /news}]}
queues: {work: {}}
topics: {news: {}}
gateways: {public: {listen: 127.0.0.1:8080, backends: [{service: storefront}]}}
";

    fn config() -> Config {
        model::config::check("mesh.yaml", MESH).unwrap().config
    }

    fn observed() -> Observed {
        let calls = |calls, failures, retries| Calls { calls, failures, retries };
        let delivered = |deliveries, redeliveries| Delivered { deliveries, redeliveries };
        let edge = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        Observed {
            calls: [
                (edge("gateway public", "storefront"), calls(1_234, 0, 0)),
                (edge("storefront", "orders"), calls(300, 2, 0)),
                (edge("orders", "catalog"), calls(900, 0, 3)),
                (edge("orders", "broker"), calls(600, 0, 0)),
            ]
            .into(),
            published: [("work".to_owned(), 300), ("news".to_owned(), 300)].into(),
            delivered: [
                (edge("work", ""), delivered(304, 4)),
                (edge("news", "letters"), delivered(300, 0)),
                (edge("news", "archive"), delivered(300, 0)),
            ]
            .into(),
        }
    }

    #[test]
    fn the_graph_is_drawn_with_what_was_observed() {
        let expected = "
  gateway public ─── 1,234 ─────────────────────▶ storefront
      storefront ─┬─ 0 ─────────────────────────▶ catalog
                  └─ 300, 2 failed ─────────────▶ orders
          orders ─┬─ 900, 3 again ──────────────▶ catalog
                  ╞═ 300 ═══════════════════════▶ [news]═╤═ 300 ═══════════════════════▶ archive
                                                         ╘═ 300 ═══════════════════════▶ letters
                  ╘═ 300 ═══════════════════════▶ [work]═══ 304, 4 again ══════════════▶ shipping
";
        assert_eq!(format!("\n{}", draw(&config(), &observed())), expected);
    }

    #[test]
    fn every_declared_edge_is_there_even_unused() {
        let edges = edges(&config(), &Observed::default());
        assert_eq!(edges.len(), 1 + 3 + 2 + 3);
        let text = serde_json::to_string(&edges[0]).unwrap();
        assert_eq!(
            text,
            r#"{"edge":"calls","from":"gateway public","to":"storefront","calls":0,"failures":0,"retries":0}"#
        );
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
    }
}
