//! `cargo xtask gen`: protobuf contracts → committed Rust, so that no user needs a protobuf compiler.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// One contract and where its code goes.
struct Contract {
    include: &'static str,
    file: &'static str,
    out: &'static str,
}

const CONTRACTS: [Contract; 3] = [
    Contract { include: "api/proto", file: "api/proto/meshwork/control/v1/control.proto", out: "api/src/generated" },
    Contract { include: "api/proto", file: "api/proto/meshwork/broker/v1/broker.proto", out: "api/src/generated" },
    Contract {
        include: "examples/shop/proto",
        file: "examples/shop/proto/inventory.proto",
        out: "examples/shop/src/gen",
    },
];

/// Writes the generated code, or with `check` only compares it.
pub fn run(check: bool) -> anyhow::Result<()> {
    let root = crate::generate::root();
    for contract in CONTRACTS.iter().filter(|c| root.join(c.file).exists()) {
        let scratch = root.join("target/generated");
        if scratch.exists() {
            fs::remove_dir_all(&scratch)?;
        }
        fs::create_dir_all(&scratch)?;
        generate(&root, contract, &scratch).with_context(|| format!("while compiling {}", contract.file))?;
        settle(&scratch, &root.join(contract.out), check)?;
    }
    Ok(())
}

fn generate(root: &Path, contract: &Contract, scratch: &Path) -> anyhow::Result<()> {
    let descriptors = protox::compile([root.join(contract.file)], [root.join(contract.include)])?;
    tonic_prost_build::configure()
        .build_server(true)
        .build_client(true)
        .bytes(".meshwork.broker.v1.Event.data")
        .btree_map(".")
        .out_dir(scratch)
        .compile_fds(descriptors)?;
    Ok(())
}

fn settle(scratch: &Path, out: &Path, check: bool) -> anyhow::Result<()> {
    for entry in fs::read_dir(scratch)? {
        let entry = entry?;
        let (fresh, target) = (fs::read_to_string(entry.path())?, out.join(entry.file_name()));
        let fresh = format!("// Made by `cargo xtask gen`; do not edit.\n{fresh}");
        if check {
            if fs::read_to_string(&target).ok().as_deref() != Some(&fresh) {
                bail!("{} is not what its contract says; run `cargo xtask gen`", target.display());
            }
        } else {
            fs::create_dir_all(out)?;
            fs::write(&target, fresh)?;
        }
    }
    Ok(())
}

/// The workspace's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}
