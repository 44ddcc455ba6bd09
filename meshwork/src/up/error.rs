//! Why a mesh does not run, in words that say what to change.

use std::io;
use std::path::PathBuf;

use model::name::Name;

use super::{ports, program};

/// Why a mesh does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Ports that the mesh file declares are in use.
    #[error("{}", lines(.0))]
    Taken(Vec<ports::Taken>),
    /// Programs that commands name are not there.
    #[error("{}", missing(.0))]
    Programs(Vec<(Name, program::NotFound)>),
    /// A service's or gateway's name is too long for its instances to have one.
    #[error("an instance has no name: {0}")]
    Name(#[from] model::name::Error),
    /// The mesh's folder cannot be used, most often because another process has it.
    #[error("cannot use the folder {}: {error}; `--data` names another", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Tokens, ports.
    #[error("cannot prepare the mesh: {0:#}")]
    Prepare(anyhow::Error),
    /// An instance did not come up.
    #[error("`{instance}` did not come up: {why}{}{}", waited(awaited.as_deref()), quoted(last_lines))]
    Instance {
        /// Which.
        instance: Name,
        /// How it failed.
        why: String,
        /// For what was waited, where it is an application.
        awaited: Option<String>,
        /// What it wrote last.
        last_lines: Vec<String>,
    },
}

fn lines(taken: &[ports::Taken]) -> String {
    taken.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn missing(programs: &[(Name, program::NotFound)]) -> String {
    let line = |(instance, error): &(Name, program::NotFound)| format!("`{instance}` cannot be started: {error}");
    programs.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn waited(awaited: Option<&str>) -> String {
    awaited.map(|what| format!(" ({what}; the port is told in PORT)")).unwrap_or_default()
}

fn quoted(last_lines: &[String]) -> String {
    match last_lines.is_empty() {
        true => "; it wrote nothing".to_owned(),
        false => {
            format!("; its last lines:\n{}", last_lines.iter().map(|line| format!("    {line}\n")).collect::<String>())
                .trim_end()
                .to_owned()
        }
    }
}
