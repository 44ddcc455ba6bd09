//! Which file a command's first word means.
//!
//! A word with a slash is a path from the mesh file's folder. Another one is looked for in that folder, beside the meshwork
//! executable, and in PATH, in this order: what belongs to the mesh comes before what happens to be installed.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Nothing of this name can be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// No folder has such a program.
    #[error("there is no program `{word}`{}", places(looked))]
    Nowhere {
        /// The word.
        word: String,
        /// Where it was looked for, PATH aside.
        looked: Vec<PathBuf>,
    },
    /// There is no file at that path.
    #[error("there is no file {}, which `{word}` means", file.display())]
    NoFile {
        /// The word.
        word: String,
        /// The file.
        file: PathBuf,
    },
    /// What is there is no program.
    #[error("{}, which `{word}` means, is not a file that may be executed", file.display())]
    NotExecutable {
        /// The word.
        word: String,
        /// The file.
        file: PathBuf,
    },
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
    if word.contains('/') {
        let base = folders.first().map_or(Path::new("."), PathBuf::as_path);
        let (word, file) = (word.to_owned(), base.join(word));
        return match file.exists() {
            _ if can_run(&file) => Ok(file),
            true => Err(NotFound::NotExecutable { word, file }),
            false => Err(NotFound::NoFile { word, file }),
        };
    }
    let nowhere = || NotFound::Nowhere { word: word.to_owned(), looked: folders.to_vec() };
    let installed = path.map(std::env::split_paths).into_iter().flatten();
    let places = folders.iter().cloned().chain(installed);
    places.map(|folder| folder.join(word)).find(|file| can_run(file)).ok_or_else(nowhere)
}

fn can_run(file: &Path) -> bool {
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt as _;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the disk's door makes no file that can be run")]
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
        assert!(matches!(find("./shop", &folders, None), Err(NotFound::NotExecutable { .. })));
        assert!(matches!(find("bin/shop", &folders, None), Err(NotFound::NoFile { .. })));
    }

    #[test]
    fn what_is_nowhere_is_told_with_where_it_was_looked_for() {
        let error = find("shopp", &[PathBuf::from("/mesh")], None).unwrap_err();
        assert_eq!(error.to_string(), "there is no program `shopp`: not in /mesh, and not in PATH");
    }
}
