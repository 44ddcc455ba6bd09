//! The customers: a stream of real orders through the gateway, each under a key of its own, asked for again under the same key
//! until it is accepted, refused for good, or was tried often enough.
//!
//! It records what was asked and answered, and when. What that comes to is left to the report.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::client::{Answer, Client};

/// Tries of one order, the first among them.
const TRIES_MAX: u32 = 40;
/// Before an order that was not accepted is asked for again; it doubles.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest such wait.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long the shop may take to open its doors once every process is ready.
const OPEN_BOUND: Duration = Duration::from_secs(20);
/// Products that customers choose from.
const PRODUCTS_MAX: usize = 500;
/// Lines of an order, and of each product, at most.
const LINES_MAX: usize = 3;
const QUANTITY_MAX: u32 = 2;

const CUSTOMERS: [&str; 12] = [
    "Ada Lovelace",
    "Grace Hopper",
    "Radia Perlman",
    "Barbara Liskov",
    "Leslie Lamport",
    "Edsger Dijkstra",
    "Katherine Johnson",
    "Alan Turing",
    "Hedy Lamarr",
    "Tony Hoare",
    "Frances Allen",
    "Jim Gray",
];

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// How many orders.
    pub(super) orders: u64,
    /// How many a second.
    pub(super) per_second: f64,
    /// Of which the choice of customers and products is drawn.
    pub(super) seed: u64,
}

/// One request for an order, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Try {
    /// Offset from the start of the run.
    pub(super) sent: Duration,
    pub(super) took: Duration,
    pub(super) outcome: Outcome,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// 201: the shop has taken the order on, under this number.
    Accepted(String),
    /// It will not be accepted, however often it is asked.
    Refused(String),
    /// Not now.
    Later(String),
}

/// An order with all its tries; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) tries: Vec<Try>,
}

impl Placed {
    /// When it was first asked for.
    pub(super) fn began(&self) -> Duration {
        self.tries.first().map_or(Duration::ZERO, |one| one.sent)
    }

    /// When it was last answered.
    pub(super) fn ended(&self) -> Duration {
        self.tries.last().map_or(Duration::ZERO, |one| one.sent + one.took)
    }

    /// What came of it in the end.
    pub(super) fn outcome(&self) -> Option<&Outcome> {
        self.tries.last().map(|one| &one.outcome)
    }

    /// Its number, when it was accepted.
    pub(super) fn accepted(&self) -> Option<&str> {
        match self.outcome() {
            Some(Outcome::Accepted(id)) => Some(id),
            _ => None,
        }
    }
}

/// How far the stream has got.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) sent: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    /// Requests after an order's first.
    pub(super) again: AtomicU64,
    /// Orders that were not accepted at their first request and have no answer for good yet.
    pub(super) waiting: AtomicU64,
    /// What customers were told who are to ask again, and how often.
    // A lock for an addition; taken only when something is not well, and by the narration.
    told: Mutex<BTreeMap<String, u64>>,
}

impl Progress {
    /// What customers were told since the last time this was asked, in words.
    pub(super) fn told(&self) -> Vec<String> {
        let told = std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner));
        told.into_iter().map(|(why, times)| format!("{times} × {why}")).collect()
    }

    fn tell(&self, why: &str) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner).entry(why.to_owned()).or_default() += 1;
    }
}

/// What the shop sells.
#[derive(Debug, Clone)]
pub(super) struct Catalogue(Vec<String>);

impl Catalogue {
    /// Reads it through the gateway, again and again for [`OPEN_BOUND`]: in a folder of an earlier run the gateway begins with what it
    /// kept, and hears a moment later where everything is now.
    ///
    /// # Errors
    /// When there is no answer, or none with products.
    pub(super) async fn read(gateway: &Client) -> anyhow::Result<Self> {
        let end = Instant::now() + OPEN_BOUND;
        loop {
            match Self::ask(gateway).await {
                Err(_) if Instant::now() < end => tokio::time::sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
    }

    async fn ask(gateway: &Client) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Page {
            products: Vec<Product>,
        }
        #[derive(Deserialize)]
        struct Product {
            sku: String,
        }
        let answer = gateway.get(&format!("/products?limit={PRODUCTS_MAX}")).await.context("GET /products")?;
        ensure!(answer.status.is_success(), "GET /products was answered with {}: {}", answer.status, answer.title());
        let page: Page = answer.json().context("GET /products was not answered with products")?;
        ensure!(!page.products.is_empty(), "the shop sells nothing");
        Ok(Self(page.products.into_iter().map(|product| product.sku).collect()))
    }

    /// A product that is sold.
    pub(super) fn any(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// What the next customer wants.
    fn choose(&self, random: &mut fastrand::Rng) -> Value {
        let lines = random.usize(1..=LINES_MAX.min(self.0.len()));
        let chosen: BTreeMap<&str, u32> = (0..lines)
            .map(|_| (self.0[random.usize(0..self.0.len())].as_str(), random.u32(1..=QUANTITY_MAX)))
            .collect();
        let lines: Vec<Value> =
            chosen.iter().map(|(sku, quantity)| json!({"sku": sku, "quantity": quantity})).collect();
        json!({"customer": CUSTOMERS[random.usize(0..CUSTOMERS.len())], "lines": lines})
    }
}

/// Sends the orders and waits for all of them. No more than `allowed` are sent at any time: so each fault has orders that meet it,
/// and some meet a mesh in which all is well again.
pub(super) async fn place_all(
    gateway: Arc<Client>,
    catalogue: &Catalogue,
    plan: Plan,
    start: Instant,
    progress: Arc<Progress>,
    mut allowed: watch::Receiver<u64>,
) -> Vec<Placed> {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / plan.per_second));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way = JoinSet::new();
    for number in 0..plan.orders {
        // Nobody left to allow them is as good as allowed.
        let _ = allowed.wait_for(|allowed| number < *allowed).await;
        ticks.tick().await;
        let order = Order {
            key: format!("demo-{:016x}-{number}", plan.seed),
            body: Bytes::from(catalogue.choose(&mut random).to_string()),
        };
        progress.sent.fetch_add(1, Ordering::Relaxed);
        under_way.spawn(place(gateway.clone(), order, start, progress.clone()));
    }
    under_way.join_all().await
}

