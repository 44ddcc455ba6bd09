//! The warehouse's calls: one of each of gRPC's four kinds.

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::book::{Book, Entry, Items, Units};
use super::proto::inventory_server::Inventory;
use super::proto::{Counted, Item, Level, ReleaseRequest, Reservation, ReserveRequest, RestockSummary, WatchRequest};
use crate::ledger::{self, Ledger};
use crate::log;

/// Products in one request.
const ITEMS_MAX: usize = 500;
/// Lines in one stream of a client.
const STREAM_ITEMS_MAX: u32 = 100_000;
/// Answers that wait for a client to take them; then its stream waits.
const ANSWERS_WAITING_MAX: usize = 16;
/// How often a watcher looks for what another instance has written.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The warehouse.
pub struct Warehouse {
    ledger: Ledger<Book>,
    /// Changes whenever something here does.
    changed: watch::Sender<()>,
    /// Ends what would not end by itself.
    stop: CancellationToken,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Warehouse {
    /// A warehouse by its ledger.
    pub fn new(ledger: Ledger<Book>, stop: CancellationToken) -> Self {
        Self { ledger, changed: watch::Sender::new(()), stop }
    }

    async fn write<R: Send + 'static>(
        &self,
        decide: impl FnOnce(&Book) -> (Vec<Entry>, R) + Send + 'static,
    ) -> Result<R, Status> {
        let answer = self.ledger.write(decide).await.map_err(unavailable)?;
        self.changed.send_replace(());
        Ok(answer)
    }
}

