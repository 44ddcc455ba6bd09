//! `cargo xtask sim`: seeds of the simulation, side by side, each in a process of its own and run twice.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::bounded;

/// How long one run of a seed may take; it takes a quarter of a second.
const SEED_BOUND: Duration = Duration::from_secs(180);

/// Which seeds are run, and how it is told.
#[derive(Args)]
pub struct Options {
    /// How many seeds
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// `text` for people, `json` for one object a seed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Seeds at a time; the number of cores when absent
    #[arg(long)]
    jobs: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What `simulate` prints; what is not named here is passed through.
#[derive(Serialize, Deserialize)]
struct Outcome {
    seed: u64,
    hash: String,
    violations: Vec<String>,
    accepted: u64,
    delivered: u64,
    redelivered: u64,
    refused: u64,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

/// Runs the seeds; an error when one of them is not good.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let binary = build()?;
    let start = Instant::now();
    let next = AtomicU64::new(options.from);
    let outcomes = Mutex::new(Vec::new());
    let jobs = options.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= options.from + options.seeds {
                        break;
                    }
                    let outcome = run_twice(&binary, seed);
                    tell(options, seed, &outcome);
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
                }
            });
        }
    });
    summarise(options, &outcomes.into_inner().unwrap_or_else(PoisonError::into_inner), start)
}

fn build() -> anyhow::Result<PathBuf> {
    let root = crate::generate::root();
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--profile", "sim", "--package", "testkit", "--bin", "simulate"])
        .current_dir(&root)
        .status()?;
    ensure!(status.success(), "the simulation did not build");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("sim/simulate"))
}

fn run_twice(binary: &Path, seed: u64) -> anyhow::Result<Outcome> {
    let mut first = run_once(binary, seed)?;
    let second = run_once(binary, seed)?;
    if first.hash != second.hash {
        first.violations.push(format!("two runs differ: {} and {}", first.hash, second.hash));
    }
    Ok(first)
}

fn run_once(binary: &Path, seed: u64) -> anyhow::Result<Outcome> {
    let mut command = Command::new(binary);
    command.arg(seed.to_string()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (stdout, stderr) = (read(child.stdout.take()), read(child.stderr.take()));
    let in_time = bounded::wait(&mut child, SEED_BOUND)?.is_some();
    if !in_time {
        child.kill()?;
        child.wait()?;
    }
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    ensure!(in_time, "it did not end in {}s; it said: {}", SEED_BOUND.as_secs(), last_lines(&stderr));
    let text = String::from_utf8_lossy(&stdout);
    let line = text.lines().next_back().filter(|line| line.starts_with('{'));
    let line = line.with_context(|| format!("no outcome; it said: {}", last_lines(&stderr)))?;
    serde_json::from_str(line).context("the outcome does not parse")
}

fn read(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What it has said so far is what counts.
        let _ = from.map(|mut from| from.read_to_end(&mut bytes));
        bytes
    })
}

fn last_lines(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(6)..].join(" | ")
}

fn tell(options: &Options, seed: u64, outcome: &anyhow::Result<Outcome>) {
    match (options.format, outcome) {
        (Format::Json, Ok(outcome)) => match serde_json::to_string(outcome) {
            Ok(line) => println!("{line}"),
            Err(error) => eprintln!("seed {seed}: {error}"),
        },
        (Format::Json, Err(error)) => {
            println!("{}", serde_json::json!({"seed": seed, "violations": [format!("{error:#}")]}))
        }
        (Format::Text, Ok(outcome)) if outcome.violations.is_empty() => {}
        (Format::Text, outcome) => {
            println!(
                "seed {seed} fails; repeat it with: cargo run --profile sim -p testkit --bin simulate -- {seed} --logs info"
            );
            match outcome {
                Ok(outcome) => outcome.violations.iter().take(5).for_each(|violation| println!("    {violation}")),
                Err(error) => println!("    {error:#}"),
            }
        }
    }
}

fn summarise(options: &Options, outcomes: &[anyhow::Result<Outcome>], start: Instant) -> anyhow::Result<()> {
    let good: Vec<_> = outcomes.iter().flatten().filter(|outcome| outcome.violations.is_empty()).collect();
    let failed = outcomes.len() - good.len();
    if options.format == Format::Text {
        let sum = |figure: fn(&Outcome) -> u64| good.iter().map(|outcome| figure(outcome)).sum::<u64>();
        println!(
            "{} seeds in {:.0}s, each twice: {} good, {failed} failed; {} orders accepted, {} refusals, {} messages delivered, {} of them again",
            outcomes.len(),
            start.elapsed().as_secs_f64(),
            good.len(),
            sum(|o| o.accepted),
            sum(|o| o.refused),
            sum(|o| o.delivered),
            sum(|o| o.redelivered),
        );
    }
    if failed > 0 {
        bail!("{failed} of {} seeds failed", outcomes.len());
    }
    Ok(())
}
