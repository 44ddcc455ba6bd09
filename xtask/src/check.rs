//! `cargo xtask test`: everything that a change must pass, in one order, for people and for CI alike.
//!
//! Each step is a process of its own, and one that fails keeps nothing from the next, so that one run tells everything. The last
//! line counts the tests, and a step that failed without a failing test as one, so that `0 failed` means that all held.

mod counts;
mod steps;

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;

use counts::Counts;
pub use steps::Step;

/// What is run.
#[derive(Args)]
pub struct Options {
    /// Run only this step; may be given more than once
    #[arg(long, value_enum, value_name = "STEP")]
    only: Vec<Step>,
    /// Stop at the first step that fails
    #[arg(long)]
    fail_fast: bool,
}

/// How a step ended.
struct Outcome {
    step: Step,
    /// What was wrong, when something was.
    failure: Option<String>,
    took: Duration,
}

/// Runs the steps; an error when one of them failed.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let wanted = |step: &&Step| options.only.is_empty() || options.only.contains(step);
    let (mut outcomes, mut counts) = (Vec::new(), Counts::default());
    for step in Step::ALL.iter().filter(wanted) {
        println!("\n==> {}: {}", step.name(), step.about());
        let start = Instant::now();
        let before = counts;
        let failure = steps::run(*step, &mut counts).err().map(|error| format!("{error:#}"));
        let failed = failure.is_some();
        if failed && counts.failed == before.failed {
            counts.failed += 1;
        }
        outcomes.push(Outcome { step: *step, failure, took: start.elapsed() });
        if options.fail_fast && failed {
            break;
        }
    }
    println!("\n{}\n\n{counts}", summary(&outcomes));
    let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    if failed > 0 {
        bail!("{failed} of {} steps failed", outcomes.len());
    }
    Ok(())
}

fn summary(outcomes: &[Outcome]) -> String {
    let line = |outcome: &Outcome| {
        let (name, took) = (outcome.step.name(), outcome.took.as_secs_f64());
        let verdict = outcome.failure.as_deref().map_or("ok".to_owned(), |why| format!("FAILED: {why}"));
        format!("{name:<8} {took:>7.1} s  {verdict}")
    };
    outcomes.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_a_line_for_each_step() {
        let outcomes = [
            Outcome { step: Step::Fmt, failure: None, took: Duration::from_millis(1_250) },
            Outcome { step: Step::Tests, failure: Some("exit status: 101".to_owned()), took: Duration::from_secs(61) },
        ];
        let expected = "fmt          1.2 s  ok\ntests       61.0 s  FAILED: exit status: 101";
        assert_eq!(summary(&outcomes), expected);
    }
}
