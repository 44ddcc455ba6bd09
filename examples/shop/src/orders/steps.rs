//! The steps of an order, in their order. Each is safe to do again: reads, or calls and messages that carry the order's id.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{Request, StatusCode, header};
use serde_json::json;
use tonic::Code;

use super::Orders;
use super::book::{Book, Declined, Entry, Line, Order, Paid, Progress};
use super::request::{OrderRequest, Wanted};
use crate::broker::{self, Destination};
use crate::catalog::Product;
use crate::event::Outgoing;
use crate::inventory::{Item, ReleaseRequest, ReserveRequest};
use crate::log;
use crate::mesh::CALL_MAX;
use crate::payments::{ChargeRequest, IDEMPOTENCY_KEY};
use crate::problem::{self, Problem};
use crate::shipping::Fulfilment;
use crate::trace::Trace;

/// Products of one order that are asked for at a time.
const PRICES_AT_A_TIME: usize = 4;

impl Orders {
    /// Takes an order from wherever its last try ended to where it is accepted.
    ///
    /// # Errors
    /// 409 and 402 for an order that came to nothing; 422 for one that cannot be; 503 for one that may be tried again.
    pub(super) async fn place(&self, key: String, request: OrderRequest, trace: &Trace) -> problem::Result<Progress> {
        let asked = key.clone();
        let known = self.ledger.read(move |book| book.of_key(&asked).cloned()).await?;
        let order = match known {
            Some(order) => order.for_request(&request)?.clone(),
            None => self.open(key, request, trace).await?,
        };
        self.finish(order, trace).await
    }

    /// Takes an opened order to where it is accepted.
    ///
    /// # Errors
    /// As for [`Self::place`].
    pub(super) async fn finish(&self, mut order: Progress, trace: &Trace) -> problem::Result<Progress> {
        if order.placed {
            return Ok(order);
        }
        if order.charge.is_none() && order.declined.is_none() {
            let entry = self.reserve_and_charge(&order.order, trace).await?;
            order = self.enter(&order.order.id, entry).await?;
        }
        if let Some(why) = &order.declined {
            return Err(why.problem());
        }
        self.dispatch(&order.order, trace).await?;
        let order = self.enter(&order.order.id, Entry::Placed { order_id: order.order.id.clone() }).await?;
        log::say("order placed", &[("order", &order.order.id), ("cents", &order.order.total_cents())]);
        Ok(order)
    }

    async fn open(&self, key: String, request: OrderRequest, trace: &Trace) -> problem::Result<Progress> {
        let lines = stream::iter(request.lines.clone())
            .map(|wanted| self.price(wanted, trace))
            .buffered(PRICES_AT_A_TIME)
            .try_collect()
            .await?;
        let customer = request.customer.clone();
        let open = move |book: &Book| {
            if book.of_key(&key).is_some() {
                return (vec![], key);
            }
            let order = Order { id: unused_id(book), key: key.clone(), customer, lines };
            (vec![Entry::Opened(order)], key)
        };
        // Of two requests with one key the first opens the order; the other goes on with it.
        let key = self.ledger.write(open).await?;
        let opened = self.ledger.read(move |book| book.of_key(&key).cloned()).await?;
        let order = opened.ok_or_else(|| Problem::unavailable("the ledger does not have what was written"))?;
        order.for_request(&request).cloned()
    }

