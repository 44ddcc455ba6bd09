//! What the pages and the messages name is there: mesh files pass `check`, commands parse, settings, files and links exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file below a folder whose name ends so, generated ones and what cargo has built aside.
fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        match path.is_dir() {
            true if ["target", "generated", "gen"].contains(&name) || name.starts_with('.') => {}
            true => found.extend(files(&path, suffix)),
            false if name.ends_with(suffix) => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

fn pages() -> Vec<(PathBuf, String)> {
    let pages: Vec<_> = files(&root(), ".md").into_iter().map(|path| (path.clone(), read(&path))).collect();
    assert!(pages.len() > 10, "{pages:?}");
    pages
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The fenced blocks of a page: what stands behind the fence, and the lines between.
fn blocks(page: &str) -> Vec<(String, Vec<String>)> {
    let (mut blocks, mut open) = (Vec::new(), None);
    for line in page.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(kind), None) => open = Some((kind.to_owned(), Vec::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, lines))) => lines.push(line.to_owned()),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block without an end");
    blocks
}

fn meshwork(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_meshwork")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn every_mesh_file_of_the_pages_passes_check() {
    let folder = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for (path, page) in pages() {
        for (_, lines) in blocks(&page).into_iter().filter(|(kind, _)| kind == "yaml") {
            let file = folder.path().join("mesh.yaml");
            std::fs::write(&file, lines.join("\n")).unwrap();
            let (good, text) = meshwork(&["check", file.to_str().unwrap()]);
            assert!(good && !text.contains("warning"), "{}: {text}", path.display());
            checked += 1;
        }
    }
    assert!(checked > 0);
}

/// With `--help` behind it a line is parsed and not carried out.
#[test]
fn every_command_of_the_pages_parses() {
    let mut parsed = 0;
    for (path, page) in pages() {
        let lines = blocks(&page).into_iter().filter(|(kind, _)| ["sh", "console"].contains(&kind.as_str()));
        for line in lines.flat_map(|(_, lines)| lines) {
            let line = line.trim_start_matches("$ ");
            let command = line.split(" #").next().unwrap().trim_end_matches(['\\', '&', ' ']);
            let prefixes = ["meshwork ", "cargo run --release -- ", "target/release/meshwork "];
            let Some(arguments) = prefixes.iter().find_map(|prefix| command.strip_prefix(prefix)) else { continue };
            let until_pipe = arguments.split(['|', '>', ';']).next().unwrap();
            let mut words: Vec<&str> = until_pipe.split_whitespace().collect();
            let behind = words.iter().position(|word| *word == "--").unwrap_or(words.len());
            words.insert(behind, "--help");
            let (good, text) = meshwork(&words);
            assert!(good, "{}: {line}\n{text}", path.display());
            parsed += 1;
        }
    }
    assert!(parsed > 2);
}

/// Of each key of the mesh file, the keys below it.
fn settings() -> BTreeMap<String, BTreeSet<String>> {
    let (good, text) = meshwork(&["schema"]);
    assert!(good, "{text}");
    let schema: Value = serde_json::from_str(&text).unwrap();
    let mut settings = BTreeMap::new();
    collect(&schema, &schema, "", &mut BTreeSet::new(), &mut settings);
    settings
}

fn collect(
    schema: &Value,
    node: &Value,
    parent: &str,
    seen: &mut BTreeSet<(String, String)>,
    settings: &mut BTreeMap<String, BTreeSet<String>>,
) {
    if let Some(name) = node["$ref"].as_str().and_then(|path| path.rsplit('/').next())
        && seen.insert((name.to_owned(), parent.to_owned()))
    {
        collect(schema, &schema["$defs"][name], parent, seen, settings);
    }
    for (key, value) in node["properties"].as_object().into_iter().flatten() {
        settings.entry(parent.to_owned()).or_default().insert(key.clone());
        collect(schema, value, key, seen, settings);
    }
    let lists = ["anyOf", "oneOf", "allOf"].iter().filter_map(|list| node[list].as_array()).flatten();
    let inner = [&node["items"], &node["additionalProperties"]].into_iter().chain(lists);
    for inner in inner.filter(|inner| inner.is_object()) {
        collect(schema, inner, parent, seen, settings);
    }
}

