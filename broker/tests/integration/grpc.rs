//! The gRPC API, through the same handler.

use api::broker::queues_client::QueuesClient;
use api::broker::stream_receipt::Outcome;
use api::broker::topics_client::TopicsClient;
use api::broker::{self as wire, Event};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use runtime::http::{Body, BoxFuture, Handler, Peer, SharedHandler, boxed};
use tonic::Code;

use crate::fixture::{Fixture, part};

/// The broker's handler as a client's connection.
#[derive(Clone)]
struct Connection {
    handler: SharedHandler,
    peer: Peer,
}

impl tower::Service<http::Request<tonic::body::Body>> for Connection {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let mut request = request.map(boxed);
        request.extensions_mut().insert(self.peer.clone());
        let answer = Handler::call(&*self.handler, request);
        Box::pin(async move { Ok(answer.await) })
    }
}

fn connect(fixture: &Fixture, service: &str) -> Connection {
    let peer = Peer(format!("spiffe://shop/service/{service}").parse().unwrap());
    Connection { handler: Arc::clone(&fixture.broker.handler()), peer }
}

fn event(id: &str) -> Event {
    Event { id: id.to_owned(), r#type: "test".to_owned(), data: "data".into(), ..Event::default() }
}

#[tokio::test(start_paused = true)]
async fn a_stream_gives_a_receipt_for_each_request_in_order() {
    let fixture = Fixture::start(part()).await;
    let mut queues = QueuesClient::new(connect(&fixture, "orders"));
    let requests = (0..1_000).map(|number| {
        // Every hundredth goes where there is no queue, and every fiftieth repeats the one before.
        let queue = if number % 100 == 99 { "wrk" } else { "work" };
        let id = if number % 50 == 48 { number - 1 } else { number };
        wire::SendRequest { queue: queue.to_owned(), event: Some(event(&id.to_string())) }
    });
    let mut receipts = queues.send_stream(tokio_stream::iter(requests.collect::<Vec<_>>())).await.unwrap().into_inner();
    let mut last = 0;
    for number in 0..1_000 {
        match receipts.message().await.unwrap().unwrap().outcome.unwrap() {
            Outcome::Refusal(refusal) => {
                assert_eq!((number % 100, refusal.code), (99, Code::NotFound as i32), "{}", refusal.reason);
            }
            Outcome::Receipt(receipt) => {
                assert_eq!(receipt.duplicate, number % 50 == 48, "{number}");
                assert!(receipt.position > last || receipt.duplicate && receipt.position == last);
                assert_eq!(receipt.durability(), wire::Durability::Sync);
                last = receipt.position;
            }
        }
    }
    assert!(receipts.message().await.unwrap().is_none());
    assert_eq!(fixture.status()["queues"]["work"]["ready"], 970);
}

#[tokio::test(start_paused = true)]
async fn queues_over_grpc() {
    let fixture = Fixture::start(part()).await;
    let mut sender = QueuesClient::new(connect(&fixture, "orders"));
    for id in ["1", "2"] {
        let request = wire::SendRequest { queue: "work".to_owned(), event: Some(event(id)) };
        assert!(!sender.send(request).await.unwrap().into_inner().duplicate);
    }
    let mut worker = QueuesClient::new(connect(&fixture, "worker"));
    let lease = wire::LeaseRequest { queue: "work".to_owned(), max: 10, ..Default::default() };
    let leases = worker.lease(lease.clone()).await.unwrap().into_inner().leases;
    assert_eq!(leases.len(), 2);
    assert_eq!(leases[0].event.as_ref().unwrap().source, "spiffe://shop/service/orders");
    let ack = wire::AckRequest { queue: "work".to_owned(), leases: vec![leases[0].lease.clone()] };
    worker.ack(ack.clone()).await.unwrap();
    assert_eq!(worker.ack(ack).await.unwrap_err().code(), Code::FailedPrecondition);
    let extend = wire::ExtendRequest { queue: "work".to_owned(), lease: leases[1].lease.clone(), hold_ms: 1_000 };
    worker.extend(extend).await.unwrap();
    let nack = wire::NackRequest {
        queue: "work".to_owned(),
        lease: leases[1].lease.clone(),
        reject: true,
        reason: "bad".to_owned(),
        ..Default::default()
    };
    worker.nack(nack).await.unwrap();
    let list = wire::ListDeadLettersRequest { queue: "work".to_owned(), max: 10, ..Default::default() };
    let dead = worker.list_dead_letters(list).await.unwrap().into_inner().dead_letters;
    assert_eq!((dead.len(), dead[0].reason.as_str()), (1, "rejected by its consumer: bad"));
    let redrive = wire::RedriveRequest { queue: "work".to_owned(), ..Default::default() };
    let progress = worker.redrive(redrive).await.unwrap().into_inner();
    assert_eq!((progress.redriven, progress.remaining, progress.state()), (1, 0, wire::RedriveState::Done));
    let asked = wire::GetRedriveRequest { queue: "work".to_owned(), ..Default::default() };
    assert_eq!(worker.get_redrive(asked).await.unwrap().into_inner(), progress);
    let cancel = wire::CancelRedriveRequest { queue: "work".to_owned(), ..Default::default() };
    assert_eq!(worker.cancel_redrive(cancel).await.unwrap().into_inner(), progress, "it has ended already");
    assert_eq!(worker.lease(lease.clone()).await.unwrap().into_inner().leases.len(), 1);
    let drop = wire::DropDeadLettersRequest { queue: "work".to_owned(), ..Default::default() };
    let refused = worker.drop_dead_letters(drop.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "an empty list is not all of them");
    let all = wire::DropDeadLettersRequest { all: true, ..drop.clone() };
    assert_eq!(worker.drop_dead_letters(all).await.unwrap().into_inner().dropped, 0, "what was redriven is none");
    let chosen = wire::DropDeadLettersRequest { positions: vec![dead[0].position], ..drop };
    assert_eq!(worker.drop_dead_letters(chosen).await.unwrap_err().code(), Code::NotFound);
    let refused = sender.lease(lease).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("services.orders.consumes"), "{refused}");
    let said = refused.metadata().get("proxy-status").unwrap().to_str().unwrap();
    assert!(said.starts_with("broker; error=http_request_denied; details=\""), "{said}");
    let details = String::from_utf8_lossy(refused.details()).into_owned();
    assert!(details.contains("google.rpc.ErrorInfo") && details.contains("NO_EDGE"), "{details}");
}

