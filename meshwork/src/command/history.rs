//! `meshwork history`: the revisions that the control plane keeps.

use std::process::ExitCode;

use control::Kept;
use jiff::tz::TimeZone;
use serde_json::json;

use super::{Format, Outcome, admin};
use crate::terminal;
use crate::up::show;

const EXAMPLES: &str = "\
Examples:
  meshwork history
  meshwork history --format json | jq '.revisions[-1]'
  meshwork diff --revision 3      what has changed since, backwards

The last 64 revisions are kept. Exit code: 0, or 2 when there is no control plane.";

/// List the kept revisions of a running mesh: when each was published, and from what
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// A table, or one JSON object
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    format: Format,
    #[command(flatten)]
    admin: admin::Arguments,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let operator = arguments.admin.find(None, None)?;
    admin::ask(async {
        let (kept, current) = (operator.kept().await?, operator.in_force().await?);
        match arguments.format {
            Format::Json => println!("{}", json!({"current": current, "revisions": kept})),
            Format::Text => {
                anstream::println!("{}", table(&kept, current, &TimeZone::system(), terminal::colours_out()))
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn table(kept: &[Kept], current: u64, zone: &TimeZone, colours: bool) -> String {
    let rows = kept.iter().map(|revision| {
        let mark = if revision.revision == current { "in force" } else { "" };
        let note = revision.note.clone().unwrap_or_default();
        vec![revision.revision.to_string(), published(revision, zone), note, mark.to_owned()]
    });
    show::rows_table(&["revision", "published", "from", ""], rows, colours)
}

fn published(revision: &Kept, zone: &TimeZone) -> String {
    let at = revision.published_ms.and_then(|ms| jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok());
    at.map_or_else(|| "cannot be read".to_owned(), |at| at.to_zoned(zone.clone()).strftime("%F %T %Z").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_in_force_is_marked() {
        let kept = [
            Kept { revision: 1, published_ms: Some(1_000), note: Some("the mesh file at the start".to_owned()) },
            Kept { revision: 2, published_ms: None, note: None },
        ];
        let text = table(&kept, 1, &TimeZone::UTC, false);
        let lines: Vec<&str> = text.lines().map(|line| line.trim_matches(['│', ' '])).collect();
        assert_eq!(lines[3], "1          1970-01-01 00:00:01 UTC   the mesh file at the start   in force");
        assert_eq!(lines[4], "2          cannot be read");
    }
}
