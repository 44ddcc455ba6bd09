//! Orders from the storefront to the customer's letter box: once each, whatever is delivered twice, refused or killed.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{Shop, TRACEPARENT};

#[tokio::test]
async fn an_order_goes_all_the_way_and_every_effect_happens_once() {
    let shop = Shop::open().await;
    let placed = shop.order("basket-1", &[("HT-1001", 2), ("KT-1001", 1)]).await;
    assert_eq!(placed.status, StatusCode::CREATED, "{}", placed.text());
    let order = placed.json();
    assert_eq!((&order["total_cents"], &order["customer"]), (&json!(2 * 2490 + 4490), &json!("Ada")));
    assert_eq!(order["charge"]["version"], "v2");

    let again = shop.order("basket-1", &[("HT-1001", 2), ("KT-1001", 1)]).await;
    assert_eq!((again.status, &again.json()["id"]), (StatusCode::CREATED, &order["id"]));
    let other = shop.order("basket-1", &[("HT-1001", 3)]).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);

    let report = shop.settled(1).await;
    assert_eq!(report["duplicates"], json!({"shipments": 0, "notifications": 0, "charges": 0}));
    assert_eq!(report["charges_by_version"], json!({"v2": 1}));
    // The task, and both events for notifications, came twice.
    assert_eq!(report["deliveries"], json!({"total": 6, "redelivered": 3}));
    assert_eq!(shop.sidecar.broker.events(), 3);

    let shown = shop.get(&format!("/orders/{}", order["id"].as_str().unwrap())).await.json();
    assert_eq!(shown["state"], "shipped");
    assert!(shown["tracking"].as_str().unwrap().starts_with("BA-"));
    for service in ["orders", "catalog", "inventory", "payments", "broker"] {
        let traces = shop.sidecar.traces_to(service);
        assert!(traces.iter().any(|trace| trace == TRACEPARENT), "{service}: {traces:?}");
    }
}

#[tokio::test]
async fn what_is_killed_goes_on_where_it_was() {
    let mut shop = Shop::open().await;
    for n in 0..8 {
        let placed = shop.order(&format!("basket-{n}"), &[("GD-1003", n + 1)]).await;
        assert_eq!(placed.status, StatusCode::CREATED, "{}", placed.text());
        if n % 2 == 0 {
            let service = ["orders", "shipping", "notifications", "payments"][n as usize / 2];
            shop.crash(service).await;
        }
    }
    let again = shop.order("basket-0", &[("GD-1003", 1)]).await;
    assert_eq!(again.status, StatusCode::CREATED, "{}", again.text());
    let report = shop.settled(8).await;
    assert_eq!(report["duplicates"], json!({"shipments": 0, "notifications": 0, "charges": 0}));
    shop.crash("inventory").await;
    let level = shop.get("/stock?skus=GD-1003").await.lines();
    assert_eq!(level[0]["reserved"], (1..=8).sum::<u32>());
}

#[tokio::test]
async fn an_order_that_the_broker_does_not_take_is_not_accepted_and_can_be_asked_for_again() {
    let shop = Shop::open().await;
    shop.sidecar.broker.set_away(true);
    let refused = shop.order("basket", &[("SD-1001", 4)]).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers["content-type"], "application/problem+json");
    assert!(refused.headers.contains_key("retry-after"));
    assert!(refused.json()["detail"].as_str().unwrap().contains("the broker is away"), "{}", refused.text());
    let report = shop.report_when(|_| true).await;
    assert_eq!((&report["accepted"], &report["unfinished"]), (&json!(0), &json!(1)));

    shop.sidecar.broker.set_away(false);
    let placed = shop.order("basket", &[("SD-1001", 4)]).await;
    assert_eq!(placed.status, StatusCode::CREATED, "{}", placed.text());
    let report = shop.settled(1).await;
    assert_eq!(report["charges_by_version"], json!({"v2": 1}));
}

#[tokio::test]
async fn an_order_that_was_charged_and_left_is_finished_without_its_customer() {
    let mut shop = Shop::open().await;
    shop.sidecar.broker.set_away(true);
    let refused = shop.order("basket", &[("SD-1001", 4)]).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    shop.crash("orders").await;
    shop.sidecar.broker.set_away(false);
    let report = shop.settled(1).await;
    assert_eq!(report["duplicates"], json!({"shipments": 0, "notifications": 0, "charges": 0}));
}

#[tokio::test]
async fn what_cannot_be_sold_is_refused_each_in_its_way() {
    let shop = Shop::open().await;
    let stock = |lines: &[Value]| lines[0]["free"].as_u64().unwrap();
    let before = stock(&shop.get("/stock?skus=KT-1002").await.lines());
    shop.sell_out("GD-1004");
    for (key, lines, status, said) in [
        ("unknown", &[("XX-1", 1)][..], StatusCode::UNPROCESSABLE_ENTITY, "no product XX-1"),
        ("gone", &[("GD-1004", 1)][..], StatusCode::CONFLICT, "1 of GD-1004 are wanted and 0 are there"),
        ("none", &[("HT-1001", 0)][..], StatusCode::UNPROCESSABLE_ENTITY, "0 of HT-1001"),
        // 1,000 casseroles cost more than any card pays; what was set aside for them goes back.
        ("dear", &[("KT-1002", 1_000)][..], StatusCode::PAYMENT_REQUIRED, "are charged"),
    ] {
        for _ in 0..2 {
            let refused = shop.order(key, lines).await;
            assert_eq!(refused.status, status, "{}", refused.text());
            assert!(refused.json()["detail"].as_str().unwrap().contains(said), "{}", refused.text());
        }
    }
    assert_eq!(stock(&shop.get("/stock?skus=KT-1002").await.lines()), before);
    let malformed = shop.call(Method::POST, "/orders", &[], "{").await;
    assert_eq!(malformed.status, StatusCode::BAD_REQUEST);
    let report = shop.report_when(|_| true).await;
    assert_eq!((&report["accepted"], &report["declined"]), (&json!(0), &json!(2)));
}
