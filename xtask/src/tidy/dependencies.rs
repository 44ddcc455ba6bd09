//! Entries of a Cargo.toml that nothing names: they are built, audited and upgraded for nobody, and make edges that are none.
//!
//! A name is looked for, not resolved: a module of a dependency's name may hide an entry that nobody needs, but no entry that
//! somebody needs is found.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::lines;

/// Packages whose library has another name.
const LIBRARIES: [(&str, &str); 1] = [("rustls-webpki", "webpki")];

/// A member of the workspace: where it is, and what its Cargo.toml asks for.
struct Member {
    folder: PathBuf,
    entries: Vec<Entry>,
}

/// A dependency.
struct Entry {
    name: String,
    is_dev: bool,
}

/// What is asked for in vain: of `metadata`'s members in their `sources`, and of the workspace's manifest in all members.
pub fn unused(
    metadata: &serde_json::Value,
    manifest: &str,
    sources: &[(PathBuf, String)],
) -> anyhow::Result<Vec<String>> {
    let members = members(metadata)?;
    let mut findings = Vec::new();
    for member in &members {
        findings.extend(look(member, sources));
    }
    let used: BTreeSet<&str> =
        members.iter().flat_map(|member| &member.entries).map(|entry| entry.name.as_str()).collect();
    for name in shared(manifest).filter(|name| !used.contains(name)) {
        findings.push(format!("Cargo.toml: no crate depends on `{name}`: remove it from [workspace.dependencies]"));
    }
    Ok(findings)
}

fn members(metadata: &serde_json::Value) -> anyhow::Result<Vec<Member>> {
    let root = metadata["workspace_root"].as_str().context("workspace_root")?;
    let packages = metadata["packages"].as_array().context("packages")?;
    packages.iter().map(|package| member(root, package)).collect()
}

fn member(root: &str, package: &serde_json::Value) -> anyhow::Result<Member> {
    let manifest = Path::new(package["manifest_path"].as_str().context("manifest_path")?);
    let folder = manifest.parent().context("a manifest is in a folder")?.strip_prefix(root)?.to_owned();
    let dependencies = package["dependencies"].as_array().context("dependencies")?;
    let entry = |dependency: &serde_json::Value| {
        let name = dependency["rename"].as_str().or(dependency["name"].as_str()).context("name")?.to_owned();
        Ok(Entry { name, is_dev: dependency["kind"].as_str() == Some("dev") })
    };
    Ok(Member { folder, entries: dependencies.iter().map(entry).collect::<anyhow::Result<_>>()? })
}

/// The names in a manifest's `[workspace.dependencies]`.
fn shared(manifest: &str) -> impl Iterator<Item = &str> {
    let section = manifest.lines().skip_while(|line| line.trim() != "[workspace.dependencies]").skip(1);
    let entries = section.take_while(|line| !line.starts_with('['));
    entries.filter(|line| !line.starts_with('#')).filter_map(|line| Some(line.split_once('=')?.0.trim()))
}

fn look(member: &Member, sources: &[(PathBuf, String)]) -> Vec<String> {
    let (mut product, mut whole) = (String::new(), String::new());
    for (path, text) in sources {
        let Ok(inside) = path.strip_prefix(&member.folder) else { continue };
        whole.push_str(&lines::blank(text));
        if !is_for_tests(inside) {
            product.extend(lines::code(text).iter().flat_map(|line| [line, "\n"]));
        }
    }
    let manifest = member.folder.join("Cargo.toml");
    let manifest = manifest.display();
    let mut findings = Vec::new();
    for Entry { name, is_dev } in &member.entries {
        if !is_named(&whole, name) {
            findings.push(format!("{manifest}: nothing in the crate names `{name}`: remove the entry"));
        } else if !is_dev && !is_named(&product, name) {
            findings.push(format!("{manifest}: only tests name `{name}`: move the entry to [dev-dependencies]"));
        }
    }
    findings
}

/// Whether a crate's file is built with its `[dev-dependencies]`.
fn is_for_tests(inside: &Path) -> bool {
    let is_target = ["tests", "examples", "benches"].iter().any(|folder| inside.starts_with(folder));
    is_target || super::is_test(inside)
}

