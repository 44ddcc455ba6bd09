//! What must be true at the end of a soak, and its report.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::KINDS;
use super::fault::Kind;
use super::journal::Handled;
use super::load::Acknowledged;

/// How many sentences of one sort are shown.
const SHOWN_MAX: usize = 10;

/// What a soak has found.
pub struct Findings {
    /// Messages that the broker acknowledged.
    pub accepted: usize,
    /// Times that a message was handled.
    pub handled: usize,
    /// Calls through the gateway.
    pub calls: u64,
    /// Of these, those that failed.
    pub failed_calls: u64,
    /// Answers that were no success.
    pub refused: u64,
    /// Whether all that was accepted was handled in time.
    pub drained: bool,
    /// Violations that were seen on the way.
    pub while_running: Vec<String>,
    /// Violations that the checker found.
    pub at_the_end: Vec<String>,
    /// From each fault's end until everything worked.
    pub recoveries: Vec<(Kind, Duration)>,
    /// Each role's resident memory in MiB and open files, at the end.
    pub sizes: Vec<(String, f64, usize)>,
    /// The faults, in order.
    pub faults: Vec<Kind>,
    /// How long it ran.
    pub elapsed: Duration,
    /// How long the mesh took to end, or how it did not.
    pub stopped: Result<Duration, String>,
}

impl Findings {
    /// How many violations there are.
    pub fn violations(&self) -> usize {
        self.while_running.len() + self.at_the_end.len() + usize::from(self.stopped.is_err())
    }

    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.violations() == 0 && self.drained
    }

    /// Prints the report.
    pub fn tell(&self) {
        println!(
            "\n{}s: {} messages accepted and handled {} times, {} calls ({} failed), {} answers that were no success",
            self.elapsed.as_secs(),
            self.accepted,
            self.handled,
            self.calls,
            self.failed_calls,
            self.refused
        );
        println!("{:<20} {:>6} {:>22}", "fault", "times", "works again after");
        for kind in KINDS {
            let times = self.faults.iter().filter(|other| **other == kind).count();
            let waits: Vec<_> = self.recoveries.iter().filter(|(other, _)| *other == kind).map(|(_, w)| *w).collect();
            let longest = waits.iter().max().map_or_else(String::new, |w| format!("{:.1}s at most", w.as_secs_f64()));
            println!("{:<20} {times:>6} {longest:>22}", format!("{kind:?}"));
        }
        println!("{:<20} {:>10} {:>12}", "role", "memory", "open files");
        for (instance, mib, files) in &self.sizes {
            println!("{instance:<20} {mib:>6.1} MiB {files:>12}");
        }
        match &self.stopped {
            Ok(took) => println!("the mesh ended within {:.1}s", took.as_secs_f64()),
            Err(why) => println!("VIOLATION {why}"),
        }
        for violations in [&self.while_running, &self.at_the_end] {
            violations.iter().take(SHOWN_MAX).for_each(|violation| println!("VIOLATION {violation}"));
            if violations.len() > SHOWN_MAX {
                println!("… and {} more", violations.len() - SHOWN_MAX);
            }
        }
        println!("{}", if self.is_good() { "good" } else { "NOT good" });
    }
}

/// Messages that were acknowledged and never handled, positions that two messages have, and messages of one key that were handled
/// before one that stands in front of them.
pub fn lost_or_out_of_order(acknowledged: &BTreeMap<String, Acknowledged>, handled: &[Handled]) -> Vec<String> {
    let mut found = Vec::new();
    let done: BTreeSet<(&str, &str)> = handled.iter().map(|one| (one.part.as_str(), one.id.as_str())).collect();
    let mut positions: BTreeMap<u64, &str> = BTreeMap::new();
    let mut of_key: BTreeMap<u64, Vec<(u64, &str)>> = BTreeMap::new();
    for (id, Acknowledged { part, key, position }) in acknowledged {
        if !done.contains(&(*part, id.as_str())) {
            found.push(format!("{id} was acknowledged at position {position} and never handled"));
        }
        if let Some(other) = positions.insert(*position, id) {
            found.push(format!("{id} and {other} were both acknowledged at position {position}"));
        }
        if let Some(key) = key {
            of_key.entry(*key).or_default().push((*position, id));
        }
    }
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, one) in handled.iter().enumerate().filter(|(_, one)| one.part == "events") {
        first.entry(&one.id).or_insert(place);
    }
    for (key, mut messages) in of_key {
        messages.sort_unstable();
        for pair in messages.windows(2) {
            let [(_, before), (_, after)] = pair else { continue };
            if let (Some(one), Some(other)) = (first.get(before), first.get(after))
                && one > other
            {
                found.push(format!("key {key}: {after} was handled before {before}"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(id: &str, position: u64) -> (String, Acknowledged) {
        (id.to_owned(), Acknowledged { part: "events", key: Some(1), position })
    }

    fn handled(id: &str, at: u64) -> Handled {
        Handled { at: Duration::from_secs(at), part: "events".to_owned(), id: id.to_owned() }
    }

    #[test]
    fn the_checker_sees_what_it_is_for() {
        let both = BTreeMap::from([acknowledged("a", 1), acknowledged("b", 2)]);
        let check = |handled: &[Handled]| lost_or_out_of_order(&both, handled);
        assert_eq!(check(&[handled("a", 1), handled("b", 2), handled("a", 3)]), Vec::<String>::new());
        assert!(check(&[handled("b", 1), handled("a", 2)])[0].contains("b was handled before a"));
        assert!(check(&[handled("a", 1)])[0].contains("b was acknowledged at position 2 and never handled"));
        let same = BTreeMap::from([acknowledged("a", 1), acknowledged("b", 1)]);
        assert!(lost_or_out_of_order(&same, &[handled("a", 1), handled("b", 2)])[0].contains("both"));
    }
}
