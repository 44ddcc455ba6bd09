//! What is sent to be published: the mesh files as they were written, with the certificates that they name.
//!
//! The control plane proves it itself: what a client says of a mesh file counts for nothing.

use model::config::finding::{Finding, Source};
use model::config::{self, Config, Enclosed, Enclosures, check_enclosed};
use runtime::tls;
use serde::{Deserialize, Serialize};

/// What a mesh file that came without a name is called in findings.
const FILE: &str = "mesh.yaml";

/// The files of one mesh. As JSON it is the body of `POST /v1/mesh`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// The mesh files.
    pub files: Vec<MeshFile>,
    /// What stands in the files that they name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enclosed: Vec<Enclosure>,
    /// Where it comes from, for whoever reads the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A mesh file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshFile {
    /// How it is called in findings.
    pub name: String,
    /// Its whole text.
    pub text: String,
}

/// What stands in a file that a mesh file names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enclosure {
    /// Which of the mesh files names it, from 0.
    pub source: usize,
    /// The path, as the mesh file writes it.
    pub path: String,
    /// Its content.
    pub pem: String,
}

impl Publication {
    /// One mesh file that came as a text alone.
    #[must_use]
    pub fn of(text: String) -> Self {
        Self { files: vec![MeshFile { name: FILE.to_owned(), text }], enclosed: Vec::new(), note: None }
    }

    /// Proves the mesh.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub(crate) fn prove(&self) -> Result<Config, Vec<Finding>> {
        let sources: Vec<Source<'_>> = self.files.iter().map(|MeshFile { name, text }| Source { name, text }).collect();
        let mut enclosures = Enclosures::default();
        for enclosed in config::enclosed(&sources) {
            let content = self.content(&enclosed);
            enclosures.insert(enclosed, content);
        }
        Ok(check_enclosed(&sources, &enclosures)?.config)
    }

    /// The certificates that a mesh file holds or names; in words, why they cannot be used.
    fn content(&self, enclosed: &Enclosed) -> Result<String, String> {
        let Enclosed { source, text } = enclosed;
        let sent = || self.enclosed.iter().find(|sent| sent.source == *source && sent.path == *text);
        let pem = if enclosed.is_pem() { Some(text) } else { sent().map(|sent| &sent.pem) };
        let pem = pem.ok_or_else(|| {
            format!("a mesh file that is sent here brings no other file with it, so {text:?} cannot be read")
        })?;
        match tls::external_roots(pem.as_bytes()) {
            Ok(_) => Ok(pem.clone()),
            Err(why) => Err(format!("these certificates cannot be used: {why}")),
        }
    }
}
