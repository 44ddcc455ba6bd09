//! The end of the stream: waits until every accepted order was shipped and its customer notified, as the shop's own ledgers
//! say. It decides nothing about orders that never come so far: it says which they are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::client::Client;

/// How long the last accepted order may take to be shipped and notified.
const SETTLE_BOUND: Duration = Duration::from_secs(60);
/// From one look at the ledgers to the next.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// Looks that must say the same, so that an effect that comes twice has had time to.
const EQUAL_LOOKS: u32 = 4;

/// What the storefront answers about the ledgers; what it says besides is for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledgers {
    /// Orders that were accepted.
    pub accepted: u64,
    /// Of these, those that were shipped.
    pub shipped: u64,
    /// Of these, those about which the customer was told, when placed and when shipped.
    pub notified: u64,
    /// Accepted orders without a shipment.
    pub unshipped: Missing,
    /// Accepted orders without both notifications.
    pub unnotified: Missing,
    /// Effects beyond one for each order and occasion.
    pub duplicates: Duplicates,
    /// Messages that services were given.
    pub deliveries: Deliveries,
    /// Charges by version of payments.
    #[serde(default)]
    pub charges_by_version: BTreeMap<String, u64>,
}

/// Accepted orders that miss something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Vec<String>,
}

/// Effects that happened more than once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duplicates {
    /// Of parcels.
    pub shipments: u64,
    /// Of texts.
    pub notifications: u64,
    /// Of money; `None` when payments did not answer.
    pub charges: Option<u64>,
}

impl Duplicates {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.shipments + self.notifications + self.charges.unwrap_or(0)
    }
}

/// Messages as the applications saw them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deliveries {
    /// All that came.
    pub total: u64,
    /// Of these, those that brought nothing new.
    pub redelivered: u64,
}

/// How the stream ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// The ledgers at the last look; `None` when they could not be read at all.
    pub(super) ledgers: Option<Ledgers>,
    /// Orders that the customer was told are accepted and that were not shipped and notified.
    pub(super) missing: BTreeSet<String>,
    /// How long it took until nothing was missing.
    pub(super) took: Duration,
}

/// Waits until all of `accepted` are shipped and notified and the ledgers stand still, at most [`SETTLE_BOUND`].
pub(super) async fn settle(gateway: &Client, accepted: &BTreeSet<String>) -> Settled {
    let start = Instant::now();
    let mut settled = Settled { ledgers: None, missing: accepted.clone(), took: Duration::ZERO };
    let (mut equal_looks, mut complete) = (0, None);
    while start.elapsed() < SETTLE_BOUND {
        let now = ledgers(gateway).await;
        if now.is_some() {
            equal_looks = if now == settled.ledgers { equal_looks + 1 } else { 1 };
            settled.ledgers = now;
        }
        if settled.ledgers.as_ref().is_some_and(is_complete) {
            forget_shipped(gateway, &mut settled.missing).await;
            if settled.missing.is_empty() {
                complete.get_or_insert_with(|| start.elapsed());
                if equal_looks >= EQUAL_LOOKS {
                    break;
                }
            }
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    settled.took = complete.unwrap_or_else(|| start.elapsed());
    settled
}

fn is_complete(ledgers: &Ledgers) -> bool {
    ledgers.unshipped.count == 0 && ledgers.unnotified.count == 0 && ledgers.duplicates.charges.is_some()
}

async fn ledgers(gateway: &Client) -> Option<Ledgers> {
    let answer = gateway.get("/report").await.ok()?;
    if answer.status.is_success() { answer.json().ok() } else { None }
}

/// Asks for each order by its number, since a ledger that lost an order would not miss it.
async fn forget_shipped(gateway: &Client, missing: &mut BTreeSet<String>) {
    #[derive(Deserialize)]
    struct Order {
        state: String,
    }
    for id in missing.clone() {
        let Ok(answer) = gateway.get(&format!("/orders/{id}")).await else { continue };
        if answer.status.is_success() && answer.json::<Order>().is_ok_and(|order| order.state == "shipped") {
            missing.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_storefront_says() {
        let text = r#"{"accepted":3,"shipped":2,"notified":3,"declined":1,"unfinished":0,
            "unshipped":{"count":1,"first":["ord-1"]},"unnotified":{"count":0,"first":[]},
            "duplicates":{"shipments":1,"notifications":2,"charges":null},
            "deliveries":{"total":9,"redelivered":1},"charges_by_version":{"v1":3}}"#;
        let ledgers: Ledgers = serde_json::from_str(text).unwrap();
        assert_eq!(ledgers.duplicates.total(), 3);
        assert!(!is_complete(&ledgers));
        assert_eq!(ledgers.unshipped.first, ["ord-1"]);
    }

    #[test]
    fn unknown_charges_are_not_none_at_all() {
        assert!(!is_complete(&Ledgers::default()));
        let duplicates = Duplicates { charges: Some(0), ..Duplicates::default() };
        assert!(is_complete(&Ledgers { duplicates, ..Ledgers::default() }));
    }
}