/// Whether code has `name::` where a path begins, or `use name` or `extern crate name`.
fn is_named(code: &str, name: &str) -> bool {
    let library = LIBRARIES.iter().find(|(package, _)| *package == name).map_or(name, |(_, library)| library);
    let library = library.replace('-', "_");
    code.match_indices(&library).any(|(at, _)| is_path(&code[..at], &code[at + library.len()..]))
}

fn is_path(before: &str, behind: &str) -> bool {
    let in_word = |character: char| character.is_alphanumeric() || character == '_';
    let is_inner = before.strip_suffix("::").is_some_and(|before| before.ends_with(in_word));
    let is_imported = ["use ", "use ::", "extern crate "].iter().any(|word| before.ends_with(word));
    let is_word = !before.ends_with(in_word) && !behind.starts_with(in_word);
    is_word && !is_inner && (behind.starts_with("::") || is_imported)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What is found of a crate that asks for `entry`, in `section`, and has these files.
    fn check(entry: &str, kind: Option<&str>, sources: &[(&str, &str)], expected: &[&str]) {
        let metadata = json!({
            "workspace_root": "/mesh",
            "packages": [{
                "manifest_path": "/mesh/a/Cargo.toml",
                "dependencies": [{ "name": entry, "kind": kind, "rename": null }],
            }],
        });
        let manifest = format!("[workspace.dependencies]\n{entry} = \"1\"\n");
        let sources: Vec<_> = sources.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
        assert_eq!(unused(&metadata, &manifest, &sources).unwrap(), expected, "{entry} in {sources:?}");
    }

    #[test]
    fn what_is_named_is_used() {
        for (entry, text) in [
            ("http", "use http::Method;"),
            ("http", "fn f(_: &::http::Method) {}"),
            ("http", "use {http::Method, std::fmt};"),
            ("http", "use http as web;"),
            ("http", "extern crate http;"),
            ("http-body", "use http_body::Body as _;"),
            ("tokio", "#[tokio::main]\nasync fn main() {}"),
            ("clap", "#[derive(clap::Args)]\nstruct A;"),
            ("rustls-webpki", "use webpki::EndEntityCert;"),
        ] {
            check(entry, None, &[("a/src/lib.rs", text)], &[]);
        }
    }

    #[test]
    fn what_nothing_names_is_found() {
        let expected = ["a/Cargo.toml: nothing in the crate names `http`: remove the entry"];
        for text in [
            "use axum::http::Method;",
            "use http_body::Body;",
            "fn http() {}",
            "// use http::Method;",
            "const URL: &str = \"http::\";",
        ] {
            check("http", None, &[("a/src/lib.rs", text), ("b/src/lib.rs", "use http::Method;")], &expected);
            check("http", Some("dev"), &[("a/src/lib.rs", text)], &expected);
        }
    }

    #[test]
    fn what_only_tests_name_is_for_tests() {
        let expected = ["a/Cargo.toml: only tests name `http`: move the entry to [dev-dependencies]"];
        for (path, text) in [
            ("a/tests/x.rs", "use http::Method;"),
            ("a/examples/x.rs", "use http::Method;"),
            ("a/src/x/tests.rs", "use http::Method;"),
            ("a/src/x.rs", "#[cfg(test)]\nmod tests {\n    use http::Method;\n}\n"),
        ] {
            check("http", None, &[(path, text)], &expected);
            check("http", Some("dev"), &[(path, text)], &[]);
        }
        check("http", None, &[("a/src/x.rs", "#[cfg(test)]\nmod tests;\nuse http::Method;\n")], &[]);
    }

    #[test]
    fn what_no_member_shares_is_found() {
        let metadata = json!({ "workspace_root": "/mesh", "packages": [] });
        let manifest = "[workspace]\n[workspace.dependencies]\n# web\nhttp = \"1\"\n\n[profile.dev]\ndebug = false\n";
        let expected = ["Cargo.toml: no crate depends on `http`: remove it from [workspace.dependencies]"];
        assert_eq!(unused(&metadata, manifest, &[]).unwrap(), expected);
    }
}
