//! Every refusal explains itself: who, why, and what was tried.

use http::{Request, StatusCode};
use model::config::{self, Protocol};
use proxy::Target;
use runtime::http::{empty, full};
use serde_json::{Value, json};

use crate::kit::{App, Client, Mesh, endpoint, get, header, in_mesh, soon};

fn problem(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

fn nowhere() -> std::net::SocketAddr {
    // Port 1 of loopback: nobody listens there.
    ([127, 0, 0, 1], 1).into()
}

#[tokio::test]
async fn each_reason_has_its_status_its_error_and_its_words() {
    let mesh = Mesh::new(&["orders", "catalog", "secret", "empty", "dead"]);
    let services = vec![
        ("empty", in_mesh("empty", Protocol::Http, Vec::new())),
        ("dead", in_mesh("dead", Protocol::Http, vec![endpoint("dead-0", nowhere())])),
    ];
    let orders = mesh.caller("orders", services).await;
    for (host, target, status, error, words) in [
        ("catalogue", "/", 404, "destination_not_found", "no service is named \"catalogue\"; did you mean catalog?"),
        ("secret", "/", 403, "http_request_denied", "add \"secret\" to services.orders.calls"),
        ("broker", "/", 403, "http_request_denied", "services.orders.publishes or services.orders.consumes"),
        ("empty", "/", 503, "destination_unavailable", "empty has no live instance"),
        ("dead", "/", 502, "connection_refused", "no connection to dead"),
        ("sidecar", "/v2", 404, "http_request_error", "/healthz, /metrics and /v1/status"),
        ("a..b", "/", 400, "http_request_error", "empty label"),
        ("catalog", "/%0a", 400, "http_request_error", "0x0a"),
    ] {
        let answer = get(orders.outbound(), host, target).await;
        assert_eq!(answer.status().as_u16(), status, "{host}");
        assert!(header(&answer, "proxy-status").starts_with(&format!("meshwork; error={error};")), "{host}");
        assert_eq!(header(&answer, "content-type"), "application/problem+json");
        let problem = problem(answer.body());
        assert!(problem["detail"].as_str().unwrap().contains(words), "{host}: {problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["instance"], header(&answer, "x-request-id"));
        assert_eq!(problem["subject"], "service/orders");
        if host == "dead" {
            assert_eq!(problem["tried"][0]["endpoint"], "dead-0");
            assert!(problem["tried"][0]["outcome"].as_str().unwrap().contains("refused"));
            assert_eq!(problem["tried"].as_array().unwrap().len(), 3, "the first attempt and two retries");
        }
    }
    let near = problem(get(orders.outbound(), "catalogue", "/").await.body());
    assert_eq!(near["near"], json!(["catalog"]));
}

#[tokio::test]
async fn before_the_first_snapshot_it_says_so() {
    let mesh = Mesh::new(&[]);
    let fresh = mesh.fresh("orders").await;
    let answer = get(fresh.outbound(), "catalog", "/").await;
    assert_eq!((answer.status(), header(&answer, "retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    assert!(problem(answer.body())["detail"].as_str().unwrap().contains("no configuration"));
}

#[tokio::test]
async fn the_callee_s_sidecar_refuses_who_is_no_caller() {
    let app = App::saying("x").await;
    let mesh = Mesh::new(&["orders", "catalog"]);
    let catalog = mesh.callee("catalog", Protocol::Http, Target::Application(app.address), &["storefront"]).await;
    let part = in_mesh("catalog", Protocol::Http, vec![endpoint("catalog-0", catalog.inbound())]);
    let orders = mesh.caller("orders", vec![("catalog", part)]).await;
    let answer = get(orders.outbound(), "catalog", "/").await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let problem = problem(answer.body());
    assert_eq!(problem["subject"], "service/catalog");
    assert!(problem["detail"].as_str().unwrap().contains("service/orders"), "{problem}");
    assert!(app.seen().is_empty());
}

#[tokio::test]
async fn an_endpoint_that_is_someone_else_is_not_spoken_to() {
    let app = App::saying("x").await;
    let mesh = Mesh::new(&["orders", "catalog", "thief"]);
    let thief = mesh.callee("thief", Protocol::Http, Target::Application(app.address), &["orders"]).await;
    let part = in_mesh("catalog", Protocol::Http, vec![endpoint("catalog-0", thief.inbound())]);
    let orders = mesh.caller("orders", vec![("catalog", part)]).await;
    let answer = get(orders.outbound(), "catalog", "/").await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert!(problem(answer.body())["tried"][0]["outcome"].as_str().unwrap().contains("service/thief"));
    assert!(app.seen().is_empty());
}

#[tokio::test]
async fn more_at_a_time_than_the_bulkhead_holds_is_503() {
    let (enter, mut entered) = tokio::sync::mpsc::unbounded_channel();
    let leave = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let gate = leave.clone();
    let app = App::streaming(move |_| {
        let (enter, gate) = (enter.clone(), gate.clone());
        Box::pin(async move {
            enter.send(()).unwrap();
            let _leave = gate.acquire().await.unwrap();
            http::Response::new(full("done"))
        })
    })
    .await;
    let mesh = Mesh::new(&["orders", "catalog"]);
    let limits = config::Inbound { concurrent_max: 1, ..config::Inbound::default() };
    let target = Target::Application(app.address);
    let catalog = mesh.callee_with("catalog", Protocol::Http, target, &["orders"], limits).await;
    let mut part = in_mesh("catalog", Protocol::Http, vec![endpoint("catalog-0", catalog.inbound())]);
    part.routes[0].retry.attempts = 0;
    let orders = mesh.caller("orders", vec![("catalog", part)]).await;
    let first = tokio::spawn({
        let address = orders.outbound();
        async move { get(address, "catalog", "/").await }
    });
    soon("the request", entered.recv()).await.unwrap();
    let second = get(orders.outbound(), "catalog", "/").await;
    assert_eq!((second.status(), header(&second, "retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    assert!(header(&second, "proxy-status").contains("connection_limit_reached"));
    leave.add_permits(8);
    assert_eq!(first.await.unwrap().body(), "done");
    assert_eq!(get(orders.outbound(), "catalog", "/").await.body(), "done");
}

#[tokio::test]
async fn a_grpc_client_gets_a_status_with_details() {
    let mesh = Mesh::new(&["orders", "catalog", "secret", "dead"]);
    let dead = in_mesh("dead", Protocol::Grpc, vec![endpoint("dead-0", nowhere())]);
    let orders = mesh.caller("orders", vec![("dead", dead)]).await;
    let mut client = Client::http2(orders.outbound()).await;
    for (host, code, words) in
        [("catalogue", "5", "no%20service"), ("secret", "7", "has no edge to secret"), ("dead", "14", "no connection")]
    {
        let request =
            Request::post(format!("http://{host}/shop.Catalog/Get")).header("content-type", "application/grpc");
        let answer = client.send(request.body(empty()).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::OK, "{host}");
        assert_eq!(header(&answer, "grpc-status"), code, "{host}");
        let words = words.replace("%20", " ");
        assert!(header(&answer, "grpc-message").contains(&words), "{host}: {}", header(&answer, "grpc-message"));
        assert!(!header(&answer, "grpc-status-details-bin").is_empty());
        assert!(header(&answer, "proxy-status").starts_with("meshwork; error="));
    }
}
