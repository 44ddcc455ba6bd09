//! A running mesh for the eye: prefixed lines, and the table of instances.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use model::name::Name;

use super::event::{Event, State};
use super::instance::Report;
use crate::terminal::{self, BAD, FAINT, GOOD, PENDING, STRONG};

/// What stands before a line about the mesh as a whole.
const MESH: &str = "mesh";

/// Writes events as lines, each with the name of its instance before it.
#[derive(Debug, Clone, Copy)]
pub struct Prefixes {
    width: usize,
}

impl Prefixes {
    /// For these instances: all names take as much room as the longest.
    pub fn new<'a>(instances: impl IntoIterator<Item = &'a Name>) -> Self {
        Self { width: instances.into_iter().map(|name| name.as_str().len()).max().unwrap_or(0) }
    }

    /// One line of an instance.
    #[must_use]
    pub fn line(&self, instance: &Name, text: &str) -> String {
        let style = terminal::instance(instance.as_str());
        format!("{style}{:<width$} │{style:#} {text}", instance.as_str(), width = self.width)
    }

    /// An event; `None` for one that is not worth a line.
    #[must_use]
    pub fn event(&self, event: &Event) -> Option<String> {
        match event {
            Event::Line { instance, text } => Some(self.line(instance, text)),
            Event::State { instance, state } => Some(self.line(instance, &state_line(state)?)),
            Event::Mesh { text } => {
                let line = |text| format!("{:<width$} {STRONG}│{STRONG:#} {text}", MESH, width = self.width);
                Some(text.lines().map(line).collect::<Vec<_>>().join("\n"))
            }
            Event::Dropped { events } => {
                let text = format!("{events} lines are missing here: nobody read them in time");
                Some(format!("{:<width$} │ {}", "", terminal::paint(PENDING, &text), width = self.width))
            }
        }
    }
}

fn state_line(state: &State) -> Option<String> {
    Some(match state {
        State::Waiting | State::Starting | State::Stopping => return None,
        State::Ready => terminal::paint(GOOD, "ready"),
        State::Stopped => terminal::paint(FAINT, "stopped"),
        State::Killed => terminal::paint(BAD, "killed"),
        State::Restarting { why, after_ms } => {
            terminal::paint(PENDING, &format!("{why}; it is started again in {after_ms} ms"))
        }
        State::Failed { why } => terminal::paint(BAD, &format!("{why}; it is given up")),
    })
}

/// The table: service, instance, state, address.
#[must_use]
pub fn table(reports: &[Report], colours: bool) -> String {
    let rows = reports.iter().map(|report| {
        let state = report.state.word().to_owned();
        vec![report.label.clone(), report.instance.to_string(), state, address(&report.addresses)]
    });
    rows_table(&["service", "instance", STATE, "address"], rows, colours)
}

/// The column that has colours.
const STATE: &str = "state";

pub(crate) fn rows_table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>, colours: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    match colours {
        true => table.enforce_styling(),
        false => table.force_no_tty(),
    };
    table.set_header(header);
    for row in rows {
        let cells = row.into_iter().zip(header).map(|(text, name)| {
            let colour = (*name == STATE).then(|| colour(&text));
            let cell = Cell::new(text);
            match colour {
                Some(colour) => cell.fg(colour),
                None => cell,
            }
        });
        table.add_row(cells);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn colour(state: &str) -> Color {
    match state {
        "ready" => Color::Green,
        "failed" | "killed" | "ended" | "failing" | "suspended" => Color::Red,
        _ => Color::Yellow,
    }
}

/// Where a person reaches it: a gateway's door, the control plane's admin API, an application's port, the broker's status.
pub(crate) fn address(addresses: &BTreeMap<String, SocketAddr>) -> String {
    let door = ["gateway", "application", "admin", "status", "outbound"].iter().find_map(|name| addresses.get(*name));
    door.map(|address| format!("http://{address}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn names_stand_in_one_column() {
        let names = [name("orders-0"), name("gateway-public")];
        let prefixes = Prefixes::new(&names);
        let plain = |text: String| anstream::adapter::strip_str(&text).to_string();
        assert_eq!(plain(prefixes.line(&names[0], "good day")), "orders-0       │ good day");
        let state = State::Restarting { why: "it ended with exit code 1".to_owned(), after_ms: 200 };
        let line = prefixes.event(&Event::State { instance: names[1].clone(), state }).unwrap();
        assert_eq!(plain(line), "gateway-public │ it ended with exit code 1; it is started again in 200 ms");
        assert_eq!(prefixes.event(&Event::State { instance: names[0].clone(), state: State::Starting }), None);
    }

    #[test]
    fn the_table_says_where_each_instance_is() {
        let report = |label: &str, instance: &str, state, address: &str| Report {
            label: label.to_owned(),
            service: None,
            instance: name(instance),
            state,
            pid: None,
            starts: 1,
            addresses: BTreeMap::from([("gateway".to_owned(), address.parse::<SocketAddr>().unwrap())]),
        };
        let reports = [
            report("gateway public", "gateway-public", State::Ready, "127.0.0.1:8080"),
            report("orders", "orders-0", State::Starting, "127.0.0.1:8102"),
        ];
        let expected = "\
┌────────────────────────────────────────────────────────────────────┐
│ service          instance         state      address               │
╞════════════════════════════════════════════════════════════════════╡
│ gateway public   gateway-public   ready      http://127.0.0.1:8080 │
│ orders           orders-0         starting   http://127.0.0.1:8102 │
└────────────────────────────────────────────────────────────────────┘";
        assert_eq!(table(&reports, false), expected);
        assert!(table(&reports, true).contains("\u{1b}["));
    }
}