    async fn price(&self, wanted: Wanted, trace: &Trace) -> problem::Result<Line> {
        let answer = self.mesh.get(&format!("http://catalog/products/{}", wanted.sku), trace).await?;
        // Only the catalogue's own word counts: the mesh's 404 says that the catalogue could not be asked.
        let by_catalog = !answer.headers.contains_key("proxy-status");
        if answer.status == StatusCode::NOT_FOUND && by_catalog {
            let detail = answer.reason();
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "this cannot be ordered", detail));
        }
        let Product { name, price_cents, weight_g, .. } = answer.json("catalog")?;
        Ok(Line { wanted, name, price_cents, weight_g })
    }

    /// Gives what to write down: charged, or declined.
    async fn reserve_and_charge(&self, order: &Order, trace: &Trace) -> problem::Result<Entry> {
        let order_id = order.id.clone();
        if let Some(why) = self.reserve(order, trace).await? {
            return Ok(Entry::Declined { order_id, why });
        }
        match self.charge(order, trace).await? {
            Ok(charge) => Ok(Entry::Charged { order_id, charge }),
            Err(why) => {
                self.release(order, trace).await?;
                Ok(Entry::Declined { order_id, why })
            }
        }
    }

    async fn reserve(&self, order: &Order, trace: &Trace) -> problem::Result<Option<Declined>> {
        let items =
            order.lines.iter().map(|Line { wanted, .. }| Item { sku: wanted.sku.clone(), quantity: wanted.quantity });
        let mut request = trace.grpc(ReserveRequest { order_id: order.id.clone(), items: items.collect() });
        request.set_timeout(CALL_MAX);
        match self.inventory.clone().reserve(request).await {
            Ok(_) => Ok(None),
            Err(status) if status.code() == Code::FailedPrecondition => {
                Ok(Some(Declined::Stock(status.message().to_owned())))
            }
            Err(status) => Err(unanswered("inventory", &status)),
        }
    }

    async fn release(&self, order: &Order, trace: &Trace) -> problem::Result<()> {
        let mut request = trace.grpc(ReleaseRequest { order_id: order.id.clone() });
        request.set_timeout(CALL_MAX);
        let released = self.inventory.clone().release(request).await;
        released.map(drop).map_err(|status| unanswered("inventory", &status))
    }

    async fn charge(&self, order: &Order, trace: &Trace) -> problem::Result<Result<Paid, Declined>> {
        let charge = ChargeRequest {
            order_id: order.id.clone(),
            customer: order.customer.clone(),
            amount_cents: order.total_cents(),
        };
        let request = Request::post("http://payments/charges")
            .header(IDEMPOTENCY_KEY, &order.id)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(json!(charge).to_string()))
            .map_err(|error| Problem::malformed(error.to_string()))?;
        let answer = self.mesh.call(request, trace).await?;
        if answer.status == StatusCode::PAYMENT_REQUIRED {
            return Ok(Err(Declined::Payment(answer.reason())));
        }
        answer.json("payments").map(Ok)
    }

    /// The task before the news: whoever hears of an order can count on its being shipped.
    async fn dispatch(&self, order: &Order, trace: &Trace) -> problem::Result<()> {
        let fulfilment =
            Fulfilment { order_id: order.id.clone(), customer: order.customer.clone(), weight_g: order.weight_g() };
        let event = |step: &str, kind, data| Outgoing {
            id: format!("{}.{step}", order.id),
            source: "/shop/orders",
            kind,
            key: order.id.clone(),
            data,
        };
        let task = event("fulfil", "order.fulfil", json!(fulfilment));
        broker::send(&self.mesh, Destination::Queue("fulfilment"), task, trace).await?;
        let news = event("placed", "order.placed", json!(order.placed()));
        broker::send(&self.mesh, Destination::Topic("orders"), news, trace).await?;
        Ok(())
    }

    /// Writes how far an order has got, and gives it as it then stands.
    async fn enter(&self, id: &str, entry: Entry) -> problem::Result<Progress> {
        let written = id.to_owned();
        let news = move |book: &Book| {
            let known = book.order(&written).is_some_and(|order| match &entry {
                Entry::Charged { .. } => order.charge.is_some(),
                Entry::Placed { .. } => order.placed,
                _ => false,
            });
            (if known { vec![] } else { vec![entry] }, ())
        };
        self.ledger.write(news).await?;
        let asked = id.to_owned();
        let order = self.ledger.read(move |book| book.order(&asked).cloned()).await?;
        order.ok_or_else(|| Problem::not_found(format!("there is no order {id}")))
    }
}

fn unanswered(service: &str, status: &tonic::Status) -> Problem {
    Problem::unavailable(format!("{service} answered {:?}: {}", status.code(), status.message()))
}

/// Short enough to be read out on the telephone.
fn unused_id(book: &Book) -> String {
    const ID_CHARS: usize = 12;
    loop {
        let id = format!("ord-{}", &uuid::Uuid::new_v4().simple().to_string()[..ID_CHARS]);
        if book.order(&id).is_none() {
            return id;
        }
    }
}
