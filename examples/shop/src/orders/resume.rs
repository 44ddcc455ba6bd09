//! Finishes orders that were charged and then left: by a crash, or by a customer who did not ask again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::Orders;
use super::book::Book;
use crate::log;
use crate::trace::Trace;

/// From one look at what is unfinished to the next. An order is taken up when two looks have found it.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Looks again and again. What fails is tried at the next look, without end: the money was taken.
pub async fn resume(orders: Arc<Orders>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = BTreeSet::new();
    loop {
        ticks.tick().await;
        before = look(&orders, &before).await;
    }
}

/// Finishes what the look before has found too, and gives what this one has found.
async fn look(orders: &Orders, before: &BTreeSet<String>) -> BTreeSet<String> {
    let unfinished = match orders.ledger.read(Book::unfinished).await {
        Ok(unfinished) => unfinished,
        Err(error) => {
            log::say("cannot look for unfinished orders", &[("why", &error)]);
            return BTreeSet::new();
        }
    };
    let found = unfinished.iter().map(|order| order.order.id.clone()).collect();
    for order in unfinished.into_iter().filter(|order| before.contains(&order.order.id)) {
        let id = order.order.id.clone();
        match orders.finish(order, &Trace::default()).await {
            Ok(_) => log::say("order taken up again", &[("order", &id)]),
            Err(problem) => log::say("order still unfinished", &[("order", &id), ("why", &problem.detail)]),
        }
    }
    found
}
