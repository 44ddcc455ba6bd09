//! The report: from what was recorded to what it comes to. Pure, so that its arithmetic is tested without a mesh; how it looks is
//! left to `page`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::faults::Happened;
use super::latency::{Latency, Window};
use super::observe::{Delivered, Observed};
use super::orders::{Outcome, Placed};
use super::picture::Edge;
use super::settle::{Duplicates, Ledgers, Settled};

/// Lost orders that are named; the count beside them is of all.
const NAMED_MAX: usize = 20;

/// What a run of the demo comes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Every order that was accepted was shipped and notified, once.
    pub holds: bool,
    /// From the first order to the last answer.
    pub stream_ms: u64,
    /// From the last answer until everything was shipped and notified.
    pub settle_ms: u64,
    /// The orders.
    pub orders: Orders,
    /// Effects beyond one for each order and occasion; `null` when the ledgers could not be read.
    pub duplicates: Option<Duplicates>,
    /// From an order's first request to its acceptance, with all tries between.
    pub latency: Option<Latency>,
    /// The same of orders that met no fault.
    pub latency_calm: Option<Latency>,
    /// Messages that the broker delivered.
    pub messages: Delivered,
    /// Messages that came to an application again and brought nothing new.
    pub repeats_seen: u64,
    /// Requests that the mesh tried again by itself.
    pub mesh_retries: u64,
    /// Requests that customers made again under the same key.
    pub customer_retries: u64,
    /// What each fault cost.
    pub faults: Vec<Fault>,
    /// The declared graph with what was observed.
    pub edges: Vec<Edge>,
}

/// What became of the orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Orders {
    /// Asked for.
    pub placed: u64,
    /// Accepted by the shop.
    pub accepted: u64,
    /// Of these, those that had to be asked for more than once.
    pub accepted_later: u64,
    /// Not accepted.
    pub refused: u64,
    /// With what words, and how many.
    pub refusals: BTreeMap<String, u64>,
    /// Accepted, shipped and notified.
    pub completed: u64,
    /// Accepted, and not shipped and notified.
    pub lost: u64,
    /// The first of the lost.
    pub lost_orders: Vec<String>,
}

/// What one fault cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fault {
    /// What was done.
    pub what: String,
    /// Until it carried traffic again; `null`: it did not.
    pub back_after_ms: Option<u64>,
    /// Until every order was accepted or declined at its first request again; `null`: none had to be asked for again.
    pub felt_for_ms: Option<u64>,
    /// When orders may have felt it, from the start of the run.
    pub from_ms: u64,
    /// Until when.
    pub to_ms: u64,
    /// Orders that were under way then.
    pub orders: u64,
    /// Of these, those that were not accepted at the first request.
    pub asked_again: u64,
    /// Of these, those that were never accepted because of an answer of the mesh.
    pub given_up: u64,
    /// What the failed requests of customers were told then, and how often.
    pub errors: BTreeMap<String, u64>,
    /// Requests that the mesh tried again by itself.
    pub mesh_retries: u64,
    /// Messages that were delivered again.
    pub redeliveries: u64,
    /// Of the orders under way.
    pub latency: Option<Latency>,
    /// By how much their 99th percentile was above that of orders that met no fault.
    pub added_p99_ms: Option<f64>,
}

/// What was recorded in a run.
pub(super) struct Recorded {
    pub(super) orders: Vec<Placed>,
    pub(super) faults: Vec<Happened>,
    pub(super) settled: Settled,
    pub(super) observed: Observed,
    pub(super) edges: Vec<Edge>,
    pub(super) stream: Duration,
}

impl Report {
    /// What `recorded` comes to.
    pub(super) fn of(recorded: &Recorded) -> Self {
        let Recorded { orders: placed, settled, observed, .. } = recorded;
        let windows: Vec<Window> = recorded.faults.iter().map(|fault| fault.window).collect();
        let calm = |order: &&Placed| !windows.iter().any(|window| touches(order, *window));
        let latency_calm = latency(placed.iter().filter(calm));
        let orders = Orders::of(placed, settled);
        let duplicates = settled.ledgers.as_ref().map(|ledgers| ledgers.duplicates);
        let once = duplicates.is_some_and(|duplicates| duplicates.total() == 0 && duplicates.charges.is_some());
        Self {
            holds: once && orders.lost == 0 && orders.accepted > 0,
            stream_ms: ms(recorded.stream),
            settle_ms: ms(settled.took),
            orders,
            duplicates,
            latency: latency(placed.iter()),
            latency_calm,
            messages: observed.deliveries(),
            repeats_seen: settled.ledgers.as_ref().map_or(0, |ledgers| ledgers.deliveries.redelivered),
            mesh_retries: observed.retries(),
            customer_retries: placed.iter().map(|order| order.tries.len().saturating_sub(1) as u64).sum(),
            faults: recorded.faults.iter().map(|fault| Fault::of(fault, placed, latency_calm)).collect(),
            edges: recorded.edges.clone(),
        }
    }
}

