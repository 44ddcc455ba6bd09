//! The mesh file as written → the mesh as proven, or everything that is wrong with it.
//!
//! Pure: a text goes in, a [`Config`] or findings come out. Files are read by the caller. Everything is looked at even when
//! something was wrong before it: a part that could not be read stands in with its default until the end, where one
//! error is enough for there to be no configuration.

mod chains;
mod context;
mod cycles;
mod merge;
mod messaging;
mod ports;
mod route;
mod service;
mod traffic;

use super::document;
use super::enclosed::Enclosures;
use super::finding::{Finding, Findings, Mistake, Place, Source, code};
use super::{Config, Route};
use crate::name::Name;
use context::Context;

/// Most files of one mesh.
pub const FILES_MAX: usize = 64;

/// A mesh that was proven.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The mesh.
    pub config: Config,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Finding>,
}

/// Checks the mesh in one file.
///
/// # Errors
/// With all that is wrong, in the order of the file: at least one finding is an error, the others may be warnings.
pub fn check(file: &str, text: &str) -> Result<Checked, Vec<Finding>> {
    check_all(&[Source { name: file, text }])
}

/// Checks the mesh that several files describe together. A name is declared in one of them; `mesh` stands in at least one.
///
/// # Errors
/// As [`check`], in the order of the files.
pub fn check_all(sources: &[Source<'_>]) -> Result<Checked, Vec<Finding>> {
    check_enclosed(sources, &Enclosures::default())
}

/// [`check_all`] of a mesh that encloses certificates: `enclosures` says what each of [`enclosed`](super::enclosed()) turned out to be.
///
/// # Errors
/// As [`check_all`], and for each enclosed thing that cannot be used or was not looked at.
pub fn check_enclosed(sources: &[Source<'_>], enclosures: &Enclosures) -> Result<Checked, Vec<Finding>> {
    let mut findings = Findings::new(sources);
    if sources.len() > FILES_MAX {
        let message = format!("the mesh has {} files; at most {FILES_MAX} are read", sources.len());
        findings.error(Place::default(), Mistake::new(code::TOO_LARGE, message));
        return Err(findings.finish());
    }
    let documents: Vec<_> =
        (0..).zip(sources).filter_map(|(file, source)| document::parse(*source, file, &mut findings)).collect();
    if documents.len() < sources.len() {
        // What the unreadable file declares is unknown, so every name that points into it would be a false finding.
        return Err(findings.finish());
    }
    let mesh = merge::merge(&documents, &mut findings);
    let mut context = Context::new(mesh, findings, enclosures);
    let config = prove(&mut context);
    let failed = context.findings.has_error();
    let found = context.findings.finish();
    match config {
        Some(config) if !failed => Ok(Checked { config, warnings: found }),
        _ => Err(found),
    }
}

/// The name of a mesh whose files may have mistakes; `None` when it stands in none of them that can be read.
#[must_use]
pub fn mesh_name(sources: &[Source<'_>]) -> Option<Name> {
    let mut ignored = Findings::new(sources);
    let mut documents = (0..).zip(sources).filter_map(|(file, source)| document::parse(*source, file, &mut ignored));
    documents.find_map(|document| document.value?.mesh?.read()?.ok())
}

/// The mesh, with defaults in the place of what is wrong; `None` when it does not even have a name.
fn prove(context: &mut Context<'_, '_>) -> Option<Config> {
    let mesh = context.mesh_name();
    let services = service::services(context);
    let gateways = traffic::gateways(context);
    let mut routes = route::routes(context, &services);
    for name in services.keys() {
        let own = routes.entry(name.clone()).or_default();
        if own.last().is_none_or(|last| !last.matches.is_empty()) {
            own.push(Route::plain(name));
        }
    }
    let queues = messaging::queues(context);
    let topics = messaging::topics(context);
    let broker = messaging::broker(context);
    // A name stands in for one that is missing, so that the graph is looked at too.
    let known = mesh.clone().or_else(|| Name::new("mesh").ok())?;
    let config = Config { mesh: known, services, gateways, routes, queues, topics, broker };
    if !context.lost_destination {
        messaging::unused(context, &config);
    }
    ports::listeners(context, &config);
    cycles::cycles(context, &config);
    chains::chains(context, &config);
    mesh.map(|_| config)
}
