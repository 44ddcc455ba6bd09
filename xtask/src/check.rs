//! `cargo xtask test`: everything that must hold before a change lands, in the order in which it fails fastest.
//!
//! Each step has a bound and is ended at it with all that it has started, and the whole run has one: it always tells what it found.

mod tests;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use crate::bounded;

/// Seeds of the simulation that every change runs.
const SEEDS: &str = "50";
/// How long a step that builds may take from nothing.
const BUILD_BOUND: Duration = Duration::from_secs(40 * 60);
/// How long a step that only looks at files may take.
const LOOK_BOUND: Duration = Duration::from_secs(5 * 60);
/// How long the whole run may take; warm, on two cores, it takes less than a quarter of an hour.
const RUN_BOUND: Duration = Duration::from_secs(80 * 60);
/// A step that begins when the run's time is over still gets this much.
const STEP_MIN: Duration = Duration::from_secs(30);

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
    /// The floors, unused dependencies, and the size of files and functions
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
    /// What failed, by name.
    failures: Vec<String>,
}

impl Count {
    fn failed(what: impl Into<String>) -> Self {
        Self { passed: 0, failures: vec![what.into()] }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
    }
}

/// The time of the whole run.
struct Clock(Instant);

impl Clock {
    /// A step's own bound, or what is left of the run's.
    fn bound(&self, own: Duration) -> Duration {
        own.min(RUN_BOUND.saturating_sub(self.0.elapsed()).max(STEP_MIN))
    }
}

/// Runs the steps; all of them, also after one has failed, so that one run tells everything.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let steps: Vec<Step> = STEPS.into_iter().filter(|step| options.only.is_none_or(|only| only == *step)).collect();
    let clock = Clock(Instant::now());
    let mut total = Count::default();
    let mut rows = Vec::new();
    for step in steps {
        println!("\n=== {step:?}");
        let start = Instant::now();
        let count = run_step(step, &clock).unwrap_or_else(|error| Count::failed(format!("{step:?}: {error:#}")));
        rows.push((step, count.failures.is_empty(), start.elapsed()));
        total.add(count);
    }
    println!();
    for (step, good, elapsed) in rows {
        println!("{:<8} {:<7} {}", format!("{step:?}"), if good { "good" } else { "FAILED" }, seconds(elapsed));
    }
    for failure in &total.failures {
        println!("FAILED   {failure}");
    }
    println!("{} passed, {} failed, {}", total.passed, total.failures.len(), seconds(clock.0.elapsed()));
    if !total.failures.is_empty() {
        bail!("not everything holds");
    }
    Ok(())
}

fn run_step(step: Step, clock: &Clock) -> anyhow::Result<Count> {
    let (mut command, bound) = match step {
        Step::Fmt => (cargo(&["fmt", "--all", "--check"]), LOOK_BOUND),
        Step::Gen => (xtask(&["gen", "--check"])?, LOOK_BOUND),
        Step::Tidy => (xtask(&["tidy"])?, LOOK_BOUND),
        Step::Clippy => {
            (cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]), BUILD_BOUND)
        }
        Step::Tests => return tests::run(clock),
        Step::Doc => {
            let mut command = cargo(&["doc", "--workspace", "--no-deps", "--quiet"]);
            command.env("RUSTDOCFLAGS", "-D warnings");
            (command, BUILD_BOUND)
        }
        Step::Sim => (xtask(&["sim", "--seeds", SEEDS])?, BUILD_BOUND),
    };
    let bound = clock.bound(bound);
    let ended = bounded::run(&mut command, bound, |line| println!("{line}"))?;
    Ok(match ended.status {
        Some(status) if status.success() => Count { passed: 1, failures: Vec::new() },
        Some(_) => Count::failed(format!("{step:?}")),
        None => Count::failed(format!("{step:?}: ended after {}", seconds(bound))),
    })
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(crate::generate::root());
    command
}

/// Another command of this program, in a process that can be ended.
fn xtask(arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("this program")?);
    command.args(arguments).current_dir(crate::generate::root());
    Ok(command)
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.1}s", elapsed.as_secs_f64())
}
