//! What a mesh file encloses: certificates that stand in a file beside it, or in it as their own text.
//!
//! Here is only said what is enclosed. Reading files, and knowing a certificate when one stands there, is left to whoever reads
//! the mesh; what became of it is given to [`check_enclosed`](super::check::check_enclosed), which places it or reports it.

use std::collections::BTreeMap;

use super::document::{self, Located};
use super::finding::{Findings, Source};

/// How PEM begins (RFC 7468 §3), by which it is told from the path of a file.
const PEM_BEGINS: &str = "-----BEGIN ";

/// One thing that a mesh file encloses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Enclosed {
    /// Which of the files encloses it, from 0.
    pub source: usize,
    /// What stands there: a path from that file's folder, or the PEM itself.
    pub text: String,
}

impl Enclosed {
    /// Whether the PEM itself stands there, and not the path of a file.
    #[must_use]
    pub fn is_pem(&self) -> bool {
        self.text.trim_start().starts_with(PEM_BEGINS)
    }
}

/// What became of each enclosed thing: its content in PEM, or in words why it cannot be used.
#[derive(Debug, Clone, Default)]
pub struct Enclosures(BTreeMap<Enclosed, Result<String, String>>);

impl Enclosures {
    /// Of one: what it turned out to be.
    pub fn insert(&mut self, enclosed: Enclosed, content: Result<String, String>) {
        self.0.insert(enclosed, content);
    }

    /// Its content.
    ///
    /// # Errors
    /// In words, when it cannot be used or nobody has looked.
    pub(super) fn get(&self, enclosed: &Enclosed) -> Result<String, String> {
        let unseen = || Err(format!("the file {:?} is not at hand", enclosed.text));
        self.0.get(enclosed).cloned().unwrap_or_else(unseen)
    }
}

/// Everything that the files enclose. Mistakes in them are left to `check`.
#[must_use]
pub fn enclosed(sources: &[Source<'_>]) -> Vec<Enclosed> {
    let mut ignored = Findings::new(sources);
    let mut enclosed = Vec::new();
    for (file, source) in (0..).zip(sources).take(super::check::FILES_MAX) {
        let Some(document) = document::parse(*source, file, &mut ignored) else { continue };
        let services = document.value.as_ref().and_then(|document| document.services.as_ref()?.value.as_ref());
        let roots = services.iter().flat_map(|services| &services.0).filter_map(|(_, service)| roots(service));
        enclosed.extend(roots.map(|text| Enclosed { source: file as usize, text: text.to_owned() }));
    }
    enclosed.sort();
    enclosed.dedup();
    enclosed
}

fn roots(service: &Located<document::Service>) -> Option<&str> {
    let external = service.value.as_ref()?.external.as_ref()?.value.as_ref()?;
    let roots = external.tls.as_ref()?.value.as_ref()?.roots.as_ref()?;
    // A path or a PEM is text; anything else is reported by `check`.
    roots.read()?.ok().map(|_| roots.text())
}
