//! What `apply` and `rollback` have in common: a new revision is published in the place of the one that was looked at, and waited for.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use model::config::Change;
use serde_json::json;

use super::convergence::{self, Convergence, list};
use super::{Format, changes as shown};
use crate::operator::{self, Operator, Preview};
use crate::terminal::{self, BAD, GOOD, PENDING, STRONG};

/// How long is waited, and how it is told.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Arguments {
    /// Do not wait until the roles run on it
    #[arg(long)]
    no_wait: bool,
    /// How long the roles may take
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = model::unit::duration)]
    timeout: Duration,
    /// Lines for people, or one JSON object
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    format: Format,
}

/// Publishes by `publish`, which is given the revision to replace, what was looked at as `preview`.
pub(super) async fn publish<F>(
    arguments: &Arguments,
    operator: &Operator,
    preview: Preview,
    publish: impl FnOnce(u64) -> F,
) -> anyhow::Result<ExitCode>
where
    F: Future<Output = Result<u64, operator::Error>>,
{
    let Preview { from, changes } = preview;
    let text = arguments.format == Format::Text;
    if text {
        say(&changed(from, &changes));
    }
    // Also where nothing differs: then the control plane answers with the revision in force, if that is still this one.
    let revision = publish(from).await?;
    if text && revision != from {
        say(&format!("{} is in force", terminal::paint(STRONG, &format!("revision {revision}"))));
    }
    let found = match arguments.no_wait {
        true => None,
        false => Some(convergence::wait(operator, revision, arguments.timeout, text).await?),
    };
    match (arguments.format, &found) {
        (Format::Json, _) => say(&document(from, revision, &changes, found.as_ref()).to_string()),
        (Format::Text, Some(found)) => lines(found, arguments.timeout).iter().for_each(|line| say(line)),
        (Format::Text, None) => {}
    }
    Ok(if found.is_none_or(|found| found.is_whole()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn changed(from: u64, changes: &[Change]) -> String {
    match changes.is_empty() {
        true => format!("nothing differs from revision {from}"),
        false => format!("changes of revision {from}:\n{}", shown::lines(changes).join("\n")),
    }
}

fn lines(found: &Convergence, bound: Duration) -> Vec<String> {
    let mut lines = Vec::new();
    for (instance, why) in &found.rejected {
        lines.push(format!("{} {instance} rejected it, and runs on as it was: {why}", terminal::paint(BAD, "error:")));
    }
    if !found.waiting.is_empty() {
        let time = model::unit::write_duration(bound);
        let waiting = list(&found.waiting);
        lines.push(format!(
            "{} after {time} these have not taken it up: {waiting}",
            terminal::paint(PENDING, "waiting:")
        ));
    }
    if found.is_whole() {
        let roles = match found.converged.len() {
            0 => "no role is connected yet".to_owned(),
            1 => "1 role runs on it".to_owned(),
            number => format!("{number} roles run on it"),
        };
        lines.push(terminal::paint(GOOD, &roles));
    }
    lines
}

fn document(from: u64, revision: u64, changes: &[Change], found: Option<&Convergence>) -> serde_json::Value {
    let rejected = |found: &Convergence| -> Vec<_> {
        found.rejected.iter().map(|(instance, why)| json!({"instance": instance, "why": why})).collect()
    };
    json!({
        "from": from,
        "revision": revision,
        "changes": changes,
        "converged": found.map(|found| &found.converged),
        "waiting": found.map(|found| &found.waiting),
        "rejected": found.map(rejected),
    })
}

/// Writes a line to standard output. A reader that has gone, as in `meshwork apply … | head`, stops nothing.
pub(super) fn say(line: &str) {
    let mut out = anstream::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
