//! Where a mesh's data is when nobody says where: in `.meshwork` beside its mesh file, so that it is the same from wherever it is run.

use std::path::{Path, PathBuf};

use model::name::Name;
use storage::disk::{Disk as _, real::RealDisk};

use crate::up::folder::{self, Running};

/// The folder of all meshes of a project.
const FOLDER: &str = ".meshwork";

/// The folder of all meshes whose mesh files are where `file` is, which may be a folder of them.
///
/// # Errors
/// When the working folder cannot be told.
pub(super) fn beside(file: &Path) -> std::io::Result<PathBuf> {
    let file = std::path::absolute(file)?;
    let own = if file.is_dir() { file.as_path() } else { file.parent().unwrap_or(Path::new("/")) };
    Ok(own.join(FOLDER))
}

/// The nearest folder of meshes: in `folder`, or in the first above it that has one.
pub(super) fn nearest(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().map(|above| above.join(FOLDER)).find(|found| found.is_dir())
}

/// What runs out of the folder `named`; without one, out of any beside the mesh file `file`; without that, out of any of the nearest.
///
/// # Errors
/// When the working folder cannot be told.
pub(super) fn running(named: Option<&Path>, file: Option<&Path>) -> std::io::Result<Vec<Running>> {
    let all = match (named, file) {
        (Some(folder), _) => return Ok(folder::running(folder).into_iter().collect()),
        (None, Some(file)) => Some(beside(file)?),
        (None, None) => nearest(&std::env::current_dir()?),
    };
    let Some(all) = all else { return Ok(Vec::new()) };
    let names = RealDisk.list(&all).unwrap_or_default();
    Ok(names.iter().filter_map(|name| folder::running(&all.join(name))).collect())
}

/// The data that earlier versions left in the folder in which they were called, where that is not `data`.
pub(super) fn former(called_in: &Path, mesh: &Name, data: &Path) -> Option<PathBuf> {
    let former = called_in.join(FOLDER).join(mesh.as_str());
    (former != data && has_mesh(&former)).then_some(former)
}

/// Whether a mesh was run in this folder before.
pub(super) fn has_mesh(data: &Path) -> bool {
    data.join("secret").is_file()
}

#[cfg(test)]
mod tests {
    use storage::disk;

    use super::*;

    #[test]
    fn it_is_beside_the_mesh_file_and_found_from_below() {
        let root = tempfile::tempdir().unwrap();
        let below = root.path().join("a/b");
        RealDisk.create_dir_all(&below).unwrap();
        assert_eq!(beside(&root.path().join("mesh.yaml")).unwrap(), root.path().join(FOLDER));
        assert_eq!(beside(&below).unwrap(), below.join(FOLDER), "a folder of mesh files");
        RealDisk.create_dir_all(&root.path().join(FOLDER)).unwrap();
        assert_eq!(nearest(&below), Some(root.path().join(FOLDER)));
    }

    #[test]
    fn what_earlier_versions_left_is_found() {
        let root = tempfile::tempdir().unwrap();
        let (mesh, data) = (Name::new("shop").unwrap(), root.path().join("project/.meshwork/shop"));
        assert_eq!(former(root.path(), &mesh, &data), None);
        let left = root.path().join(".meshwork/shop");
        RealDisk.create_dir_all(&left).unwrap();
        disk::replace(&RealDisk, &left.join("secret"), b"s").unwrap();
        assert_eq!(former(root.path(), &mesh, &data), Some(left.clone()));
        assert_eq!(former(root.path(), &mesh, &left), None);
    }
}