#[derive(Debug, Clone)]
struct Order {
    key: String,
    body: Bytes,
}

async fn place(gateway: Arc<Client>, order: Order, start: Instant, progress: Arc<Progress>) -> Placed {
    let (mut tries, mut pause) = (Vec::new(), PAUSE);
    for number in 1..=TRIES_MAX {
        if number == 2 {
            progress.waiting.fetch_add(1, Ordering::Relaxed);
        }
        if number > 1 {
            progress.again.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        let sent = start.elapsed();
        let outcome = ask(&gateway, &order).await;
        if let Outcome::Later(why) = &outcome {
            progress.tell(why);
        }
        let is_over = !matches!(outcome, Outcome::Later(_));
        tries.push(Try { sent, took: start.elapsed().saturating_sub(sent), outcome });
        if is_over {
            break;
        }
    }
    let placed = Placed { tries };
    if placed.tries.len() > 1 {
        progress.waiting.fetch_sub(1, Ordering::Relaxed);
    }
    let tally = if placed.accepted().is_some() { &progress.accepted } else { &progress.refused };
    tally.fetch_add(1, Ordering::Relaxed);
    placed
}

async fn ask(gateway: &Client, order: &Order) -> Outcome {
    let request = Request::post("/orders")
        .header(header::CONTENT_TYPE, "application/json")
        .header("idempotency-key", &order.key)
        .body(Full::new(order.body.clone()));
    match request {
        Err(error) => Outcome::Refused(error.to_string()),
        Ok(request) => match gateway.send(request).await {
            Ok(answer) => judge(&answer),
            Err(error) => Outcome::Later(error.to_string()),
        },
    }
}

/// Only the shop's own word is final: what the mesh says in its stead may be otherwise in a moment.
fn judge(answer: &Answer) -> Outcome {
    #[derive(Deserialize)]
    struct Accepted {
        id: String,
    }
    let why = || format!("{} {}", answer.status.as_u16(), answer.title());
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    match answer.status {
        status if status.is_success() => match answer.json::<Accepted>() {
            Ok(order) => Outcome::Accepted(order.id),
            Err(_) => Outcome::Later(format!("{} without an order", status.as_u16())),
        },
        status if status.is_client_error() && !answer.by_mesh && !passing.contains(&status) => Outcome::Refused(why()),
        _ => Outcome::Later(why()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, by_mesh: bool, body: &'static str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, by_mesh, body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn only_the_shops_own_word_is_final() {
        let later = |why: &str| Outcome::Later(why.to_owned());
        for (answer, outcome) in [
            (answer(201, false, r#"{"id":"ord-1"}"#), Outcome::Accepted("ord-1".to_owned())),
            (answer(201, false, "{}"), later("201 without an order")),
            (answer(402, false, r#"{"title":"declined"}"#), Outcome::Refused("402 declined".to_owned())),
            (answer(404, true, r#"{"title":"No such service"}"#), later("404 No such service")),
            (answer(429, false, ""), later("429 Too Many Requests")),
            (answer(503, true, r#"{"title":"No live instance"}"#), later("503 No live instance")),
        ] {
            assert_eq!(judge(&answer), outcome);
        }
    }

    #[test]
    fn what_customers_want_repeats_with_its_seed() {
        let catalogue = Catalogue(vec!["A".into(), "B".into(), "C".into()]);
        let draw = |seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            (0..20).map(|_| catalogue.choose(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert!(draw(7).iter().all(|order| (1..=LINES_MAX).contains(&order["lines"].as_array().unwrap().len())));
    }
}
