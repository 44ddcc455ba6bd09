//! Inventory's four kinds of call, through the storefront; and the storefront's plain pages.

use http::{Method, StatusCode};
use serde_json::json;

use crate::Shop;

#[tokio::test]
async fn levels_deliveries_and_counts_are_streamed() {
    let shop = Shop::open().await;
    let before = shop.get("/stock?skus=PT-1001,PT-1002").await.lines();
    assert_eq!(before.len(), 2);
    let free = before[0]["free"].as_u64().unwrap();

    let mut watched = shop.lines("/stock?skus=PT-1001&updates=2").await;
    assert_eq!(watched.next().await.unwrap()["free"], free);
    let delivery =
        json!([{"sku": "PT-1001", "quantity": 5}, {"sku": "PT-1001", "quantity": 8}, {"sku": "XX-1", "quantity": 1}]);
    let mut summary = shop.call(Method::POST, "/stock/deliveries", &[], &delivery.to_string()).await.json();
    assert_eq!(summary["unknown_skus"].take(), json!(["XX-1"]));
    assert_eq!((&summary["lines"], &summary["units"]), (&json!(3), &json!(13)));
    // A delivery is taken in whole, so the watcher sees it as one change.
    assert_eq!(watched.next().await.unwrap()["free"], free + 13);
    assert_eq!(watched.next().await, None);

    let count = json!([{"sku": "PT-1001", "quantity": free + 10}, {"sku": "XX-1", "quantity": 2}]);
    let counted = shop.call(Method::POST, "/stock/counts", &[], &count.to_string()).await.lines();
    assert_eq!(counted[0], json!({"sku": "PT-1001", "expected": free + 13, "counted": free + 10, "difference": -3}));
    assert_eq!(counted[1]["difference"], 2);
    assert_eq!(shop.get("/stock?skus=XX-1").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_front_page_and_the_catalogue_can_be_read() {
    let shop = Shop::open().await;
    let page = shop.get("/").await;
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(page.text().contains("Birch &amp; Anvil"));
    let found = shop.get("/products?query=oak&limit=2").await.json();
    assert!(found["total"].as_u64().unwrap() >= 3 && found["products"].as_array().unwrap().len() == 2, "{found}");
    assert_eq!(shop.get("/products/HT-1001").await.json()["category"], "Hand tools");
    let missing = shop.get("/products/HT-9999").await;
    assert_eq!(
        (missing.status, &missing.headers["content-type"]),
        (StatusCode::NOT_FOUND, &"application/problem+json".parse().unwrap())
    );
}
