//! All tests of the workspace: built first, then each binary run under a bound, then the examples in the documentation.
//!
//! A test that waits for ever costs its own binary's bound and is named; it does not cost the run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use serde::Deserialize;

use super::{BUILD_BOUND, Clock, Count, cargo, seconds};
use crate::bounded::{self, Ended};

/// How long one test binary may run. The slowest, which run whole meshes of processes, take two minutes on two cores.
const BINARY_BOUND: Duration = Duration::from_secs(10 * 60);
/// How long a test binary may take to list its tests.
const LIST_BOUND: Duration = Duration::from_secs(60);

/// A test binary.
#[derive(Debug, PartialEq, Eq)]
struct Binary {
    /// As `cargo test` would name it: `broker`, `broker::integration`.
    name: String,
    executable: PathBuf,
    /// Where cargo runs it.
    folder: PathBuf,
}

/// A line of `cargo test --message-format=json` (the cargo book, external tools); what is not an artifact has no such fields.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Builds and runs them.
pub fn run(clock: &Clock) -> anyhow::Result<Count> {
    let Some(binaries) = build(clock)? else { return Ok(Count::failed("the tests did not build")) };
    let mut total = Count::default();
    let mut rows = Vec::new();
    for binary in &binaries {
        let (count, elapsed) = run_binary(binary, clock)?;
        rows.push(row(&binary.name, &count, elapsed));
        total.add(count);
    }
    let (examples, elapsed) = doc_tests(clock)?;
    rows.push(row("documentation", &examples, elapsed));
    total.add(examples);
    println!("\n{}", rows.join("\n"));
    Ok(total)
}

fn row(name: &str, count: &Count, elapsed: Duration) -> String {
    format!("{name:<24} {:>4} passed {:>3} failed {:>8}", count.passed, count.failures.len(), seconds(elapsed))
}

