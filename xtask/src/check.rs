//! `cargo xtask test`: everything that must hold before a change lands, in the order in which it fails fastest.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

/// Seeds of the simulation that every change runs.
const SEEDS: &str = "50";

/// Which steps are run.
#[derive(Args)]
pub struct Options {
    /// Only this step
    #[arg(long, value_enum)]
    only: Option<Step>,
}

/// A step.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Step {
    /// The code is formatted
    Fmt,
    /// The generated code is what the contracts say
    Gen,
    /// The floors, and the size of files and functions
    Tidy,
    /// No warning of the compiler or of clippy
    Clippy,
    /// All tests
    Tests,
    /// The documentation builds without warnings
    Doc,
    /// Seeds of the simulation
    Sim,
}

const STEPS: [Step; 7] = [Step::Fmt, Step::Gen, Step::Tidy, Step::Clippy, Step::Tests, Step::Doc, Step::Sim];

/// What a step gave.
#[derive(Default)]
struct Count {
    passed: u64,
    failed: u64,
}

/// Runs the steps; all of them, also after one has failed, so that one run tells everything.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let steps: Vec<Step> = STEPS.into_iter().filter(|step| options.only.is_none_or(|only| only == *step)).collect();
    let mut total = Count::default();
    let mut rows = Vec::new();
    for step in steps {
        println!("\n=== {step:?}");
        let start = Instant::now();
        let count = run_step(step)?;
        rows.push((step, count.failed == 0, start.elapsed()));
        total.passed += count.passed;
        total.failed += count.failed;
    }
    println!();
    for (step, good, elapsed) in rows {
        println!("{:<8} {:<7} {}", format!("{step:?}"), if good { "good" } else { "FAILED" }, seconds(elapsed));
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 {
        bail!("not everything holds");
    }
    Ok(())
}

fn run_step(step: Step) -> anyhow::Result<Count> {
    match step {
        Step::Fmt => cargo(&["fmt", "--all", "--check"], &[]),
        Step::Gen => Ok(outcome(crate::generate::run(true))),
        Step::Tidy => Ok(outcome(crate::tidy::run())),
        Step::Clippy => cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"], &[]),
        Step::Tests => tests(),
        Step::Doc => cargo(&["doc", "--workspace", "--no-deps", "--quiet"], &[("RUSTDOCFLAGS", "-D warnings")]),
        Step::Sim => cargo(&["xtask", "sim", "--seeds", SEEDS], &[]),
    }
}

fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Count> {
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(crate::generate::root())
        .status()
        .with_context(|| format!("cargo {arguments:?}"))?;
    Ok(one(status.success()))
}

/// Runs `cargo test` and counts what its result lines say.
fn tests() -> anyhow::Result<Count> {
    use std::io::{BufRead as _, BufReader};
    let mut child = Command::new(env!("CARGO"))
        .args(["test", "--workspace", "--no-fail-fast"])
        .current_dir(crate::generate::root())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut count = Count::default();
    let stdout = child.stdout.take().context("the tests' output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        if let Some((passed, failed)) = result_line(&line) {
            count.passed += passed;
            count.failed += failed;
        }
        println!("{line}");
    }
    if !child.wait()?.success() && count.failed == 0 {
        // It did not even build, or a test binary died.
        count.failed += 1;
    }
    Ok(count)
}

/// `test result: ok. 14 passed; 0 failed; …`
fn result_line(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut figures = rest.split("; ").filter_map(|part| part.split_once(' ')?.0.parse().ok());
    Some((figures.next()?, figures.next()?))
}

fn outcome(result: anyhow::Result<()>) -> Count {
    if let Err(error) = &result {
        println!("{error:#}");
    }
    one(result.is_ok())
}

fn one(good: bool) -> Count {
    Count { passed: u64::from(good), failed: u64::from(!good) }
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.1}s", elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted() {
        assert_eq!(result_line("test result: ok. 14 passed; 0 failed; 0 ignored; 0 measured"), Some((14, 0)));
        assert_eq!(result_line("test result: FAILED. 3 passed; 2 failed; 0 ignored"), Some((3, 2)));
        assert_eq!(result_line("running 3 tests"), None);
    }
}