#[tokio::test(start_paused = true)]
async fn what_the_server_itself_refuses_says_who_it_was() {
    let fixture = Fixture::start(part()).await;
    let request = http::Request::post("http://broker/meshwork.broker.v1.Queues/Purge")
        .header("content-type", "application/grpc")
        .body(runtime::http::empty())
        .unwrap();
    let (_, headers, _) = fixture.call("orders", request).await;
    assert_eq!(headers["grpc-status"], "12");
    assert!(headers["proxy-status"].to_str().unwrap().starts_with("broker; error=http_request_error"));
}

#[tokio::test(start_paused = true)]
async fn topics_over_grpc() {
    let fixture = Fixture::start(part()).await;
    let mut publisher = TopicsClient::new(connect(&fixture, "orders"));
    let request = wire::PublishRequest { topic: "events".to_owned(), event: Some(event("1")) };
    let position = publisher.publish(request.clone()).await.unwrap().into_inner().position;
    let stream = tokio_stream::iter([request]);
    let mut receipts = publisher.publish_stream(stream).await.unwrap().into_inner();
    let Some(Outcome::Receipt(receipt)) = receipts.message().await.unwrap().unwrap().outcome else { panic!() };
    assert_eq!((receipt.position, receipt.duplicate), (position, true));
    fixture.until("settled", |status| status["topics"]["events"]["subscriptions"]["mailer"]["settled"] == 1).await;
    let mut mailer = TopicsClient::new(connect(&fixture, "mailer"));
    let (topic, name) = ("events".to_owned(), "mailer".to_owned());
    let asked = wire::SubscriptionRequest { topic: topic.clone(), name: name.clone() };
    let subscription = mailer.get_subscription(asked).await.unwrap().into_inner();
    assert_eq!((subscription.position, subscription.lag, subscription.delivered), (position + 1, 0, 1));
    let pause = wire::PauseRequest { topic: topic.clone(), name: name.clone(), paused: true };
    assert!(mailer.pause(pause).await.unwrap().into_inner().paused);
    let to = Some(wire::seek_request::To::Earliest(true));
    let seek = wire::SeekRequest { topic: topic.clone(), name, to };
    assert_eq!(mailer.seek(seek).await.unwrap().into_inner().lag, 1);
    let read = wire::ReadRequest { topic, from: 0, max: 10 };
    let read = mailer.read(read).await.unwrap().into_inner();
    assert_eq!((read.events.len(), read.next), (1, position + 1));
}
