//! Stopping: what is in progress is finished, what is new is not begun, and the order is the role's.

use std::time::Duration;

use http::Request;
use model::config::Protocol;
use proxy::Target;
use runtime::http::{empty, full};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::kit::{App, Client, Mesh, PATIENCE, endpoint, get, header, in_mesh, soon};

/// Lets every other task have its turn; whether a port is still listened on cannot be asked, since another test may have got it.
async fn turn() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn inbound_finishes_what_is_in_progress_and_outbound_goes_on() {
    let (enter, mut entered) = mpsc::unbounded_channel();
    let leave = std::sync::Arc::new(Semaphore::new(0));
    let gate = leave.clone();
    let app = App::streaming(move |_| {
        let (enter, gate) = (enter.clone(), gate.clone());
        Box::pin(async move {
            enter.send(()).unwrap();
            gate.acquire().await.unwrap().forget();
            http::Response::new(full("done"))
        })
    })
    .await;
    let mesh = Mesh::new(&["orders", "catalog"]);
    let catalog = mesh.callee("catalog", Protocol::Http, Target::Application(app.address), &["orders"]).await;
    let part = in_mesh("catalog", Protocol::Http, vec![endpoint("catalog-0", catalog.inbound())]);
    let mut orders = mesh.caller("orders", vec![("catalog", part)]).await;

    let address = orders.outbound();
    let call = tokio::spawn(async move { get(address, "catalog", "/").await });
    soon("the request", entered.recv()).await.unwrap();
    let stopping = tokio::spawn(async move {
        catalog.plane.stop_inbound(PATIENCE).await;
        catalog
    });
    turn().await;
    assert!(!stopping.is_finished(), "it does not wait for what is in progress");
    leave.add_permits(1);
    assert_eq!(call.await.unwrap().body(), "done", "what was in progress is finished");
    soon("that no connection is left", stopping).await.unwrap();

    assert_eq!(get(orders.outbound(), "sidecar", "/healthz").await.body(), "ok\n");
    orders.plane.stop_outbound(PATIENCE).await;
    orders.signal.take().unwrap().drain(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn an_idle_client_gets_one_more_answer_that_tells_it_to_go() {
    let app = App::saying("x").await;
    let mesh = Mesh::new(&["orders", "catalog"]);
    let catalog = mesh.callee("catalog", Protocol::Http, Target::Application(app.address), &["orders"]).await;
    let part = in_mesh("catalog", Protocol::Http, vec![endpoint("catalog-0", catalog.inbound())]);
    let orders = std::sync::Arc::new(mesh.caller("orders", vec![("catalog", part)]).await);
    let request = || Request::get("/").header("host", "catalog").body(empty()).unwrap();
    let mut idle = Client::http1(orders.outbound()).await;
    assert_eq!(header(&idle.send(request()).await, "connection"), "");
    let stopped = orders.clone();
    let stopping = tokio::spawn(async move { stopped.plane.stop_outbound(PATIENCE).await });
    turn().await;
    assert!(!stopping.is_finished(), "it does not wait for the idle client");
    let answer = idle.send(request()).await;
    assert_eq!((header(&answer, "connection"), &answer.body()[..]), ("close", &b"x"[..]));
    soon("the end", stopping).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_is_cut_off() {
    let (enter, mut entered) = mpsc::unbounded_channel();
    let app = App::streaming(move |_| {
        enter.send(()).unwrap();
        Box::pin(std::future::pending())
    })
    .await;
    let mesh = Mesh::new(&["orders", "catalog"]);
    let part = crate::kit::external("catalog", Protocol::Http, &[app.address]);
    let mut orders = mesh.caller("orders", vec![("catalog", part)]).await;
    orders.part("catalog").routes[0].timeouts.request = None;
    orders.apply();
    let mut client = Client::http1(orders.outbound()).await;
    let request = Request::get("/").header("host", "catalog").body(empty()).unwrap();
    let call = tokio::spawn(async move { client.try_send(request).await });
    soon("the request", entered.recv()).await.unwrap();
    let (began, bound) = (Instant::now(), Duration::from_secs(20));
    orders.plane.stop_outbound(bound).await;
    assert!(soon("the end of the call", call).await.unwrap().is_err());
    // At its end, and not at once.
    assert!(began.elapsed() > bound * 3 / 4 && began.elapsed() <= bound, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_http2_client_is_told_to_go() {
    let app = App::saying("x").await;
    let mesh = Mesh::new(&["orders", "catalog"]);
    let catalog = mesh.callee("catalog", Protocol::Http, Target::Application(app.address), &["orders"]).await;
    let part = in_mesh("catalog", Protocol::Http, vec![endpoint("catalog-0", catalog.inbound())]);
    let mut orders = mesh.caller("orders", vec![("catalog", part)]).await;
    let mut http2 = Client::http2(orders.outbound()).await;
    let request = || Request::get("http://catalog/").body(empty()).unwrap();
    assert_eq!(http2.send(request()).await.body(), "x");
    orders.signal.take().unwrap().drain(PATIENCE).await.unwrap();
    assert!(soon("the end", http2.try_send(request())).await.is_err());
}
