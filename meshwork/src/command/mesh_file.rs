//! The mesh file: read from a file, a folder of files or standard input, with the certificates that it names, and proven by `model`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use control::{Enclosure, Publication};
use model::config::check::FILES_MAX;
use model::config::document::FILE_BYTES_MAX;
use model::config::finding::Source;
use model::config::{self, Checked, Enclosed, Enclosures, Finding};
use model::name::Name;
use runtime::tls;
use storage::disk::real::RealDisk;
use storage::disk::{self, Disk as _};

/// Longest file of certificates, in bytes; what a distribution trusts altogether is half of it.
const CERTIFICATES_BYTES_MAX: u64 = 512 << 10;

/// The files of one mesh, as read.
#[derive(Debug)]
pub struct MeshFile {
    /// Name as shown, and text.
    files: Vec<(String, String)>,
    enclosures: Enclosures,
    /// What stands in the files that they name, where it is good.
    named: Vec<Enclosure>,
}

impl MeshFile {
    /// Reads a file, all `*.yaml` and `*.yml` of a folder, or for `-` standard input.
    ///
    /// # Errors
    /// When it is not there, cannot be read, is too long, or is not text.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            let mut text = String::new();
            let limit = FILE_BYTES_MAX as u64 + 1;
            std::io::stdin().lock().take(limit).read_to_string(&mut text).context("cannot read standard input")?;
            return Ok(Self::of("<stdin>", text));
        }
        let paths = if path.is_dir() { inside(path)? } else { vec![path.to_owned()] };
        let files = paths.iter().map(|path| Ok((path.display().to_string(), read(path)?)));
        Ok(Self::with_enclosed(files.collect::<anyhow::Result<_>>()?))
    }

    /// A mesh file that is no file.
    #[must_use]
    pub fn of(name: &str, text: impl Into<String>) -> Self {
        Self::with_enclosed(vec![(name.to_owned(), text.into())])
    }

    /// Reads what the files enclose, once: whoever is told of the mesh is told the content.
    fn with_enclosed(files: Vec<(String, String)>) -> Self {
        let mut mesh = Self { files, enclosures: Enclosures::default(), named: Vec::new() };
        for enclosed in config::enclosed(&mesh.sources()) {
            let content = certificates(Path::new(&mesh.files[enclosed.source].0), &enclosed);
            if let (false, Ok(pem)) = (enclosed.is_pem(), &content) {
                let Enclosed { source, text: path } = enclosed.clone();
                mesh.named.push(Enclosure { source, path, pem: pem.clone() });
            }
            mesh.enclosures.insert(enclosed, content);
        }
        mesh
    }

    /// Proves the mesh.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn check(&self) -> Result<Checked, Vec<Finding>> {
        config::check_enclosed(&self.sources(), &self.enclosures)
    }

    /// The findings for people.
    #[must_use]
    pub fn render(&self, findings: &[Finding], colour: bool) -> String {
        config::render(findings, &self.sources(), colour)
    }

    /// The mesh's name, also where the files have mistakes.
    pub(crate) fn mesh_name(&self) -> Option<Name> {
        config::mesh_name(&self.sources())
    }

    /// What is sent to a control plane. `note` says in the history where it comes from.
    pub(crate) fn publication(&self, note: &str) -> Publication {
        let files = self.files.iter().map(|(name, text)| control::MeshFile { name: name.clone(), text: text.clone() });
        Publication { files: files.collect(), enclosed: self.named.clone(), note: Some(note.to_owned()) }
    }

    fn sources(&self) -> Vec<Source<'_>> {
        self.files.iter().map(|(name, text)| Source { name, text }).collect()
    }
}

fn inside(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let names = RealDisk.list(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let is_mesh_file = |name: &String| name.ends_with(".yaml") || name.ends_with(".yml");
    let paths: Vec<PathBuf> = names.iter().filter(|name| is_mesh_file(name)).map(|name| folder.join(name)).collect();
    ensure!(!paths.is_empty(), "the folder {} has no .yaml file", folder.display());
    ensure!(paths.len() <= FILES_MAX, "the folder {} has more than {FILES_MAX} mesh files", folder.display());
    Ok(paths)
}

fn read(path: &Path) -> anyhow::Result<String> {
    // One byte more than is allowed, so that `check` says what is wrong with a longer one.
    let bytes = disk::read_whole(&RealDisk, path, FILE_BYTES_MAX as u64 + 1)
        .with_context(|| format!("cannot read the mesh file {}", path.display()))?;
    String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("the mesh file {} is not UTF-8 text", path.display()))
}

/// Certificates that the mesh file `beside` names or holds; in words, why they cannot be used.
fn certificates(beside: &Path, enclosed: &Enclosed) -> Result<String, String> {
    let (pem, whence) = if enclosed.is_pem() {
        (enclosed.text.clone(), "these certificates".to_owned())
    } else {
        let path = beside.parent().unwrap_or(Path::new("")).join(&enclosed.text);
        let whence = format!("the file {}", path.display());
        let bytes = disk::read_whole(&RealDisk, &path, CERTIFICATES_BYTES_MAX)
            .map_err(|error| format!("{whence} cannot be read: {error}"))?;
        (String::from_utf8(bytes).map_err(|_| format!("{whence} is not PEM: it is not even text"))?, whence)
    };
    match tls::external_roots(pem.as_bytes()) {
        Ok(_) => Ok(pem),
        Err(why) => Err(format!("{whence} cannot be used: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_in_the_order_of_its_names() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("b.yaml", "two"), ("a.yml", "one"), ("readme.md", "no")] {
            disk::replace(&RealDisk, &folder.path().join(name), text.as_bytes()).unwrap();
        }
        let mesh = MeshFile::read(folder.path()).unwrap();
        let texts: Vec<&str> = mesh.files.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["one", "two"]);
    }

    #[test]
    fn certificates_are_read_from_beside_the_mesh_file_that_names_them() {
        let folder = tempfile::tempdir().unwrap();
        let text = "mesh: m\nservices:\n  tax: {external: {addresses: ['t:443'], tls: {name: t, roots: tax.pem}}}\n";
        disk::replace(&RealDisk, &folder.path().join("mesh.yaml"), text.as_bytes()).unwrap();
        let pem = rcgen::generate_simple_self_signed(vec!["t".to_owned()]).unwrap().cert.pem();
        let check = || MeshFile::read(&folder.path().join("mesh.yaml")).unwrap().check();
        let put = |content: &[u8]| disk::replace(&RealDisk, &folder.path().join("tax.pem"), content).unwrap();
        let refused = |why: &str| {
            let findings = check().unwrap_err();
            assert_eq!((findings.len(), findings[0].line, findings[0].column), (1, 3, 64), "{findings:?}");
            assert!(findings[0].message.contains(why), "{findings:?}");
        };
        refused("tax.pem cannot be read: No such file");
        put(b"\xff\xfe");
        refused("tax.pem is not PEM");
        put(b"good day");
        refused("no certificate in PEM stands there");
        put(pem.replace("MII", "!!!").as_bytes());
        refused("tax.pem cannot be used");
        put(pem.as_bytes());
        let config = serde_json::to_string(&check().unwrap().config).unwrap();
        assert!(config.contains("BEGIN CERTIFICATE"), "{config}");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = MeshFile::read(Path::new("nowhere/mesh.yaml")).unwrap_err();
        assert!(format!("{error:#}").contains("nowhere/mesh.yaml"), "{error:#}");
    }
}
