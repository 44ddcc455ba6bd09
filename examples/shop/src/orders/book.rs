//! What the ledger of orders comes to: each order, and how far it has got.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Placed;
use super::request::{OrderRequest, Wanted};
use crate::ledger;
use crate::problem::{self, Problem};

/// An order with its prices, as it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its number; everything that is done for it carries it.
    pub id: String,
    /// The key under which its customer asks.
    pub key: String,
    /// Whose it is.
    pub customer: String,
    /// What it is made of.
    pub lines: Vec<Line>,
}

/// A line with its price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What was asked for.
    #[serde(flatten)]
    pub wanted: Wanted,
    /// What it is called.
    pub name: String,
    /// Of one.
    pub price_cents: u64,
    /// Of one.
    pub weight_g: u32,
}

/// The charge of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paid {
    /// Its number with payments.
    pub id: String,
    /// The version of payments that made it.
    pub version: String,
}

/// Why an order came to nothing; the customer hears the same each time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Declined {
    /// Not enough on the shelves.
    Stock(String),
    /// Payments would not charge it.
    Payment(String),
}

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// Priced; from here on the key belongs to it.
    Opened(Order),
    /// Reserved and charged: from here on it can only go forward.
    Charged { order_id: String, charge: Paid },
    /// It came to nothing.
    Declined { order_id: String, why: Declined },
    /// With the broker, both as a task and as an event: accepted.
    Placed { order_id: String },
    /// On its way.
    Shipped { order_id: String, tracking: String },
}

/// An order and how far it has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The order.
    pub order: Order,
    /// Set when it was charged.
    pub charge: Option<Paid>,
    /// Set when it came to nothing.
    pub declined: Option<Declined>,
    /// It was accepted.
    pub placed: bool,
    /// Set when it was shipped, which may be known before [`Self::placed`] is.
    pub tracking: Option<String>,
}

/// All orders.
#[derive(Debug, Default)]
pub struct Book {
    orders: BTreeMap<String, Progress>,
    by_key: BTreeMap<String, String>,
    in_order: Vec<String>,
}

impl ledger::Book for Book {
    type Entry = Entry;

    fn enter(&mut self, entry: Entry) {
        match entry {
            Entry::Opened(order) => {
                let id = order.id.clone();
                self.by_key.insert(order.key.clone(), id.clone());
                self.in_order.push(id.clone());
                let progress = Progress { order, charge: None, declined: None, placed: false, tracking: None };
                self.orders.insert(id, progress);
            }
            Entry::Charged { order_id, charge } => self.change(&order_id, |order| {
                // Money was taken, so it must be shipped: a decline that another request wrote meanwhile gives way.
                order.declined = None;
                order.charge = Some(charge);
            }),
            Entry::Declined { order_id, why } => self.change(&order_id, |order| {
                order.declined = order.charge.is_none().then_some(why);
            }),
            Entry::Placed { order_id } => self.change(&order_id, |order| order.placed = true),
            Entry::Shipped { order_id, tracking } => {
                self.change(&order_id, |order| order.tracking = Some(tracking));
            }
        }
    }
}

impl Book {
    fn change(&mut self, id: &str, change: impl FnOnce(&mut Progress)) {
        if let Some(order) = self.orders.get_mut(id) {
            change(order);
        }
    }

    /// An order by its number.
    pub fn order(&self, id: &str) -> Option<&Progress> {
        self.orders.get(id)
    }

    /// An order by its customer's key.
    pub fn of_key(&self, key: &str) -> Option<&Progress> {
        self.order(self.by_key.get(key)?)
    }

    /// Orders that were charged and not accepted yet.
    pub fn unfinished(&self) -> Vec<Progress> {
        let unfinished = self.orders.values().filter(|order| order.charge.is_some() && !order.placed);
        unfinished.cloned().collect()
    }

    /// All orders in short, the oldest first.
    pub fn document(&self) -> Value {
        self.in_order.iter().filter_map(|id| self.order(id)).map(Progress::summary).collect()
    }
}

impl Progress {
    /// How far it has got, in a word.
    pub fn state(&self) -> &'static str {
        match self {
            Self { declined: Some(_), .. } => "declined",
            Self { placed: true, tracking: Some(_), .. } => "shipped",
            Self { placed: true, .. } => "placed",
            Self { charge: Some(_), .. } => "charged",
            _ => "opened",
        }
    }

    /// The order, if this is what was asked for under its key.
    ///
    /// # Errors
    /// 422 when the key belongs to another order.
    pub fn for_request(&self, request: &OrderRequest) -> problem::Result<&Self> {
        let same = self.order.customer == request.customer
            && self.order.lines.iter().map(|line| &line.wanted).eq(request.lines.iter());
        let other = || {
            let detail = format!("the key was used for order {}", self.order.id);
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "the idempotency key belongs to another order", detail)
        };
        same.then_some(self).ok_or_else(other)
    }

    /// What a customer sees of it.
    pub fn document(&self) -> Value {
        let mut document = self.summary();
        document["lines"] = json!(self.order.lines);
        document["weight_g"] = json!(self.order.weight_g());
        document["charge"] = json!(self.charge);
        if let Some(why) = &self.declined {
            document["declined"] = json!(why.problem().detail);
        }
        document
    }

    fn summary(&self) -> Value {
        json!({
            "id": self.order.id,
            "customer": self.order.customer,
            "total_cents": self.order.total_cents(),
            "state": self.state(),
            "tracking": self.tracking,
        })
    }
}

