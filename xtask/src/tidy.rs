//! `cargo xtask tidy`: what no compiler holds. The floors of ARCHITECTURE.md, no dependency that nothing names, a `//!` in each
//! file, no file above 400 lines of code, no function above 70. Tests and generated code aside.

mod dependencies;
mod lines;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

/// Lines of code in a file.
const FILE_LINES_MAX: usize = 400;
/// Lines of a function, its signature and its closing brace included.
const FUNCTION_LINES_MAX: usize = 70;

/// Crate → what it may see.
type Floors = BTreeMap<String, BTreeSet<String>>;

/// Looks at the whole workspace; an error that lists every finding.
pub fn run() -> anyhow::Result<()> {
    let findings = findings(&crate::generate::root())?;
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy has {} findings", findings.len());
    }
    Ok(())
}

fn findings(root: &Path) -> anyhow::Result<Vec<String>> {
    let architecture = fs::read_to_string(root.join("ARCHITECTURE.md")).context("ARCHITECTURE.md")?;
    let metadata = metadata(root)?;
    let manifest = fs::read_to_string(root.join("Cargo.toml")).context("Cargo.toml")?;
    let sources = sources(root)?;
    let mut findings = edges(&floors(&architecture)?, &inner_dependencies(&metadata)?);
    findings.extend(dependencies::unused(&metadata, &manifest, &sources)?);
    for (file, text) in sources.iter().filter(|(file, _)| !is_generated(file)) {
        findings.extend(look(file, text));
    }
    Ok(findings)
}

/// Reads the table: `| floor | crate | may see |`.
fn floors(architecture: &str) -> anyhow::Result<Floors> {
    let mut floors = Floors::new();
    let rows = architecture.lines().skip_while(|line| !line.starts_with("| floor |")).skip(2);
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [_, name, sees] = cells[..] else { bail!("a row of the floors does not have three cells: {row}") };
        let sees = sees.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        floors.insert(name.to_owned(), sees);
    }
    ensure!(!floors.is_empty(), "ARCHITECTURE.md has no table of floors");
    Ok(floors)
}

/// The workspace's packages, as Cargo reads their manifests.
fn metadata(root: &Path) -> anyhow::Result<serde_json::Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Crate → the workspace's crates that it depends on, tests aside.
fn inner_dependencies(metadata: &serde_json::Value) -> anyhow::Result<Floors> {
    let mut found = Floors::new();
    for package in metadata["packages"].as_array().context("packages")? {
        let name = package["name"].as_str().context("name")?.to_owned();
        let inside =
            package["dependencies"].as_array().context("dependencies")?.iter().filter(|dependency| {
                dependency["kind"].as_str() != Some("dev") && dependency["path"].as_str().is_some()
            });
        found.insert(name, inside.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned)).collect());
    }
    Ok(found)
}

fn edges(floors: &Floors, found: &Floors) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, sees) in found {
        let Some(may) = floors.get(name) else {
            findings.push(format!("ARCHITECTURE.md: the crate {name} stands on no floor"));
            continue;
        };
        for other in sees.difference(may) {
            findings.push(format!("{name}/Cargo.toml: {name} may not see {other}: the floors have no such edge"));
        }
        for other in may.difference(sees) {
            findings.push(format!("ARCHITECTURE.md: {name} does not see {other}: take it out of the row"));
        }
    }
    for name in floors.keys().filter(|name| !found.contains_key(*name)) {
        findings.push(format!("ARCHITECTURE.md: there is no crate {name}"));
    }
    findings
}

/// The workspace's Rust files with their texts.
fn sources(root: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .current_dir(root)
        .output()
        .context("git ls-files")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let all = String::from_utf8(output.stdout)?;
    let files = all.lines().map(PathBuf::from).filter(|file| root.join(file).exists());
    let read = |file: PathBuf| fs::read_to_string(root.join(&file)).map(|text| (file, text));
    Ok(files.map(read).collect::<Result<_, _>>()?)
}

fn is_generated(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "generated" || part.as_os_str() == "gen")
}

fn is_test(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs")
}

fn look(file: &Path, text: &str) -> Vec<String> {
    let place = file.display();
    let mut findings = Vec::new();
    let first = text.lines().find(|line| !line.starts_with("#![")).unwrap_or_default();
    if !first.starts_with("//!") {
        findings
            .push(format!("{place}:1: begins without `//!`: what is this file for, and what does it leave to whom?"));
    }
    if is_test(file) {
        return findings;
    }
    let code = lines::code(text);
    let count = code.iter().filter(|line| !line.trim().is_empty()).count();
    if count > FILE_LINES_MAX {
        findings.push(format!("{place}:1: {count} lines of code, more than {FILE_LINES_MAX}: split it by idea"));
    }
    for function in lines::functions(&code) {
        if function.lines > FUNCTION_LINES_MAX {
            let (line, name, lines) = (function.line, function.name, function.lines);
            findings.push(format!("{place}:{line}: `{name}` has {lines} lines, more than {FUNCTION_LINES_MAX}"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        assert_eq!(findings(&crate::generate::root()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn an_edge_that_only_the_table_or_only_a_crate_has_is_found() {
        let floors =
            floors("x\n| floor | crate | may see |\n|---|---|---|\n| 0 | a | |\n| 1 | b | a |\n\nend").unwrap();
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let good = Floors::from([("a".to_owned(), set(&[])), ("b".to_owned(), set(&["a"]))]);
        assert_eq!(edges(&floors, &good), Vec::<String>::new());
        let idle = Floors::from([("a".to_owned(), set(&[])), ("b".to_owned(), set(&[]))]);
        assert_eq!(edges(&floors, &idle), ["ARCHITECTURE.md: b does not see a: take it out of the row"]);
        let bad = Floors::from([("a".to_owned(), set(&["b"])), ("c".to_owned(), set(&[]))]);
        let found = edges(&floors, &bad).join("\n");
        for part in ["a may not see b", "c stands on no floor", "no crate b"] {
            assert!(found.contains(part), "{part}: {found}");
        }
    }

    #[test]
    fn a_file_without_words_and_a_long_function_are_found() {
        let long = format!("//! Good.\nfn f() {{\n{}}}\n", "    g();\n".repeat(80));
        assert!(look(Path::new("a/src/x.rs"), &long)[0].contains("`f` has 82 lines"));
        assert!(look(Path::new("a/src/x.rs"), "fn f() {}\n")[0].contains("without `//!`"));
        let tested = format!("//! Good.\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert_eq!(look(Path::new("a/src/x.rs"), &tested), Vec::<String>::new());
    }
}
