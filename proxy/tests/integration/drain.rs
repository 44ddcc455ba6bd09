//! Stopping: what is in progress is finished, what is new is not begun, and the order is the role's.

use std::time::Duration;

use http::Request;
use model::config::Protocol;
use proxy::Target;
use runtime::http::{empty, full};
use tokio::sync::{Semaphore, mpsc};

use crate::kit::{App, Client, Mesh, endpoint, get, header, in_mesh};

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
    entered.recv().await.unwrap();
    let catalog_address = catalog.inbound();
    let stopping = tokio::spawn(async move {
        catalog.plane.stop_inbound().await;
        catalog
    });
    // The door is closed: nobody new comes in.
    tokio::time::timeout(Duration::from_secs(5), async {
        while runtime::net::connect(catalog_address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the listener closes");
    leave.add_permits(1);
    assert_eq!(call.await.unwrap().body(), "done", "what was in progress is finished");
    tokio::time::timeout(Duration::from_secs(5), stopping).await.expect("no connection is left").unwrap();

    assert_eq!(get(orders.outbound(), "sidecar", "/healthz").await.body(), "ok\n");
    orders.plane.stop_outbound().await;
    assert!(runtime::net::connect(orders.outbound()).await.is_err());
    orders.signal.take().unwrap().drain(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn clients_are_told_to_go() {
    let app = App::saying("x").await;
    let mesh = Mesh::new(&["orders", "catalog"]);
    let catalog = mesh.callee("catalog", Protocol::Http, Target::Application(app.address), &["orders"]).await;
    let part = in_mesh("catalog", Protocol::Http, vec![endpoint("catalog-0", catalog.inbound())]);
    let mut orders = mesh.caller("orders", vec![("catalog", part)]).await;
    let mut http2 = Client::http2(orders.outbound()).await;
    let request = || Request::get("http://catalog/").body(empty()).unwrap();
    assert_eq!(http2.send(request()).await.body(), "x");
    let mut idle = Client::http1(orders.outbound()).await;
    let answer = idle.send(Request::get("/").header("host", "catalog").body(empty()).unwrap()).await;
    assert_eq!(header(&answer, "connection"), "");
    orders.signal.take().unwrap().drain(Duration::from_secs(5)).await.unwrap();
    assert!(http2.try_send(request()).await.is_err());
    assert!(idle.try_send(request()).await.is_err());
}