impl Order {
    /// What it costs.
    pub fn total_cents(&self) -> u64 {
        self.lines.iter().map(|line| line.price_cents * u64::from(line.wanted.quantity)).sum()
    }

    /// What it weighs.
    pub fn weight_g(&self) -> u64 {
        self.lines.iter().map(|line| u64::from(line.weight_g) * u64::from(line.wanted.quantity)).sum()
    }

    /// What is said about it when it is placed.
    pub fn placed(&self) -> Placed {
        Placed {
            order_id: self.id.clone(),
            customer: self.customer.clone(),
            items: self.lines.iter().map(|line| line.wanted.quantity).sum(),
            total_cents: self.total_cents(),
        }
    }
}

impl Declined {
    /// What the customer hears.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Stock(detail) => Problem::new(StatusCode::CONFLICT, "not enough in stock", detail),
            Self::Payment(detail) => Problem::new(StatusCode::PAYMENT_REQUIRED, "the payment was declined", detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Book as _;

    fn line(sku: &str, quantity: u32, price_cents: u64) -> Line {
        Line { wanted: Wanted { sku: sku.into(), quantity }, name: sku.to_lowercase(), price_cents, weight_g: 250 }
    }

    fn opened() -> Entry {
        let lines = vec![line("A", 2, 150), line("B", 1, 999)];
        Entry::Opened(Order { id: "ord-1".into(), key: "k".into(), customer: "Ada".into(), lines })
    }

    fn charged() -> Entry {
        Entry::Charged { order_id: "ord-1".into(), charge: Paid { id: "ch-1".into(), version: "v2".into() } }
    }

    fn declined() -> Entry {
        Entry::Declined { order_id: "ord-1".into(), why: Declined::Stock("1 of A is there".into()) }
    }

    fn placed() -> Entry {
        Entry::Placed { order_id: "ord-1".into() }
    }

    fn shipped() -> Entry {
        Entry::Shipped { order_id: "ord-1".into(), tracking: "BA-1".into() }
    }

    /// Entries go through their lines, as they do in a ledger.
    fn book(entries: &[Entry]) -> Book {
        let mut book = Book::default();
        for entry in entries {
            let line = serde_json::to_string(entry).unwrap();
            book.enter(serde_json::from_str(&line).unwrap());
        }
        book
    }

    #[test]
    fn an_order_gets_on() {
        for (entries, state, unfinished) in [
            (&[opened()][..], "opened", 0),
            (&[opened(), charged()][..], "charged", 1),
            (&[opened(), declined()][..], "declined", 0),
            (&[opened(), declined(), charged()][..], "charged", 1),
            (&[opened(), charged(), declined()][..], "charged", 1),
            (&[opened(), charged(), shipped()][..], "charged", 1),
            (&[opened(), charged(), placed()][..], "placed", 0),
            (&[opened(), charged(), shipped(), placed()][..], "shipped", 0),
        ] {
            let book = book(entries);
            assert_eq!(book.of_key("k").unwrap().state(), state, "{entries:?}");
            assert_eq!(book.unfinished().len(), unfinished, "{entries:?}");
        }
    }

    #[test]
    fn a_key_belongs_to_one_order() {
        let book = book(&[opened()]);
        let order = book.of_key("k").unwrap();
        let wanted = |sku: &str, quantity| Wanted { sku: sku.into(), quantity };
        let ask = |lines| order.for_request(&OrderRequest { customer: "Ada".into(), lines }).is_ok();
        assert!(ask(vec![wanted("A", 2), wanted("B", 1)]));
        assert!(!ask(vec![wanted("A", 2)]));
        assert!(!ask(vec![wanted("A", 2), wanted("B", 3)]));
        assert!(book.of_key("other").is_none());
    }

    #[test]
    fn documents_add_up() {
        let book = book(&[opened(), charged(), placed(), shipped()]);
        let document = book.order("ord-1").unwrap().document();
        assert_eq!((&document["total_cents"], &document["weight_g"]), (&json!(1_299), &json!(750)));
        assert_eq!((&document["state"], &document["tracking"]), (&json!("shipped"), &json!("BA-1")));
        assert_eq!(document["lines"][0]["sku"], "A");
        assert_eq!(book.document()[0]["id"], "ord-1");
        assert_eq!(book.order("ord-1").unwrap().order.placed().items, 3);
    }
}
