//! The report: whether every accepted order was charged, shipped and notified, each once. It compares the ledgers as they
//! stand; what is still on its way counts as missing until it has come.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Orders that are named in a list of the report; the figure beside it counts all.
const NAMED_MAX: usize = 20;

/// What the ledgers say together.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Orders that were accepted.
    pub accepted: usize,
    /// Of these, those that were shipped.
    pub shipped: usize,
    /// Of these, those about which the customer was written to twice: when placed and when shipped.
    pub notified: usize,
    /// Orders that came to nothing, for want of stock or money.
    pub declined: usize,
    /// Orders that were begun and neither accepted nor declined.
    pub unfinished: usize,
    /// Accepted orders without a shipment.
    pub unshipped: Missing,
    /// Accepted orders without both notifications.
    pub unnotified: Missing,
    /// Shipments, notifications and charges beyond one for each order and occasion.
    pub duplicates: Duplicates,
    /// Messages that services were given.
    pub deliveries: Deliveries,
    /// Charges by version of payments; empty when payments does not answer.
    pub charges_by_version: BTreeMap<String, usize>,
}

/// Orders that miss something.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub first: Vec<String>,
}

/// Effects that happened more than once.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// Of parcels.
    pub shipments: usize,
    /// Of texts.
    pub notifications: usize,
    /// Of money; `null` when payments does not answer.
    pub charges: Option<usize>,
}

/// Messages that came, and those that came again.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Deliveries {
    /// All of them.
    pub total: u64,
    /// Those that brought nothing new.
    pub redelivered: u64,
}

#[derive(Deserialize)]
struct Orders {
    orders: Vec<Order>,
    charges: Option<Vec<Charge>>,
}

#[derive(Deserialize)]
struct Order {
    id: String,
    state: String,
}

#[derive(Deserialize)]
struct Charge {
    order_id: String,
    version: String,
}

#[derive(Deserialize)]
struct Shipping {
    shipments: Vec<Shipment>,
    deliveries: u64,
    redelivered: u64,
}

#[derive(Deserialize)]
struct Shipment {
    order_id: String,
}

#[derive(Deserialize)]
struct Notifications {
    notifications: Vec<Notification>,
    deliveries: u64,
    redelivered: u64,
}

#[derive(Deserialize)]
struct Notification {
    order_id: String,
    kind: String,
}

/// The occasions on which a customer is written to.
const OCCASIONS: [&str; 2] = ["order.placed", "order.shipped"];

impl Report {
    /// Compares the ledgers of orders, shipping and notifications.
    ///
    /// # Errors
    /// When one of them is not what such a ledger is.
    pub fn of(orders: &[u8], shipping: &[u8], notifications: &[u8]) -> serde_json::Result<Self> {
        let orders: Orders = serde_json::from_slice(orders)?;
        let shipping: Shipping = serde_json::from_slice(shipping)?;
        let inbox: Notifications = serde_json::from_slice(notifications)?;
        let shipped = counts(shipping.shipments.iter().map(|shipment| &shipment.order_id));
        let texts = counts(inbox.notifications.iter().map(|text| (text.order_id.as_str(), text.kind.as_str())));
        let in_state =
            |states: &[&str]| orders.orders.iter().filter(|order| states.contains(&order.state.as_str())).count();
        let accepted = || orders.orders.iter().filter(|order| ["placed", "shipped"].contains(&order.state.as_str()));
        let was_notified = |order: &&Order| OCCASIONS.iter().all(|kind| texts.contains_key(&(order.id.as_str(), kind)));
        let unshipped = missing(accepted().filter(|order| !shipped.contains_key(&order.id)));
        let unnotified = missing(accepted().filter(|order| !was_notified(order)));
        let charges = orders.charges.as_deref();
        Ok(Self {
            accepted: accepted().count(),
            shipped: accepted().count() - unshipped.count,
            notified: accepted().count() - unnotified.count,
            declined: in_state(&["declined"]),
            unfinished: in_state(&["opened", "charged"]),
            unshipped,
            unnotified,
            duplicates: Duplicates {
                shipments: beyond_one(&shipped),
                notifications: beyond_one(&texts),
                charges: charges.map(|charges| beyond_one(&counts(charges.iter().map(|charge| &charge.order_id)))),
            },
            deliveries: Deliveries {
                total: shipping.deliveries + inbox.deliveries,
                redelivered: shipping.redelivered + inbox.redelivered,
            },
            charges_by_version: counts(charges.unwrap_or_default().iter().map(|charge| charge.version.clone())),
        })
    }
}

fn counts<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeMap<K, usize> {
    let mut counts = BTreeMap::new();
    keys.for_each(|key| *counts.entry(key).or_default() += 1);
    counts
}

fn beyond_one<K>(counts: &BTreeMap<K, usize>) -> usize {
    counts.values().map(|count| count - 1).sum()
}

fn missing<'a>(orders: impl Iterator<Item = &'a Order>) -> Missing {
    let mut missing = Missing::default();
    for order in orders {
        missing.count += 1;
        if missing.first.len() < NAMED_MAX {
            missing.first.push(order.id.clone());
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn report(orders: &Value, shipping: &Value, notifications: &Value) -> Report {
        let bytes = |ledger: &Value| ledger.to_string().into_bytes();
        Report::of(&bytes(orders), &bytes(shipping), &bytes(notifications)).unwrap()
    }

    #[test]
    fn finds_what_is_missing_and_what_is_too_much() {
        let orders = json!({
            "orders": [
                {"id": "a", "state": "shipped"}, {"id": "b", "state": "placed"}, {"id": "c", "state": "placed"},
                {"id": "d", "state": "declined"}, {"id": "e", "state": "charged"},
            ],
            "charges": [
                {"order_id": "a", "version": "v1"}, {"order_id": "b", "version": "v1"},
                {"order_id": "b", "version": "v2"},
            ],
        });
        let shipping = json!({"shipments": [{"order_id": "a"}, {"order_id": "a"}, {"order_id": "b"}], "deliveries": 4, "redelivered": 1});
        let inbox = json!({
            "notifications": [
                {"order_id": "a", "kind": "order.placed"}, {"order_id": "a", "kind": "order.shipped"},
                {"order_id": "b", "kind": "order.placed"}, {"order_id": "b", "kind": "order.placed"},
            ],
            "deliveries": 5, "redelivered": 0,
        });
        let report = report(&orders, &shipping, &inbox);
        assert_eq!((report.accepted, report.shipped, report.notified), (3, 2, 1));
        assert_eq!((report.declined, report.unfinished), (1, 1));
        assert_eq!(report.unshipped, Missing { count: 1, first: vec!["c".into()] });
        assert_eq!(report.unnotified, Missing { count: 2, first: vec!["b".into(), "c".into()] });
        assert_eq!(report.duplicates, Duplicates { shipments: 1, notifications: 1, charges: Some(1) });
        assert_eq!(report.deliveries, Deliveries { total: 9, redelivered: 1 });
        assert_eq!(report.charges_by_version, BTreeMap::from([("v1".into(), 2), ("v2".into(), 1)]));
    }

    #[test]
    fn payments_may_be_away() {
        let orders = json!({"orders": [], "charges": null});
        let nothing = json!({"shipments": [], "notifications": [], "deliveries": 0, "redelivered": 0});
        assert_eq!(report(&orders, &nothing, &nothing), Report::default());
    }
}