#[tonic::async_trait]
impl Inventory for Warehouse {
    async fn reserve(&self, request: Request<ReserveRequest>) -> Result<Response<Reservation>, Status> {
        let ReserveRequest { order_id, items } = request.into_inner();
        let items = wanted(&order_id, items)?;
        let id = order_id.clone();
        let decide = move |book: &Book| match book.reservation(&id) {
            Some(before) if *before == items => (vec![], Ok((items, true))),
            Some(_) => (vec![], Err(Status::already_exists(format!("something else is set aside for {id}")))),
            None => match book.suffice(&items) {
                Ok(()) => (vec![Entry::Reserved { order_id: id, items: items.clone() }], Ok((items, false))),
                Err(shortage) => (vec![], Err(Status::failed_precondition(shortage.to_string()))),
            },
        };
        let (items, repeated_request) = self.write(decide).await??;
        log::say("reserved", &[("order", &order_id), ("lines", &items.len()), ("again", &repeated_request)]);
        let items = items.into_iter().map(|(sku, units)| Item { sku, quantity: units.try_into().unwrap_or(u32::MAX) });
        Ok(Response::new(Reservation { order_id, items: items.collect(), repeated_request }))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<Reservation>, Status> {
        let ReleaseRequest { order_id } = request.into_inner();
        let id = order_id.clone();
        let decide = move |book: &Book| match book.reservation(&id) {
            Some(_) => (vec![Entry::Released { order_id: id }], false),
            None => (vec![], true),
        };
        let repeated_request = self.write(decide).await?;
        log::say("released", &[("order", &order_id), ("again", &repeated_request)]);
        Ok(Response::new(Reservation { order_id, items: vec![], repeated_request }))
    }

    type WatchStream = Answers<Level>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Answers<Level>>, Status> {
        let WatchRequest { skus, limit } = request.into_inner();
        if skus.is_empty() || skus.len() > ITEMS_MAX {
            return Err(Status::invalid_argument(format!("from 1 to {ITEMS_MAX} skus can be watched")));
        }
        let asked = skus.clone();
        let missing = self.ledger.read(move |book| asked.into_iter().find(|sku| book.units(sku).is_none())).await;
        if let Some(sku) = missing.map_err(unavailable)? {
            return Err(Status::not_found(format!("the warehouse does not hold {sku}")));
        }
        let (answers, stream) = mpsc::channel(ANSWERS_WAITING_MAX);
        let watcher = Watcher { ledger: self.ledger.clone(), changed: self.changed.subscribe(), skus, limit, answers };
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(watcher.run()));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn restock(&self, request: Request<Streaming<Item>>) -> Result<Response<RestockSummary>, Status> {
        let mut lines = request.into_inner();
        let mut summary = RestockSummary::default();
        let mut delivery = Items::new();
        while let Some(Item { sku, quantity }) = lines.message().await? {
            summary.lines += 1;
            if summary.lines > STREAM_ITEMS_MAX {
                return Err(Status::resource_exhausted(format!("more than {STREAM_ITEMS_MAX} lines")));
            }
            *delivery.entry(sku).or_default() += u64::from(quantity);
        }
        // The whole delivery is one entry: taken in when its end has come, or not at all.
        let take_in = move |book: &Book| {
            let (held, unknown): (Items, Items) = delivery.into_iter().partition(|(sku, _)| book.units(sku).is_some());
            let units: u64 = held.values().sum();
            let entries = if units == 0 { vec![] } else { vec![Entry::Restocked { items: held }] };
            (entries, (units, unknown.into_keys().collect()))
        };
        (summary.units, summary.unknown_skus) = self.write(take_in).await?;
        log::say("restocked", &[("lines", &summary.lines), ("units", &summary.units)]);
        Ok(Response::new(summary))
    }

    type CountStream = Answers<Counted>;

    async fn count(&self, request: Request<Streaming<Item>>) -> Result<Response<Answers<Counted>>, Status> {
        let ledger = self.ledger.clone();
        let counts = request.into_inner().take(STREAM_ITEMS_MAX as usize).then(move |item| {
            let ledger = ledger.clone();
            async move { compare(&ledger, item?).await }
        });
        Ok(Response::new(Box::pin(counts)))
    }
}

/// One caller's view of some levels.
struct Watcher {
    ledger: Ledger<Book>,
    changed: watch::Receiver<()>,
    skus: Vec<String>,
    limit: u32,
    answers: mpsc::Sender<Result<Level, Status>>,
}

impl Watcher {
    /// Tells each level once, and then whenever it has changed, until enough were told or nobody listens.
    async fn run(mut self) {
        let mut told: Vec<Option<Units>> = vec![None; self.skus.len()];
        let mut left = if self.limit == 0 { u32::MAX } else { self.limit };
        loop {
            self.changed.mark_unchanged();
            let skus = self.skus.clone();
            let levels = self.ledger.read(move |book| skus.iter().map(|sku| book.units(sku)).collect::<Vec<_>>()).await;
            let levels = match levels {
                Ok(levels) => levels,
                Err(error) => return drop(self.answers.send(Err(unavailable(error))).await),
            };
            for (at, units) in levels.into_iter().enumerate().filter_map(|(at, units)| Some((at, units?))) {
                if told[at] == Some(units) {
                    continue;
                }
                told[at] = Some(units);
                let level = Level { sku: self.skus[at].clone(), free: units.free, reserved: units.reserved };
                if self.answers.send(Ok(level)).await.is_err() {
                    return;
                }
                left -= 1;
                if left == 0 {
                    return;
                }
            }
            tokio::select! {
                () = self.answers.closed() => return,
                _ = self.changed.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

async fn compare(ledger: &Ledger<Book>, Item { sku, quantity }: Item) -> Result<Counted, Status> {
    let asked = sku.clone();
    let units = ledger.read(move |book| book.units(&asked)).await.map_err(unavailable)?;
    let Units { free, reserved } = units.unwrap_or_default();
    let (expected, counted) = (free + reserved, u64::from(quantity));
    let difference = counted.cast_signed() - expected.cast_signed();
    Ok(Counted { sku, expected, counted, difference })
}

fn wanted(order_id: &str, items: Vec<Item>) -> Result<Items, Status> {
    if order_id.is_empty() || items.is_empty() || items.len() > ITEMS_MAX || items.iter().any(|item| item.quantity == 0)
    {
        return Err(Status::invalid_argument(format!(
            "an order id and 1 to {ITEMS_MAX} items, each at least once, are needed"
        )));
    }
    let mut sums = Items::new();
    for Item { sku, quantity } in items {
        *sums.entry(sku).or_default() += u64::from(quantity);
    }
    Ok(sums)
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn unavailable(error: ledger::Error) -> Status {
    Status::unavailable(format!("the ledger: {error}"))
}
