//! The shop's binary: found beside this one, and built there when it is missing or older than its sources.
//!
//! It builds only where the workspace is that this program was built from; anywhere else the binary must be there.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::narrate::Narrator;

/// The package and its binary.
const SHOP: &str = "shop";
/// Files and folders of the shop that are looked at; it has a few dozen.
const SOURCES_MAX: usize = 10_000;

/// Makes sure that the shop's binary stands beside `program` and is not older than its sources.
///
/// # Errors
/// When it is not there and cannot be built.
pub(super) async fn ensure_built(program: &Path, narrator: &Narrator) -> anyhow::Result<()> {
    let folder = program.parent().context("this program stands in no folder")?;
    let binary = folder.join(SHOP);
    let built = modified(&binary);
    let sources = sources();
    match (built, &sources) {
        (Some(built), Some(sources)) if newest_of(sources) <= Some(built) => return Ok(()),
        (Some(_), None) => return Ok(()),
        (None, None) => bail!("the shop's program is not there: {}", binary.display()),
        _ => {}
    }
    narrator.step("building the shop (examples/shop)");
    build(folder, narrator).await?;
    ensure!(modified(&binary).is_some(), "cargo has built the shop, but not to {}", binary.display());
    Ok(())
}

/// The shop's sources, where this program was built and they still are there.
fn sources() -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let sources = workspace.join("examples").join(SHOP);
    sources.join("Cargo.toml").is_file().then_some(sources)
}

/// When what the binary is made of was changed last.
fn newest_of(sources: &Path) -> Option<SystemTime> {
    ["Cargo.toml", "src", "data"].into_iter().filter_map(|part| newest(&sources.join(part))).max()
}

fn modified(file: &Path) -> Option<SystemTime> {
    file.metadata().ok()?.modified().ok()
}

/// When the youngest file at or below `path` was changed.
fn newest(path: &Path) -> Option<SystemTime> {
    let (mut open, mut looked, mut newest) = (vec![path.to_owned()], 0, None);
    while let Some(path) = open.pop() {
        looked += 1;
        if looked > SOURCES_MAX {
            break;
        }
        match path.is_dir() {
            true => open.extend(path.read_dir().into_iter().flatten().flatten().map(|entry| entry.path())),
            false => newest = newest.max(modified(&path)),
        }
    }
    newest
}

/// Builds it into the folder in which this program stands: `…/target/release` is the profile `release`, `…/target/debug` is `dev`.
async fn build(folder: &Path, narrator: &Narrator) -> anyhow::Result<()> {
    let target = folder.parent().context("this program stands in no target folder")?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => bail!("{} is no folder of a profile", folder.display()),
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = Command::new(cargo)
        // Both packages are named so that what they share has the features that it was built with for this program (cargo unifies
        // over what is named), and is not built again.
        .args(["build", "--package", env!("CARGO_PKG_NAME"), "--package", SHOP, "--bin", SHOP])
        .args(["--profile", profile, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run cargo to build the shop")?;
    if let Some(output) = child.stderr.take() {
        let mut lines = BufReader::new(output).lines();
        while let Some(line) = lines.next_line().await.context("cargo's output")? {
            narrator.raw(&format!("          {line}"));
        }
    }
    let status = child.wait().await.context("cargo was lost")?;
    ensure!(status.success(), "cargo could not build the shop ({status}); its lines above say why");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_are_where_this_was_built() {
        let sources = sources().unwrap();
        assert!(newest_of(&sources) >= modified(&sources.join("Cargo.toml")));
        assert_eq!(newest(Path::new("/nowhere/at/all")), None);
    }
}
