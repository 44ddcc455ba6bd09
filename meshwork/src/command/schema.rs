//! `meshwork schema`: the JSON Schema of the mesh file, made from the types that read it.

use std::process::ExitCode;

use super::Outcome;

const EXAMPLES: &str = "\
Examples:
  meshwork schema > mesh.schema.json

An editor that knows the YAML language server completes a mesh file that begins with
  # yaml-language-server: $schema=mesh.schema.json";

/// Print the JSON Schema of the mesh file
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// On one line
    #[arg(long)]
    compact: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let schema = model::config::schema();
    let text = if arguments.compact { serde_json::to_string(&schema)? } else { serde_json::to_string_pretty(&schema)? };
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}
