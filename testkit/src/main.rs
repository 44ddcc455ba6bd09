//! `simulate SEED`: runs one seed and prints its outcome as JSON; exit code 1 when something was violated.

use std::process::ExitCode;

use clap::Parser;

/// Run the whole mesh in one process under faults drawn from a seed
#[derive(Parser)]
struct Arguments {
    /// The seed
    seed: u64,
    /// Show the roles' logs: levels such as `info` or `warn,broker=debug`
    #[arg(long)]
    logs: Option<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let outcome = testkit::run::run(arguments.seed, arguments.logs.as_deref())?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
