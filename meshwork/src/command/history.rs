//! `meshwork history`: the revisions that the control plane keeps.

use std::process::ExitCode;

use comfy_table::{ContentArrangement, Table, presets};
use control::Kept;
use jiff::tz::TimeZone;
use serde_json::json;

use super::{Format, Outcome, admin};

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
    let operator = arguments.admin.find(None)?;
    admin::ask(async {
        let (kept, current) = (operator.kept().await?, operator.in_force().await?.revision);
        match arguments.format {
            Format::Json => println!("{}", json!({"current": current, "revisions": kept})),
            Format::Text => anstream::println!("{}", table(&kept, current, &TimeZone::system())),
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn table(kept: &[Kept], current: u64, zone: &TimeZone) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
    table.set_header(["revision", "published", "from", ""]);
    for revision in kept {
        let mark = if revision.revision == current { "in force" } else { "" };
        let note = revision.note.clone().unwrap_or_default();
        table.add_row([revision.revision.to_string(), published(revision, zone), note, mark.to_owned()]);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
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
        let text = table(&kept, 1, &TimeZone::UTC);
        let lines: Vec<&str> = text.lines().map(|line| line.trim_matches(['│', ' '])).collect();
        assert_eq!(lines[3], "1          1970-01-01 00:00:01 UTC   the mesh file at the start   in force");
        assert_eq!(lines[4], "2          cannot be read");
    }
}
