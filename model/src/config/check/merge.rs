//! Several files → one mesh as written: each name once.

use std::collections::BTreeMap;

use crate::config::document::scalar::{NameText, Scalar};
use crate::config::document::{Broker, Document, Entries, Gateway, Located, Queue, Route, Service, Topic};
use crate::config::finding::{Findings, Mistake, Place, code};

/// A declaration: its name, and what stands under it.
pub(super) type Declared<'d, T> = (&'d Scalar<NameText>, &'d Located<T>);

/// The mesh as its files describe it together.
#[derive(Debug, Default)]
pub(super) struct Mesh<'d> {
    pub(super) name: Option<&'d Scalar<NameText>>,
    pub(super) services: Vec<Declared<'d, Service>>,
    pub(super) gateways: Vec<Declared<'d, Gateway>>,
    pub(super) routes: Vec<&'d Located<Route>>,
    pub(super) queues: Vec<Declared<'d, Queue>>,
    pub(super) topics: Vec<Declared<'d, Topic>>,
    pub(super) broker: Option<&'d Located<Broker>>,
    /// A whole section of services could not be read, so a name that is not here may still be right.
    pub(super) lost_services: bool,
    /// The same for queues and topics.
    pub(super) lost_destinations: bool,
}

pub(super) fn merge<'d>(documents: &'d [Located<Document>], findings: &mut Findings<'_>) -> Mesh<'d> {
    let mut mesh = Mesh::default();
    for document in documents.iter().filter_map(|located| located.value.as_ref()) {
        merge_name(&mut mesh, document, findings);
        merge_broker(&mut mesh, document, findings);
        mesh.lost_services |= is_lost(&document.services);
        mesh.lost_destinations |= is_lost(&document.queues) || is_lost(&document.topics);
        mesh.services.extend(entries(&document.services));
        mesh.gateways.extend(entries(&document.gateways));
        mesh.queues.extend(entries(&document.queues));
        mesh.topics.extend(entries(&document.topics));
        mesh.routes.extend(document.routes.iter().filter_map(|routes| routes.value.as_ref()).flatten());
    }
    let documents_read = documents.iter().all(|document| document.value.is_some());
    if mesh.name.is_none() && documents_read {
        let at = documents.first().map_or_else(Place::default, |document| document.at);
        let mistake = Mistake::new(code::MISSING_KEY, "the mesh has no name");
        findings.error(Place { width: 1, ..at }, mistake.expected("mesh: NAME"));
    }
    once(&mut mesh.services, "service", findings);
    once(&mut mesh.gateways, "gateway", findings);
    once(&mut mesh.queues, "queue", findings);
    once(&mut mesh.topics, "topic", findings);
    apart(&mesh, findings);
    mesh
}

fn entries<T>(written: &Option<Located<Entries<NameText, Located<T>>>>) -> impl Iterator<Item = Declared<'_, T>> {
    written
        .iter()
        .filter_map(|located| located.value.as_ref())
        .flat_map(|Entries(pairs)| pairs.iter().map(|(k, v)| (k, v)))
}

fn is_lost<T>(written: &Option<Located<T>>) -> bool {
    written.as_ref().is_some_and(|located| located.value.is_none())
}

fn merge_name<'d>(mesh: &mut Mesh<'d>, document: &'d Document, findings: &mut Findings<'_>) {
    match (mesh.name, &document.mesh) {
        (Some(first), Some(second)) if first.text() != second.text() => {
            let message = format!("the mesh is already called `{}` in {}", first.text(), findings.point(first.at));
            let mistake = Mistake::new(code::CONFLICT, message).nearest(Some(first.text()));
            findings.error(second.at, mistake);
        }
        (None, name) => mesh.name = name.as_ref(),
        _ => {}
    }
}

fn merge_broker<'d>(mesh: &mut Mesh<'d>, document: &'d Document, findings: &mut Findings<'_>) {
    match (mesh.broker, &document.broker) {
        (Some(first), Some(second)) => {
            let message = format!("the broker is set up in {} already", findings.point(first.at));
            findings.error(second.at, Mistake::new(code::CONFLICT, message));
        }
        (None, broker) => mesh.broker = broker.as_ref(),
        _ => {}
    }
}

/// Drops all but the first of a name. Within one file the reading has seen to that.
fn once<T>(declared: &mut Vec<Declared<'_, T>>, what: &str, findings: &mut Findings<'_>) {
    let mut seen: BTreeMap<String, Place> = BTreeMap::new();
    declared.retain(|(name, _)| {
        let first = *seen.entry(name.text().to_owned()).or_insert(name.at);
        if first != name.at {
            let message = format!("the {what} `{}` is declared in {} already", name.text(), findings.point(first));
            findings.error(name.at, Mistake::new(code::NAME_TAKEN, message));
        }
        first == name.at
    });
}

/// A queue and a topic share one alphabet: `publishes` names either.
fn apart(mesh: &Mesh<'_>, findings: &mut Findings<'_>) {
    let queues: BTreeMap<_, _> = mesh.queues.iter().map(|(queue, _)| (queue.text(), queue.at)).collect();
    for (topic, _) in &mesh.topics {
        if let Some(queue) = queues.get(topic.text()) {
            let message = format!("`{}` is a queue's name already, in {}", topic.text(), findings.point(*queue));
            let mistake = Mistake::new(code::NAME_TAKEN, message);
            findings.error(topic.at, mistake.expected("a name that is either a queue's or a topic's"));
        }
    }
}
