//! Which file a command's first word means.
//!
//! A word with a slash is a path from the mesh file's folder. Another one is looked for in that folder, beside the meshwork
//! executable, and in PATH, in this order: what belongs to the mesh comes before what happens to be installed.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Nothing of this name can be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no program `{word}`{}", places(looked))]
pub struct NotFound {
    /// The word.
    pub word: String,
    /// Where it was looked for, PATH aside.
    pub looked: Vec<PathBuf>,
}

fn places(looked: &[PathBuf]) -> String {
    let folders: Vec<String> = looked.iter().map(|folder| folder.display().to_string()).collect();
    match folders.is_empty() {
        true => String::new(),
        false => format!(": not in {}, and not in PATH", folders.join(", ")),
    }
}

/// Finds the file.
pub(crate) fn find(word: &str, folders: &[PathBuf], path: Option<&OsStr>) -> Result<PathBuf, NotFound> {
    let missing = |looked: &[PathBuf]| NotFound { word: word.to_owned(), looked: looked.to_vec() };
    if word.contains('/') {
        let base = folders.first().map_or(Path::new("."), PathBuf::as_path);
        let file = base.join(word);
        return if can_run(&file) { Ok(file) } else { Err(missing(&[])) };
    }
    let installed = path.map(std::env::split_paths).into_iter().flatten();
    let places = folders.iter().cloned().chain(installed);
    places.map(|folder| folder.join(word)).find(|file| can_run(file)).ok_or_else(|| missing(folders))
}

fn can_run(file: &Path) -> bool {
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt as _;

    use super::*;

    fn put(folder: &Path, name: &str, mode: u32) {
        std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(folder.join(name)).unwrap();
    }

    #[test]
    fn the_folder_of_the_mesh_comes_before_path() {
        let (own, installed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        put(installed.path(), "shop", 0o755);
        let folders = [own.path().to_owned()];
        let path = Some(installed.path().as_os_str());
        assert_eq!(find("shop", &folders, path).unwrap(), installed.path().join("shop"));
        put(own.path(), "shop", 0o644);
        assert_eq!(find("shop", &folders, path).unwrap(), installed.path().join("shop"));
        put(own.path(), "run", 0o755);
        assert_eq!(find("run", &folders, path).unwrap(), own.path().join("run"));
        assert_eq!(find("./run", &folders, None).unwrap(), own.path().join("./run"));
    }

    #[test]
    fn what_is_nowhere_is_told_with_where_it_was_looked_for() {
        let error = find("shopp", &[PathBuf::from("/mesh")], None).unwrap_err();
        assert_eq!(error.to_string(), "there is no program `shopp`: not in /mesh, and not in PATH");
    }
}
