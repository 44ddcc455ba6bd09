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
    /// Show every line that the trace hash is made of, for finding where two runs part
    #[arg(long)]
    trace: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let show = testkit::run::Show { logs: arguments.logs, trace: arguments.trace };
    let outcome = testkit::run::run(arguments.seed, &show)?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