/// Dotted names of a text: `inbound.body_max`.
fn dotted(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let words = text.split(|letter: char| !(letter.is_ascii_lowercase() || letter == '_' || letter == '.'));
    let names = words.map(|word| word.trim_matches('.').split('.').collect::<Vec<_>>());
    names.filter(|parts| parts.len() > 1 && parts.iter().all(|part| !part.is_empty()))
}

/// The string literals of a line of code.
fn literals(line: &str) -> impl Iterator<Item = &str> {
    let code = if line.trim_start().starts_with("//") { "" } else { line };
    code.split('"').skip(1).step_by(2)
}

/// A message that names a setting in other words than the mesh file sends its reader to look for what is not there.
#[test]
fn settings_are_named_as_the_mesh_file_names_them() {
    let settings = settings();
    assert!(settings["inbound"].contains("body_max"), "{settings:?}");
    let mut texts: Vec<(PathBuf, String)> = Vec::new();
    for crate_ in ["model", "policy", "api", "runtime", "storage", "local", "proxy", "broker", "control", "meshwork"] {
        for path in
            files(&root().join(crate_).join("src"), ".rs").into_iter().filter(|path| !path.ends_with("tests.rs"))
        {
            let code = read(&path);
            let product = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let text = product.lines().flat_map(literals).collect::<Vec<_>>().join("\n");
            texts.push((path, text));
        }
    }
    // In the pages, what stands between backticks.
    texts.extend(pages().into_iter().map(|(path, page)| {
        let quoted = page.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        (path, quoted.collect::<Vec<_>>().join("\n"))
    }));
    let (mut wrong, mut named) = (Vec::new(), 0);
    for (path, text) in &texts {
        for parts in dotted(text).filter(|parts| settings.contains_key(parts[0]) && !is_something_else(parts)) {
            named += 1;
            if !is_setting(&settings, &parts) {
                wrong.push(format!("{}: {}", path.display(), parts.join(".")));
            }
        }
    }
    assert!(wrong.is_empty(), "no such setting:\n{}", wrong.join("\n"));
    assert!(named > 5, "nothing was found to look at");
}

/// Keys of the mesh file below which the user's own names stand.
const OF_NAMES: [&str; 5] = ["services", "subsets", "gateways", "queues", "topics"];

fn is_setting(settings: &BTreeMap<String, BTreeSet<String>>, parts: &[&str]) -> bool {
    let (mut parent, mut rest) = (parts[0], &parts[1..]);
    while let Some((part, behind)) = rest.split_first() {
        match settings.get(parent) {
            Some(keys) if keys.contains(*part) => parent = part,
            Some(_) if OF_NAMES.contains(&parent) => {}
            Some(_) => return false,
            None => return true,
        }
        rest = behind;
    }
    true
}

/// A name of a file, not of a setting.
fn is_something_else(parts: &[&str]) -> bool {
    parts.last().is_some_and(|last| ["rs", "proto", "yaml", "json", "md", "pem", "toml", "txt"].contains(last))
}

#[test]
fn links_and_paths_of_the_pages_lead_somewhere() {
    let mut broken = Vec::new();
    for (path, page) in pages() {
        let folder = path.parent().unwrap();
        for target in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if !file.is_empty() && !file.contains("://") && !folder.join(file).exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    // The map of the code.
    let architecture = read(&root().join("ARCHITECTURE.md"));
    for quoted in architecture.split('`').skip(1).step_by(2).filter(|quoted| quoted.contains('/')) {
        if !quoted.contains(' ') && !root().join(quoted).exists() && !root().join(format!("{quoted}.rs")).exists() {
            broken.push(format!("ARCHITECTURE.md: {quoted}"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
