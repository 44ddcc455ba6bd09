//! Notifications: writes to customers about their orders and shipments, once for each event.
//!
//! Events come at least once. The ledger is the inbox too: an event is known by its source and id, and what was written for it
//! is not written again. Nothing leaves the machine: the texts stay in the ledger.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::environment::Environment;
use crate::event::Delivered;
use crate::ledger::{Book, Ledger};
use crate::log;
use crate::orders::Placed;
use crate::problem;
use crate::serve;
use crate::shipping::Shipment;

/// A text to a customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Who sent the event.
    pub source: String,
    /// The event's id.
    pub id: String,
    /// What has happened.
    pub kind: String,
    /// To which order.
    pub order_id: String,
    /// To whom it goes.
    pub customer: String,
    /// What it says.
    pub text: String,
}

/// A line of the ledger.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
enum Entry {
    /// The effect.
    Written(Notification),
    /// An event came that was known.
    Repeated { source: String, id: String, attempt: u32 },
}

/// All notifications, and so all events that were taken.
#[derive(Debug, Default)]
struct Inbox {
    in_order: Vec<Notification>,
    known: BTreeSet<(String, String)>,
    redelivered: u64,
}

impl Book for Inbox {
    type Entry = Entry;

    fn enter(&mut self, entry: Entry) {
        match entry {
            Entry::Repeated { .. } => self.redelivered += 1,
            Entry::Written(notification) => {
                self.known.insert((notification.source.clone(), notification.id.clone()));
                self.in_order.push(notification);
            }
        }
    }
}

impl Inbox {
    /// Takes a notification in, if its event is new. Gives whether it was.
    fn take(&self, notification: Notification, attempt: u32) -> (Vec<Entry>, bool) {
        let Notification { source, id, .. } = &notification;
        if self.known.contains(&(source.clone(), id.clone())) {
            (vec![Entry::Repeated { source: source.clone(), id: id.clone(), attempt }], false)
        } else {
            (vec![Entry::Written(notification)], true)
        }
    }

    fn document(&self) -> Value {
        let deliveries = self.in_order.len() as u64 + self.redelivered;
        json!({"notifications": self.in_order, "deliveries": deliveries, "redelivered": self.redelivered})
    }
}

fn about_order(event: &Delivered) -> problem::Result<Notification> {
    let order: Placed = event.data()?;
    let goods = match order.items {
        1 => "1 item".to_owned(),
        n => format!("{n} items"),
    };
    let text = format!(
        "Dear {}, thank you for your order {} of {goods} for {}. We are packing it now.",
        order.customer,
        order.order_id,
        euros(order.total_cents)
    );
    Ok(notification(event, order.order_id, order.customer, text))
}

fn about_shipment(event: &Delivered) -> problem::Result<Notification> {
    let Shipment { order_id, customer, tracking, carrier } = event.data()?;
    let text = format!("Dear {customer}, your order {order_id} is on its way with {carrier}, number {tracking}.");
    Ok(notification(event, order_id, customer, text))
}

fn notification(event: &Delivered, order_id: String, customer: String, text: String) -> Notification {
    let Delivered { id, source, kind, .. } = event.clone();
    Notification { source, id, kind, order_id, customer, text }
}

/// An amount as customers read it.
pub fn euros(cents: u64) -> String {
    format!("€ {}.{:02}", cents / 100, cents % 100)
}

async fn write(inbox: &Ledger<Inbox>, notification: Notification, attempt: u32) -> problem::Result<StatusCode> {
    let (kind, order) = (notification.kind.clone(), notification.order_id.clone());
    let new = inbox.write(move |inbox| inbox.take(notification, attempt)).await?;
    let what = if new { "notified" } else { "notified before" };
    log::say(what, &[("order", &order), ("of", &kind), ("attempt", &attempt)]);
    Ok(StatusCode::NO_CONTENT)
}

async fn order(State(inbox): State<Ledger<Inbox>>, event: Delivered) -> problem::Result<StatusCode> {
    write(&inbox, about_order(&event)?, event.attempt).await
}

async fn shipment(State(inbox): State<Ledger<Inbox>>, event: Delivered) -> problem::Result<StatusCode> {
    write(&inbox, about_shipment(&event)?, event.attempt).await
}

async fn ledger(State(inbox): State<Ledger<Inbox>>) -> problem::Result<Json<Value>> {
    Ok(Json(inbox.read(Inbox::document).await?))
}

/// Serves notifications.
///
/// # Errors
/// When it cannot start.
pub async fn run(environment: &Environment) -> anyhow::Result<()> {
    let inbox = Ledger::<Inbox>::open(&environment.data.join("notifications"), "inbox.jsonl")?;
    let router = Router::new()
        .route("/healthz", get(serve::healthz))
        .route("/events/order", post(order))
        .route("/events/shipment", post(shipment))
        .route("/ledger", get(ledger))
        .with_state(inbox);
    serve::serve(environment, router, serve::stop_on_signals()?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(source: &str, id: &str) -> Notification {
        let mut notification = Notification {
            source: source.into(),
            id: id.into(),
            kind: "order.placed".into(),
            order_id: "ord-1".into(),
            customer: "Ada".into(),
            text: String::new(),
        };
        notification.text = format!("{source} {id}");
        notification
    }

    #[test]
    fn an_event_is_known_by_its_source_and_id() {
        let mut inbox = Inbox::default();
        let news: Vec<bool> = [("a", "1"), ("a", "1"), ("b", "1"), ("a", "2"), ("b", "1")]
            .into_iter()
            .map(|(source, id)| {
                let (entries, new) = inbox.take(written(source, id), 1);
                entries.into_iter().for_each(|entry| inbox.enter(entry));
                new
            })
            .collect();
        assert_eq!(news, [true, false, true, true, false]);
        let document = inbox.document();
        assert_eq!((&document["deliveries"], &document["redelivered"]), (&json!(5), &json!(2)));
        assert_eq!(document["notifications"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn amounts_are_read_by_people() {
        assert_eq!([euros(5), euros(120), euros(123_456)], ["€ 0.05", "€ 1.20", "€ 1234.56"]);
    }
}
