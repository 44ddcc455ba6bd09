//! The report as people read it.

use std::fmt::Write as _;

use super::latency::Latency;
use super::picture::number;
use super::report::{Fault, Report};
use crate::terminal::{BAD, FAINT, GOOD, STRONG, paint};

/// The whole page; `picture` is the drawing of the graph.
#[must_use]
pub fn page(report: &Report, picture: &str) -> String {
    let mut page = format!("\n{}\n\n", paint(STRONG, "The shop's orders"));
    for (name, value, more) in figures(report) {
        let more = if more.is_empty() { more } else { format!("   {}", paint(FAINT, &more)) };
        let _ = writeln!(page, "  {name:<12} {value:>7}{more}");
    }
    if !report.faults.is_empty() {
        let _ = writeln!(page, "\n{}\n", paint(STRONG, "What each fault cost"));
        report.faults.iter().for_each(|fault| page += &cost(fault));
    }
    let legend = "─ calls and waits   ═ sends messages   [queue or topic]";
    let _ = writeln!(
        page,
        "\n{}   {}\n",
        paint(STRONG, "The declared graph, and what was seen on it"),
        paint(FAINT, legend)
    );
    page += picture;
    page + &verdict(report)
}

fn figures(report: &Report) -> Vec<(&'static str, String, String)> {
    let orders = &report.orders;
    let when = |count: u64, text: String| if count > 0 { text } else { String::new() };
    let refusals: Vec<String> =
        orders.refusals.iter().map(|(why, count)| format!("{why}: {}", number(*count))).collect();
    let duplicates = report.duplicates.map_or_else(|| "?".to_owned(), |duplicates| number(duplicates.total()));
    let kinds = report.duplicates.map_or_else(
        || "the ledgers could not be read".to_owned(),
        |duplicates| {
            let charges = duplicates.charges.map_or_else(|| "unknown".to_owned(), number);
            format!("shipments {}, notifications {}, charges {charges}", duplicates.shipments, duplicates.notifications)
        },
    );
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    vec![
        ("placed", number(orders.placed), format!("in {:.1} s", seconds(report.stream_ms))),
        (
            "accepted",
            number(orders.accepted),
            when(orders.accepted_later, format!("{} of them when asked again", number(orders.accepted_later))),
        ),
        ("refused", number(orders.refused), refusals.join("; ")),
        (
            "completed",
            number(orders.completed),
            format!("shipped and notified, {:.1} s after the last order", seconds(report.settle_ms)),
        ),
        ("lost", number(orders.lost), orders.lost_orders.join(", ")),
        ("duplicates", duplicates, kinds),
        ("latency", p50(report.latency), spread(report.latency, report.latency_calm)),
        (
            "messages",
            number(report.messages.deliveries),
            format!(
                "delivered, {} of them again; the applications saw {} that brought nothing new",
                number(report.messages.redeliveries),
                number(report.repeats_seen)
            ),
        ),
        (
            "retries",
            number(report.mesh_retries),
            format!("by the mesh, unseen by customers, who asked again {}", times(report.customer_retries)),
        ),
    ]
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{} times", number(count)) }
}

fn p50(latency: Option<Latency>) -> String {
    latency.map_or_else(|| "–".to_owned(), |latency| format!("{:.1} ms", latency.p50_ms))
}

fn spread(latency: Option<Latency>, calm: Option<Latency>) -> String {
    let Some(latency) = latency else { return String::new() };
    let calm = calm.map(|calm| format!(" (without faults p50 {:.1} ms, p99 {:.1} ms)", calm.p50_ms, calm.p99_ms));
    format!("p50; p99 {:.1} ms, slowest {:.1} ms{}", latency.p99_ms, latency.max_ms, calm.unwrap_or_default())
}

