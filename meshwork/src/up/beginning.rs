//! What a run of `up` begins with: its mesh file, or what the control plane has kept.
//!
//! The file is `up`'s own, so one that was changed is applied, as `meshwork apply` does it. One that is as it was when it was last
//! applied undoes nothing that was published since; one with mistakes stops no mesh that has a good revision.

use control::Publication;
use model::config::{Change, Config};

use super::error::Error;
use super::mesh::Mesh;
use crate::command::changes;
use crate::operator::{self, Operator, Preview};

/// The configuration that a run begins with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Beginning {
    pub(crate) config: Config,
    /// Whether it is the mesh file's, which is put in force.
    pub(crate) from_file: bool,
    /// Whether the mesh file, which is good, says something else.
    pub(crate) file_differs: bool,
}

impl Beginning {
    /// By the mesh file, where it is good; by what the control plane would begin with; and by what was last taken from the file.
    /// `None`: there is nothing to begin with.
    pub(crate) fn choose(file: Option<Config>, kept: Option<Config>, taken: Option<&Config>) -> Option<Self> {
        match (file, kept) {
            (None, None) => None,
            (None, Some(kept)) => Some(Self { config: kept, from_file: false, file_differs: false }),
            (Some(file), Some(kept)) if file != kept && file.mesh == kept.mesh && taken == Some(&file) => {
                Some(Self { config: kept, from_file: false, file_differs: true })
            }
            (Some(file), _) => Some(Self { config: file, from_file: true, file_differs: false }),
        }
    }
}

/// Starts the mesh: its control plane, which then is given the mesh file where that counts, and the rest.
///
/// # Errors
/// When an instance does not come up, or the control plane does not take the file.
pub(crate) async fn start(
    mesh: &Mesh,
    operator: &Operator,
    file: Option<(&Publication, &Config)>,
) -> Result<(), Error> {
    mesh.start_control_plane().await?;
    if let Some((publication, config)) = file {
        let put = put_in_force(mesh, operator, publication, config).await;
        let Put { revision, changes, .. } = put.map_err(|error| Error::Prepare(error.into()))?;
        if !changes.is_empty() {
            mesh.launch().events.mesh(told(revision, &changes));
        }
    }
    mesh.start().await
}

/// What was put in force.
pub(crate) struct Put {
    pub(crate) revision: u64,
    /// What became different by it.
    pub(crate) changes: Vec<Change>,
}

/// Publishes the mesh file in the place of whatever is in force, where it differs, and remembers that it was taken.
pub(crate) async fn put_in_force(
    mesh: &Mesh,
    operator: &Operator,
    file: &Publication,
    config: &Config,
) -> Result<Put, operator::Error> {
    let Preview { from, changes } = operator.preview(file).await?;
    let revision = operator.publish(file, from).await?;
    if let Err(error) = mesh.launch().folder.remember_taken(config) {
        tracing::warn!(%error, "what was taken from the mesh file could not be written down; the next run takes it again");
    }
    Ok(Put { revision, changes })
}

/// What was changed, for whoever reads the events.
pub(crate) fn told(revision: u64, changes: &[Change]) -> String {
    let lines = changes::lines(changes).join("\n");
    let lines = anstream::adapter::strip_str(&lines);
    format!("the mesh file is applied: revision {revision} is in force\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_when_it_has_changed() {
        let mesh = |port: u16| {
            let text = format!("mesh: m\nservices: {{a: {{protocol: http, port: {port}}}}}\n");
            Some(model::config::check("mesh.yaml", &text).unwrap().config)
        };
        // The file, what is kept, what was last taken from the file; what the run begins with, from the file, the file differs.
        for (file, kept, taken, expected) in [
            (mesh(1), None, None, Some((mesh(1), true, false))),
            (mesh(1), mesh(1), mesh(1), Some((mesh(1), true, false))),
            (mesh(2), mesh(1), mesh(1), Some((mesh(2), true, false))),
            // Somebody has published since: a rollback, an apply from elsewhere.
            (mesh(1), mesh(2), mesh(1), Some((mesh(2), false, true))),
            // Both have changed: whoever starts it with the changed file wants that.
            (mesh(3), mesh(2), mesh(1), Some((mesh(3), true, false))),
            // The folder is of a release that did not remember what was taken.
            (mesh(1), mesh(2), None, Some((mesh(1), true, false))),
            (None, mesh(2), mesh(1), Some((mesh(2), false, false))),
            (None, None, None, None),
        ] {
            let case = format!("{file:?} {kept:?} {taken:?}");
            let begun = Beginning::choose(file, kept, taken.as_ref());
            let begun = begun.map(|begun| (Some(begun.config), begun.from_file, begun.file_differs));
            assert_eq!(begun, expected, "{case}");
        }
    }
}