fn build(clock: &Clock) -> anyhow::Result<Option<Vec<Binary>>> {
    let mut command = cargo(&["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
    let mut binaries = Vec::new();
    let ended = bounded::run(&mut command, clock.bound(BUILD_BOUND), |line| binaries.extend(binary(&line)))?;
    ensure!(!ended.is_good() || !binaries.is_empty(), "cargo named no test binary");
    binaries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(ended.is_good().then_some(binaries))
}

fn binary(line: &str) -> Option<Binary> {
    let message: Message = serde_json::from_str(line).ok()?;
    let target = message.target.filter(|_| message.profile.is_some_and(|profile| profile.test))?;
    let folder = message.manifest_path?.parent()?.to_owned();
    let crate_name = folder.file_name()?.to_str()?;
    let name = match target.kind.first()?.as_str() {
        "lib" => crate_name.to_owned(),
        "bin" => format!("{crate_name}::main"),
        _ => format!("{crate_name}::{}", target.name),
    };
    Some(Binary { name, executable: message.executable?, folder })
}

fn run_binary(binary: &Binary, clock: &Clock) -> anyhow::Result<(Count, Duration)> {
    println!("\n--- {}", binary.name);
    let mut progress = Progress::of(list(binary)?);
    let mut command = Command::new(&binary.executable);
    command.current_dir(&binary.folder).env("CARGO", env!("CARGO")).env("CARGO_MANIFEST_DIR", &binary.folder);
    let bound = clock.bound(BINARY_BOUND);
    let ended = bounded::run(&mut command, bound, |line| {
        println!("{line}");
        progress.take(&line);
    })?;
    Ok((progress.count(&binary.name, &ended, bound), ended.elapsed))
}

fn list(binary: &Binary) -> anyhow::Result<Vec<String>> {
    let mut tests = Vec::new();
    let mut command = Command::new(&binary.executable);
    command.current_dir(&binary.folder).args(["--list", "--format", "terse"]);
    let ended = bounded::run(&mut command, LIST_BOUND, |line| {
        tests.extend(line.strip_suffix(": test").map(str::to_owned));
    })?;
    ensure!(ended.is_good(), "{} does not list its tests", binary.name);
    Ok(tests)
}

fn doc_tests(clock: &Clock) -> anyhow::Result<(Count, Duration)> {
    println!("\n--- documentation");
    let mut progress = Progress::default();
    let bound = clock.bound(BUILD_BOUND);
    let ended =
        bounded::run(&mut cargo(&["test", "--workspace", "--doc", "--no-fail-fast", "--quiet"]), bound, |line| {
            println!("{line}");
            progress.take(&line);
        })?;
    Ok((progress.count("documentation", &ended, bound), ended.elapsed))
}

/// What a test binary's output has told so far.
#[derive(Default)]
struct Progress {
    /// Each test, in the order in which they begin; none where it has not ended.
    verdicts: BTreeMap<String, Option<bool>>,
    /// As its result lines say.
    passed: u64,
}

impl Progress {
    fn of(tests: Vec<String>) -> Self {
        Self { verdicts: tests.into_iter().map(|test| (test, None)).collect(), ..Self::default() }
    }

    fn take(&mut self, line: &str) {
        if let Some((passed, _)) = result_line(line) {
            self.passed += passed;
        } else if let Some((test, good)) = test_line(line) {
            self.verdicts.insert(test.to_owned(), Some(good));
        }
    }

    fn count(&self, binary: &str, ended: &Ended, bound: Duration) -> Count {
        let bad = self.verdicts.iter().filter(|(_, verdict)| **verdict == Some(false));
        let mut failures: Vec<String> = bad.map(|(test, _)| format!("{binary}: {test}")).collect();
        if ended.status.is_none() {
            let running = std::thread::available_parallelism().map_or(1, usize::from);
            // Tests begin in the order of their names, so many at a time.
            let open: Vec<&str> =
                self.verdicts.iter().filter(|(_, v)| v.is_none()).map(|(test, _)| test.as_str()).collect();
            let (running, waiting) = open.split_at(running.min(open.len()));
            failures.push(format!(
                "{binary}: ended after {}; still running: {}; {} had not begun",
                seconds(bound),
                if running.is_empty() { "no test".to_owned() } else { running.join(", ") },
                waiting.len()
            ));
        } else if !ended.is_good() && failures.is_empty() {
            failures.push(format!("{binary}: {}", ended.status.unwrap_or_default()));
        }
        failures.extend(ended.left.iter().map(|process| format!("{binary}: it left running: {process}")));
        // A binary that was ended has told no sum.
        let ended_well = self.verdicts.values().filter(|verdict| **verdict == Some(true)).count() as u64;
        Count { passed: self.passed.max(ended_well), failures }
    }
}

/// `test result: ok. 14 passed; 0 failed; …`
fn result_line(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut figures = rest.split("; ").filter_map(|part| part.split_once(' ')?.0.parse().ok());
    Some((figures.next()?, figures.next()?))
}

/// `test queues::one … ok`; an ignored test is as good as one that passed.
fn test_line(line: &str) -> Option<(&str, bool)> {
    let (test, verdict) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let test = test.split_once(" - should panic").map_or(test, |(test, _)| test);
    Some((test, !verdict.starts_with("FAILED")))
}

#[cfg(test)]
mod unit {
    use super::*;

    const BOUND: Duration = Duration::from_secs(600);

    fn count(lines: &[&str], status: Option<i32>) -> Count {
        use std::os::unix::process::ExitStatusExt as _;
        let mut progress = Progress::of(["a::one", "a::two", "b::three"].map(str::to_owned).into());
        lines.iter().for_each(|line| progress.take(line));
        let status = status.map(|code| std::process::ExitStatus::from_raw(code << 8));
        progress.count("broker", &Ended { status, left: Vec::new(), elapsed: Duration::ZERO }, BOUND)
    }

    #[test]
    fn a_binary_s_output_is_counted() {
        let good = count(&["test a::one ... ok", "test result: ok. 3 passed; 0 failed; 0 ignored"], Some(0));
        assert_eq!((good.passed, good.failures.len()), (3, 0));
        let bad =
            ["test a::two ... FAILED", "test a::one ... ok", "test result: FAILED. 2 passed; 1 failed; 0 ignored"];
        assert_eq!(count(&bad, Some(101)).failures, ["broker: a::two"]);
        let died = count(&["test a::two ... ok"], Some(3));
        assert_eq!((died.passed, died.failures.len()), (1, 1));
    }

    #[test]
    fn a_binary_that_was_ended_names_what_was_running() {
        let hung = count(&["test a::one ... ok", "test b::three ... ok"], None);
        assert_eq!(hung.failures, ["broker: ended after 600.0s; still running: a::two; 0 had not begun"]);
    }

    #[test]
    fn test_binaries_are_read_from_what_cargo_says() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/m/broker/Cargo.toml","executable":"/m/target/debug/deps/integration-1",
            "target":{"kind":["test"],"name":"integration"},"profile":{"test":true}}"#;
        let expected = Binary {
            name: "broker::integration".to_owned(),
            executable: "/m/target/debug/deps/integration-1".into(),
            folder: "/m/broker".into(),
        };
        assert_eq!(binary(&line.replace('\n', "")), Some(expected));
        assert_eq!(binary(&line.replace("true", "false").replace('\n', "")), None);
        assert_eq!(binary(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