fn cost(fault: &Fault) -> String {
    let back = fault
        .back_after_ms
        .map_or_else(|| paint(BAD, "did not come back"), |ms| format!("back after {:.1} s", ms as f64 / 1_000.0));
    let mut text = format!("  {}: {back}\n", paint(STRONG, &fault.what));
    let felt = fault
        .felt_for_ms
        .map(|ms| format!(", the last {:.1} s after the kill", ms as f64 / 1_000.0))
        .unwrap_or_default();
    let again = match (fault.asked_again, fault.given_up) {
        (0, 0) => "all had their answer at the first request".to_owned(),
        (again, 0) => format!("{} asked again{felt}", number(again)),
        (again, given_up) => format!("{} asked again{felt}; {} given up", number(again), number(given_up)),
    };
    let _ = writeln!(text, "    orders under way {:>6}   {}", number(fault.orders), paint(FAINT, &again));
    if let Some(latency) = fault.latency {
        let added =
            fault.added_p99_ms.map(|added| format!(", {added:.1} ms more than without faults")).unwrap_or_default();
        let spread = format!("p99 {:.1} ms{added}", latency.p99_ms);
        let _ =
            writeln!(text, "    p50        {:>12}   {}", format!("{:.1} ms", latency.p50_ms), paint(FAINT, &spread));
    }
    let unseen = format!("by the mesh; {} delivered again", number(fault.redeliveries));
    let _ = writeln!(text, "    retries    {:>12}   {}", number(fault.mesh_retries), paint(FAINT, &unseen));
    for (why, count) in &fault.errors {
        let _ = writeln!(text, "    answers    {:>12}   {}", number(*count), paint(FAINT, why));
    }
    text
}

fn verdict(report: &Report) -> String {
    let text = match report.holds {
        true => paint(GOOD, "✓ Every order that was accepted was shipped and notified, once each."),
        false => paint(BAD, &format!("✗ {}", broken(report))),
    };
    format!("\n{text}\n")
}

fn broken(report: &Report) -> String {
    let Report { orders, duplicates, .. } = report;
    match duplicates {
        None => "The ledgers could not be read.".to_owned(),
        Some(_) if orders.accepted == 0 => "No order was accepted.".to_owned(),
        Some(_) if orders.lost > 0 => format!("{} accepted orders were not shipped and notified.", number(orders.lost)),
        Some(duplicates) if duplicates.total() > 0 => {
            format!("{} effects happened more than once.", number(duplicates.total()))
        }
        Some(_) => "It is not known whether a customer was charged twice: payments did not answer.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::recorded;
    use super::super::settle::Missing;
    use super::*;

    fn text(report: &Report) -> String {
        anstream::adapter::strip_str(&page(report, "  a ─── 1 ─▶ b\n")).to_string()
    }

    #[test]
    fn the_page_says_what_became_of_the_orders() {
        let text = text(&Report::of(&recorded()));
        for line in [
            "  placed             4   in 5.0 s",
            "  accepted           2   1 of them when asked again",
            "  refused            2   409 not enough in stock: 1; 503 No live instance: 1",
            "  lost               0",
            "  duplicates         0   shipments 0, notifications 0, charges 0",
            "  the broker killed with -9: back after 1.3 s",
            "    orders under way      2   1 asked again, the last 1.8 s after the kill; 1 given up",
            "    answers               2   503 No live instance",
            "  a ─── 1 ─▶ b",
            "✓ Every order that was accepted was shipped and notified, once each.",
        ] {
            assert!(text.lines().any(|other| other.trim_end() == line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_run_that_does_not_hold_says_why() {
        let mut lost = recorded();
        lost.settled.ledgers.as_mut().unwrap().unshipped = Missing { count: 1, first: vec!["ord-7".into()] };
        let text = text(&Report::of(&lost));
        assert!(text.contains("✗ 1 accepted orders were not shipped and notified."), "{text}");
        assert!(text.lines().any(|line| line.trim_end() == "  lost               1   ord-7"), "{text}");
    }
}
