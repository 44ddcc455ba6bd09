//! What the mesh itself has counted: calls and retries on each edge, messages into and out of each queue and topic.
//!
//! It asks the roles for their status and keeps the sums when one of them is killed, whose counters start anew. What the
//! numbers mean is left to the picture and the report.

use std::collections::BTreeMap;

use model::name::Name;
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::up::Mesh;

/// The name under which a role answers about itself.
const SIDECAR: &str = "sidecar";

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// By who called and the service that was called.
    pub calls: BTreeMap<(String, String), Calls>,
    /// By queue or topic: messages that came in.
    pub published: BTreeMap<String, u64>,
    /// By queue or topic and subscription; of a queue the subscription is empty.
    pub delivered: BTreeMap<(String, String), Delivered>,
}

/// The calls on one edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Requests that ended.
    pub calls: u64,
    /// Of these, those that failed.
    pub failures: u64,
    /// Attempts beyond the first of a request.
    pub retries: u64,
}

/// The deliveries on one edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// Attempts to deliver a message.
    pub deliveries: u64,
    /// Attempts beyond a message's first.
    pub redeliveries: u64,
}

impl Observed {
    /// Attempts beyond the first of their request, on all edges.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.calls.values().map(|calls| calls.retries).sum()
    }

    /// Deliveries on all edges together.
    #[must_use]
    pub fn deliveries(&self) -> Delivered {
        self.delivered.values().fold(Delivered::default(), |sum, one| Delivered {
            deliveries: sum.deliveries + one.deliveries,
            redeliveries: sum.redeliveries + one.redeliveries,
        })
    }

    /// What was counted after an earlier look. The broker's counts outlive it, so those of an earlier run may stand in them.
    #[must_use]
    pub fn since(mut self, before: &Self) -> Self {
        for (edge, now) in &mut self.calls {
            let before = before.calls.get(edge).copied().unwrap_or_default();
            now.calls = now.calls.saturating_sub(before.calls);
            now.failures = now.failures.saturating_sub(before.failures);
            now.retries = now.retries.saturating_sub(before.retries);
        }
        for (destination, now) in &mut self.published {
            *now = now.saturating_sub(before.published.get(destination).copied().unwrap_or(0));
        }
        for (edge, now) in &mut self.delivered {
            let before = before.delivered.get(edge).copied().unwrap_or_default();
            now.deliveries = now.deliveries.saturating_sub(before.deliveries);
            now.redeliveries = now.redeliveries.saturating_sub(before.redeliveries);
        }
        self
    }

    /// What is new against an earlier look, in words: retries and redeliveries by edge. Empty when there is nothing.
    #[must_use]
    pub fn news(&self, before: &Self) -> Vec<String> {
        let again = |(edge, now): (&(String, String), &Calls)| {
            let new = now.retries.saturating_sub(before.calls.get(edge).map_or(0, |calls| calls.retries));
            let (from, to) = edge;
            (new > 0).then(|| format!("{from} asked {to} again: {}", times(new)))
        };
        let redelivered = |(edge, now): (&(String, String), &Delivered)| {
            let new = now.redeliveries.saturating_sub(before.delivered.get(edge).map_or(0, |one| one.redeliveries));
            let (destination, to) =
                (&edge.0, if edge.1.is_empty() { String::new() } else { format!(" to {}", edge.1) });
            (new > 0).then(|| format!("{destination} was delivered{to} again: {}", messages(new)))
        };
        self.calls.iter().filter_map(again).chain(self.delivered.iter().filter_map(redelivered)).collect()
    }
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

fn messages(count: u64) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

/// One counter of one process.
type Counter = (Name, String);

/// Looks at a mesh again and again.
#[derive(Debug, Default)]
pub(super) struct Observer {
    counters: BTreeMap<Counter, Sum>,
}

/// A counter that may start anew with its process.
#[derive(Debug, Default)]
struct Sum {
    before: u64,
    now: u64,
}

impl Sum {
    fn take(&mut self, now: u64) {
        if now < self.now {
            self.before += self.now;
        }
        self.now = now;
    }

    fn total(&self) -> u64 {
        self.before + self.now
    }
}

/// A role's answer about itself; the rest of it is for operators.
#[derive(Debug, Deserialize)]
struct Status {
    edges: Vec<proxy::Edge>,
}

impl Observer {
    /// Asks every role that is ready. One that does not answer is left out this time.
    pub(super) async fn look(&mut self, mesh: &Mesh) {
        for report in mesh.reports() {
            let own = ["outbound", "status"].into_iter().find_map(|name| report.addresses.get(name));
            let Some(address) = own else { continue };
            let client = Client::new(*address, SIDECAR);
            let of = report.service.as_ref().map_or_else(|| report.label.clone(), ToString::to_string);
            if let Ok(answer) = client.get("/v1/status").await
                && let Ok(status) = answer.json::<Status>()
            {
                self.take_edges(&report.instance, &of, &status.edges);
            }
            if of == "broker"
                && let Ok(answer) = client.get("/metrics").await
            {
                self.take_metrics(&report.instance, &String::from_utf8_lossy(&answer.body));
            }
        }
    }

