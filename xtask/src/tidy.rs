//! `cargo xtask tidy`: what the compiler does not hold.
//!
//! Edges between crates follow the floors of ARCHITECTURE.md, each file says what it is for, and files and functions stay
//! small enough to be read at once. Style inside of a function is left to clippy and rustfmt.

mod edges;
mod floors;
mod scan;
mod sources;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::bail;

/// Most lines of code in one file.
const FILE_LINES_MAX: usize = 400;
/// Most lines of code in one function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// What is not tidy, and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// Relative to the workspace.
    file: PathBuf,
    /// From 1.
    line: usize,
    text: String,
}

impl Finding {
    fn new(file: impl Into<PathBuf>, line: usize, text: impl Into<String>) -> Self {
        Self { file: file.into(), line, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.text)
    }
}

/// Prints each finding on a line; an error when there is one.
pub fn run() -> anyhow::Result<()> {
    let findings = look(&crate::generate::root())?;
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => bail!("tidy has 1 finding"),
        more => bail!("tidy has {more} findings"),
    }
}

fn look(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let floors = floors::read(root, &mut findings)?;
    let packages = edges::packages(root)?;
    edges::check(root, &floors, &packages, &mut findings)?;
    sources::check(root, &floors, &packages, &mut findings)?;
    findings.sort();
    findings.dedup();
    Ok(findings)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_workspace_is_tidy() {
        let findings = super::look(&crate::generate::root()).unwrap();
        let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(text.is_empty(), "\n{}", text.join("\n"));
    }
}