impl Orders {
    fn of(placed: &[Placed], settled: &Settled) -> Self {
        let accepted = placed.iter().filter(|order| order.accepted().is_some());
        let (count, later) =
            accepted.fold((0, 0), |(all, later), order| (all + 1, later + u64::from(order.tries.len() > 1)));
        let mut refusals = BTreeMap::new();
        for order in placed {
            if let Some(Outcome::Refused(why) | Outcome::Later(why)) = order.outcome() {
                *refusals.entry(why.clone()).or_default() += 1;
            }
        }
        let (lost, lost_orders) = lost(settled);
        let placed = placed.len() as u64;
        Self {
            placed,
            accepted: count,
            accepted_later: later,
            refused: placed - count,
            refusals,
            completed: count.saturating_sub(settled.missing.len() as u64),
            lost,
            lost_orders: lost_orders.into_iter().take(NAMED_MAX).collect(),
        }
    }
}

/// Orders that a customer was told are accepted, or that the ledger holds as such, and that miss something.
fn lost(settled: &Settled) -> (u64, BTreeSet<String>) {
    let mut named = settled.missing.clone();
    let Some(Ledgers { unshipped, unnotified, .. }) = &settled.ledgers else { return (named.len() as u64, named) };
    named.extend(unshipped.first.iter().chain(&unnotified.first).cloned());
    ((named.len() as u64).max(unshipped.count).max(unnotified.count), named)
}

impl Fault {
    fn of(happened: &Happened, placed: &[Placed], calm: Option<Latency>) -> Self {
        let met: Vec<&Placed> = placed.iter().filter(|order| touches(order, happened.window)).collect();
        let count = |holds: fn(&Placed) -> bool| met.iter().filter(|order| holds(order)).count() as u64;
        let mut errors = BTreeMap::new();
        for one in met.iter().flat_map(|order| &order.tries) {
            if let Outcome::Later(why) = &one.outcome
                && happened.window.touches(one.sent, one.sent + one.took)
            {
                *errors.entry(why.clone()).or_default() += 1;
            }
        }
        let latency = latency(met.iter().copied());
        let (before, after) = (&happened.before, &happened.after);
        Self {
            what: happened.what.clone(),
            back_after_ms: happened.back_after.map(ms),
            felt_for_ms: happened.felt_for.map(ms),
            from_ms: ms(happened.window.from),
            to_ms: ms(happened.window.to),
            orders: met.len() as u64,
            asked_again: count(|order| order.tries.len() > 1),
            given_up: count(|order| matches!(order.outcome(), Some(Outcome::Later(_)))),
            errors,
            mesh_retries: after.retries().saturating_sub(before.retries()),
            redeliveries: after.deliveries().redeliveries.saturating_sub(before.deliveries().redeliveries),
            added_p99_ms: latency.zip(calm).map(|(met, calm)| (met.p99_ms - calm.p99_ms).max(0.0)),
            latency,
        }
    }
}

fn touches(order: &Placed, window: Window) -> bool {
    window.touches(order.began(), order.ended())
}