    fn take_edges(&mut self, instance: &Name, of: &str, edges: &[proxy::Edge]) {
        for edge in edges {
            for (what, now) in [("calls", edge.calls), ("failures", edge.failures), ("retries", edge.retries)] {
                let key = format!("{what}\n{of}\n{}", edge.service);
                self.counters.entry((instance.clone(), key)).or_default().take(now);
            }
        }
    }

    fn take_metrics(&mut self, instance: &Name, text: &str) {
        const COUNTED: [&str; 3] = ["published", "delivered", "redelivered"];
        for sample in text.lines().filter_map(sample) {
            let name =
                sample.name.strip_prefix("meshwork_broker_").and_then(|name| name.strip_suffix("_messages_total"));
            if let Some(what) = name.filter(|name| COUNTED.contains(name)) {
                let label = |name| sample.labels.get(name).copied().unwrap_or_default();
                let key = format!("{what}\n{}\n{}", label("destination"), label("subscription"));
                self.counters.entry((instance.clone(), key)).or_default().take(sample.value);
            }
        }
    }

    /// The sums over all instances and all their lives.
    pub(super) fn observed(&self) -> Observed {
        let mut observed = Observed::default();
        for ((_, key), sum) in &self.counters {
            let mut parts = key.splitn(3, '\n');
            let (Some(what), Some(one), Some(other)) = (parts.next(), parts.next(), parts.next()) else { continue };
            let edge = (one.to_owned(), other.to_owned());
            let counter = match what {
                "calls" => &mut observed.calls.entry(edge).or_default().calls,
                "failures" => &mut observed.calls.entry(edge).or_default().failures,
                "retries" => &mut observed.calls.entry(edge).or_default().retries,
                "published" => observed.published.entry(edge.0).or_default(),
                "delivered" => &mut observed.delivered.entry(edge).or_default().deliveries,
                _ => &mut observed.delivered.entry(edge).or_default().redeliveries,
            };
            *counter += sum.total();
        }
        observed
    }
}

/// A line of the OpenMetrics text form.
#[derive(Debug, PartialEq)]
struct Sample<'a> {
    name: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
    value: u64,
}

/// Reads a line; `None` for comments and what is no whole number. Names of the mesh file need no escapes.
fn sample(line: &str) -> Option<Sample<'_>> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let pairs = labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
    Some(Sample { name, labels: pairs.map(|(name, value)| (name, value.trim_matches('"'))).collect(), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Name {
        Name::new(name).unwrap()
    }

    fn edge(service: &str, calls: u64, retries: u64) -> proxy::Edge {
        proxy::Edge { service: name(service), calls, failures: 0, retries }
    }

    #[test]
    fn a_killed_process_keeps_its_part_of_the_sum() {
        let mut observer = Observer::default();
        observer.take_edges(&name("orders-0"), "orders", &[edge("catalog", 10, 1)]);
        observer.take_edges(&name("orders-1"), "orders", &[edge("catalog", 5, 0)]);
        observer.take_edges(&name("orders-0"), "orders", &[edge("catalog", 3, 0)]);
        let observed = observer.observed();
        let calls = observed.calls[&("orders".to_owned(), "catalog".to_owned())];
        assert_eq!(calls, Calls { calls: 18, failures: 0, retries: 1 });
        assert_eq!(observed.retries(), 1);
    }

    #[test]
    fn reads_what_the_broker_measures() {
        let mut observer = Observer::default();
        let text = "# TYPE meshwork_broker_published_messages counter\n\
             meshwork_broker_published_messages_total{destination=\"orders\"} 7\n\
             meshwork_broker_delivered_messages_total{destination=\"orders\",subscription=\"notifications\"} 9\n\
             meshwork_broker_redelivered_messages_total{destination=\"orders\",subscription=\"notifications\"} 2\n\
             meshwork_broker_commit_seconds_sum 0.5\n# EOF\n";
        let before = observer.observed();
        observer.take_metrics(&name("broker"), text);
        let observed = observer.observed();
        assert_eq!(observed.published["orders"], 7);
        assert_eq!(observed.deliveries(), Delivered { deliveries: 9, redeliveries: 2 });
        assert_eq!(observed.news(&before), ["orders was delivered to notifications again: 2 messages"]);
        assert!(observed.news(&observed).is_empty());
        let since = observed.clone().since(&observed);
        assert_eq!((since.published["orders"], since.deliveries()), (0, Delivered::default()));
    }
}
