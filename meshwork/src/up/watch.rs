//! The mesh file of a mesh that runs: it is read again and again, and what `check` accepts is put in force.
//!
//! It is read whole each time: a mesh file is small, and neither its time nor a notification tells on every file system that it has
//! changed. A file with mistakes changes nothing and says why.

use std::path::PathBuf;
use std::time::Duration;

use control::Publication;

use super::beginning::{Put, put_in_force, told};
use super::mesh::Mesh;
use crate::command::mesh_file::MeshFile;
use crate::command::process::HangUps;
use crate::operator::{Error, Operator};

/// From one look at the file to the next. A change counts once two looks have found the same: editors write in pieces.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// Watches a mesh file.
#[derive(Debug)]
pub(crate) struct Watch {
    path: PathBuf,
    note: String,
    seen: Seen,
    /// It was said that it is tried again; what was said.
    said: Option<String>,
}

/// What was found in the file.
#[derive(Debug)]
struct Seen {
    /// What was acted on.
    settled: Publication,
    /// What the last look has found, where that is something else.
    fresh: Option<Publication>,
}

/// What became of a change.
enum Taken {
    Done,
    /// It is tried again at the next look.
    Later,
}

impl Seen {
    /// Whether something else stands there now, and has stood there at the last look too.
    fn look(&mut self, found: Publication) -> bool {
        if found == self.settled {
            self.fresh = None;
            return false;
        }
        let same = self.fresh.as_ref() == Some(&found);
        match same {
            true => (self.settled, self.fresh) = (found, None),
            false => self.fresh = Some(found),
        }
        same
    }
}

impl Watch {
    /// Of the file at `path`, which said `file` when it was read by that path as the mesh was started.
    pub(crate) fn new(path: PathBuf, file: &MeshFile) -> Self {
        let note = note(&path);
        let seen = Seen { settled: file.publication(&note), fresh: None };
        Self { path, note, seen, said: None }
    }

    /// What is sent to the control plane of the file as it was found last.
    pub(crate) fn publication(&self) -> &Publication {
        &self.seen.settled
    }

    /// Watches for ever. Whoever sends SIGHUP wants the file in force, changed or not.
    pub(crate) async fn run(mut self, mesh: &Mesh, operator: &Operator, mut hang_ups: HangUps) {
        let mut due = false;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_PAUSE) => {}
                () = heard(&mut hang_ups) => due = true,
            }
            let file = match MeshFile::read(&self.path) {
                Ok(file) => file,
                Err(error) => {
                    self.say(mesh, format!("{error:#}; nothing changes"));
                    continue;
                }
            };
            due |= self.seen.look(file.publication(&self.note));
            if due && self.seen.fresh.is_none() {
                due = matches!(self.take(mesh, operator, &file).await, Taken::Later);
            }
        }
    }

    async fn take(&mut self, mesh: &Mesh, operator: &Operator, file: &MeshFile) -> Taken {
        let events = &mesh.launch().events;
        let config = match file.check() {
            Ok(checked) => {
                if !checked.warnings.is_empty() {
                    events.mesh(file.render(&checked.warnings, false));
                }
                checked.config
            }
            Err(findings) => {
                let path = self.path.display();
                events.mesh(format!("{}{path} has mistakes; nothing changes", file.render(&findings, false)));
                return Taken::Done;
            }
        };
        let running = &mesh.launch().common.mesh;
        if config.mesh != *running {
            let why = "a mesh keeps its name while it runs; nothing changes";
            events.mesh(format!("the mesh file is of the mesh `{}`, and `{running}` runs: {why}", config.mesh));
            return Taken::Done;
        }
        match put_in_force(mesh, operator, self.publication(), &config).await {
            Ok(Put { revision, changes }) => {
                self.said = None;
                match changes.is_empty() {
                    true => events.mesh(format!("the mesh file was read: nothing differs from revision {revision}")),
                    false => events.mesh(told(revision, &changes)),
                }
                Taken::Done
            }
            // Somebody has published between the look and the change: what they did is replaced, as the file says.
            Err(Error::Moved { .. }) => Taken::Later,
            Err(error @ Error::Away { .. }) => {
                self.say(mesh, format!("{error}; the mesh file is applied when it does"));
                Taken::Later
            }
            Err(error) => {
                events.mesh(format!("the mesh file is not applied: {error}"));
                Taken::Done
            }
        }
    }

    /// Says it once.
    fn say(&mut self, mesh: &Mesh, text: String) {
        if self.said.as_ref() != Some(&text) {
            mesh.launch().events.mesh(text.clone());
            self.said = Some(text);
        }
    }
}

/// Where a revision comes from that a mesh file makes.
fn note(path: &std::path::Path) -> String {
    format!("up {}", path.display())
}

async fn heard(hang_ups: &mut HangUps) {
    if hang_ups.changed().await.is_err() {
        // Nobody sends any more.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_has_settled() {
        let publication = |text: &str| Publication::of(text.to_owned());
        let mut seen = Seen { settled: publication("one"), fresh: None };
        let looks = ["one", "", "two", "two", "two", "three", "two", "three", "three"];
        let found: Vec<bool> = looks.iter().map(|text| seen.look(publication(text))).collect();
        assert_eq!(found, [false, false, false, true, false, false, false, false, true]);
    }
}