/// Of those that were accepted: what is refused is refused quickly, and would flatter.
fn latency<'a>(orders: impl Iterator<Item = &'a Placed>) -> Option<Latency> {
    let accepted = orders.filter(|order| order.accepted().is_some());
    Latency::of(accepted.map(|order| order.ended().saturating_sub(order.began())))
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::orders::Try;
    use super::super::settle::{Deliveries, Missing};
    use super::*;

    fn order(tries: &[(u64, u64, Outcome)]) -> Placed {
        let one = |(sent, took, outcome): &(u64, u64, Outcome)| Try {
            sent: Duration::from_millis(*sent),
            took: Duration::from_millis(*took),
            outcome: outcome.clone(),
        };
        Placed { tries: tries.iter().map(one).collect() }
    }

    fn accepted(id: &str) -> Outcome {
        Outcome::Accepted(id.to_owned())
    }

    fn later() -> Outcome {
        Outcome::Later("503 No live instance".to_owned())
    }

    fn ledgers() -> Ledgers {
        let duplicates = Duplicates { charges: Some(0), ..Duplicates::default() };
        Ledgers { duplicates, deliveries: Deliveries { total: 6, redelivered: 1 }, ..Ledgers::default() }
    }

    /// Four orders and one fault: one in the calm, one that the fault touches, one declined, one never accepted.
    pub(in super::super) fn recorded() -> Recorded {
        let window = Window { from: Duration::from_millis(1_000), to: Duration::from_millis(3_000) };
        Recorded {
            orders: vec![
                order(&[(0, 10, accepted("ord-1"))]),
                order(&[(900, 200, later()), (1_500, 300, accepted("ord-2"))]),
                order(&[(4_000, 20, Outcome::Refused("409 not enough in stock".to_owned()))]),
                order(&[(2_000, 50, later())]),
            ],
            faults: vec![Happened {
                what: "the broker killed with -9".to_owned(),
                back_after: Some(Duration::from_millis(1_300)),
                felt_for: Some(Duration::from_millis(1_800)),
                window,
                before: Observed::default(),
                after: Observed::default(),
            }],
            settled: Settled { ledgers: Some(ledgers()), missing: BTreeSet::new(), took: Duration::from_millis(1_500) },
            observed: Observed::default(),
            edges: Vec::new(),
            stream: Duration::from_secs(5),
        }
    }

    #[test]
    fn orders_are_counted_by_what_became_of_them() {
        let report = Report::of(&recorded());
        let orders = &report.orders;
        assert!(report.holds);
        assert_eq!((orders.placed, orders.accepted, orders.accepted_later, orders.refused), (4, 2, 1, 2));
        assert_eq!((orders.completed, orders.lost), (2, 0));
        let refusals = [("409 not enough in stock".to_owned(), 1), ("503 No live instance".to_owned(), 1)];
        assert_eq!(orders.refusals, BTreeMap::from(refusals));
        assert_eq!(report.customer_retries, 1);
    }

    #[test]
    fn a_fault_costs_what_the_orders_under_way_had_to_bear() {
        let report = Report::of(&recorded());
        let fault = &report.faults[0];
        assert_eq!((fault.orders, fault.asked_again, fault.given_up), (2, 1, 1));
        assert_eq!(fault.errors["503 No live instance"], 2);
        let (met, calm) = (fault.latency.unwrap(), report.latency_calm.unwrap());
        assert_eq!((met.count, calm.count), (1, 1));
        assert!((met.p50_ms - 900.0).abs() < 1.0 && (calm.p50_ms - 10.0).abs() < 0.1, "{met:?} {calm:?}");
        assert!((fault.added_p99_ms.unwrap() - 890.0).abs() < 1.0);
    }

    #[test]
    fn what_is_missing_or_too_much_does_not_hold() {
        let holds = |change: fn(&mut Recorded)| {
            let mut recorded = recorded();
            change(&mut recorded);
            let report = Report::of(&recorded);
            (report.holds, report.orders.lost)
        };
        fn book(recorded: &mut Recorded) -> &mut Ledgers {
            recorded.settled.ledgers.as_mut().unwrap()
        }
        assert_eq!(holds(|_| {}), (true, 0));
        assert_eq!(holds(|r| r.settled.missing.extend(["ord-2".to_owned()])), (false, 1));
        assert_eq!(holds(|r| book(r).unshipped = Missing { count: 25, first: vec!["ord-9".into()] }), (false, 25));
        assert_eq!(holds(|r| book(r).unnotified = Missing { count: 1, first: vec!["ord-9".into()] }), (false, 1));
        assert_eq!(holds(|r| book(r).duplicates.shipments = 1), (false, 0));
        assert_eq!(holds(|r| book(r).duplicates.notifications = 1), (false, 0));
        assert_eq!(holds(|r| book(r).duplicates.charges = None), (false, 0));
        assert_eq!(holds(|r| r.settled.ledgers = None), (false, 0));
        assert_eq!(holds(|r| r.orders.clear()), (false, 0));
    }

    #[test]
    fn the_report_is_one_object() {
        let report = serde_json::to_value(Report::of(&recorded())).unwrap();
        assert_eq!(report["holds"], true);
        assert_eq!(report["faults"][0]["back_after_ms"], 1_300);
        assert_eq!(report["duplicates"]["charges"], 0);
    }
}
