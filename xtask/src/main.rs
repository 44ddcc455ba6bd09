//! The developers' commands: `cargo xtask <command>`.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a tool outside of the mesh's doors: it uses what any program uses"
)]

mod bench;
mod bounded;
mod check;
mod generate;
mod simulate;
mod soak;
mod tidy;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The developers' commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that a change must pass: format, contracts, clippy, tests, tidiness, docs, simulation
    Test(check::Options),
    /// Crates stay on their floors and depend on nothing they do not use, files and functions stay small, each file says what it is for
    Tidy,
    /// Write the Rust code of the protobuf contracts anew
    Gen {
        /// Change nothing; fail when the code on disk is not what would be written
        #[arg(long)]
        check: bool,
    },
    /// Measure Meshwork beside its peers
    Bench {
        #[command(subcommand)]
        bench: bench::Bench,
    },
    /// Run seeds of the simulation
    Sim(simulate::Options),
    /// Run a mesh of processes under load and faults, and check that nothing is lost
    Soak(soak::Options),
    /// An application of a soak
    #[command(hide = true)]
    SoakApplication(soak::Application),
    /// The gRPC server that stands behind the proxies in a benchmark
    #[command(hide = true)]
    BenchOrigin {
        /// Where it listens
        address: std::net::SocketAddr,
    },
}

fn main() -> std::process::ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Test(options) => check::run(&options),
        Command::Tidy => tidy::run(),
        Command::Gen { check } => generate::run(check),
        Command::Sim(options) => simulate::run(&options),
        Command::Bench { bench } => bench::run(&bench),
        Command::Soak(options) => soak::run(&options),
        Command::SoakApplication(application) => soak::run_application(&application),
        Command::BenchOrigin { address } => bench::serve_origin(address),
    }
}
