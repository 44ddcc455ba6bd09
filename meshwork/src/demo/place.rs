//! The demo's folder: a fresh one that goes with the demo, or the caller's, which stays.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use storage::disk::{self, Disk as _, real::RealDisk};

/// The folder.
#[derive(Debug)]
pub(super) struct Place {
    folder: PathBuf,
    is_ours: bool,
}

impl Place {
    /// Makes the folder and writes the mesh file into it, which the control plane reads.
    ///
    /// # Errors
    /// When the disk says no.
    pub(super) fn make(wanted: Option<&Path>, mesh_file: &str) -> anyhow::Result<Self> {
        let folder = match wanted {
            Some(wanted) => std::path::absolute(wanted)?,
            None => std::env::temp_dir().join(format!("meshwork-demo-{:016x}", runtime::random::seed())),
        };
        let place = Self { folder, is_ours: wanted.is_none() };
        let cannot = || format!("cannot use the folder {}", place.folder.display());
        RealDisk.create_dir_all(&place.folder).with_context(cannot)?;
        disk::replace(&RealDisk, &place.mesh_file(), mesh_file.as_bytes()).with_context(cannot)?;
        Ok(place)
    }

    /// The folder itself, in which the applications run.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the mesh file is.
    pub(super) fn mesh_file(&self) -> PathBuf {
        self.folder.join("mesh.yaml")
    }

    /// Where the roles keep what is theirs.
    pub(super) fn mesh_folder(&self) -> PathBuf {
        self.folder.join("mesh")
    }

    /// Removes the folder, where it was made for this run.
    #[expect(
        clippy::disallowed_methods,
        reason = "no role stands on the folder any more, and the disk's door removes no folders"
    )]
    pub(super) fn forget(&mut self) {
        if std::mem::take(&mut self.is_ours)
            && let Err(error) = std::fs::remove_dir_all(&self.folder)
        {
            tracing::warn!(folder = %self.folder.display(), %error, "the demo's folder could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_folder_goes_and_the_callers_stays() {
        let mut fresh = Place::make(None, "mesh: a\n").unwrap();
        assert!(fresh.mesh_file().is_file());
        fresh.forget();
        assert!(!fresh.folder().exists());
        let wanted = tempfile::tempdir().unwrap();
        let mut callers = Place::make(Some(wanted.path()), "mesh: a\n").unwrap();
        callers.forget();
        assert!(callers.mesh_file().is_file());
    }
}
