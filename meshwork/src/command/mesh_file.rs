//! The mesh file: read from a file, a folder of files or standard input, and proven by `model`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use model::config::check::FILES_MAX;
use model::config::document::FILE_BYTES_MAX;
use model::config::finding::Source;
use model::config::{self, Checked, Finding};
use storage::disk::real::RealDisk;
use storage::disk::{self, Disk as _};

/// The files of one mesh, as read.
#[derive(Debug)]
pub struct MeshFile {
    /// Name as shown, and text.
    files: Vec<(String, String)>,
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
        Ok(Self { files: files.collect::<anyhow::Result<_>>()? })
    }

    /// A mesh file that is no file.
    #[must_use]
    pub fn of(name: &str, text: impl Into<String>) -> Self {
        Self { files: vec![(name.to_owned(), text.into())] }
    }

    /// Proves the mesh.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn check(&self) -> Result<Checked, Vec<Finding>> {
        config::check_all(&self.sources())
    }

    /// The findings for people.
    #[must_use]
    pub fn render(&self, findings: &[Finding], colour: bool) -> String {
        config::render(findings, &self.sources(), colour)
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
    fn what_is_not_there_is_named() {
        let error = MeshFile::read(Path::new("nowhere/mesh.yaml")).unwrap_err();
        assert!(format!("{error:#}").contains("nowhere/mesh.yaml"), "{error:#}");
    }
}
