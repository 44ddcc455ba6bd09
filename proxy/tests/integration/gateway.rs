//! Requests from outside of the mesh.

use http::{Request, StatusCode};
use model::config::{GatewayBackend, Match, PathMatch, Protocol};
use proxy::Target;
use runtime::http::{empty, full};

use crate::kit::{App, Client, Mesh, Node, endpoint, external, get, header, in_mesh, name};

async fn door(app: &App, bytes_max: u64) -> Node {
    let mesh = Mesh::new(&["shop"]);
    let shop = Match { path: Some(PathMatch::Prefix("/shop".to_owned())), method: None, headers: Default::default() };
    let backend = GatewayBackend { service: name("shop"), matches: vec![shop], hosts: vec!["shop.example".to_owned()] };
    mesh.gateway(backend, external("shop", Protocol::Http, &[app.address]), bytes_max).await
}

#[tokio::test]
async fn hosts_and_paths_decide_what_comes_in() {
    let app = App::saying("in").await;
    let door = door(&app, 1 << 20).await;
    let address = door.plane.gateway_address().unwrap();
    for (host, target, status) in [
        ("shop.example", "/shop/cart", StatusCode::OK),
        ("SHOP.example.:80", "/shop", StatusCode::OK),
        ("shop.example", "/admin", StatusCode::NOT_FOUND),
        ("shop.example", "/shop/../admin", StatusCode::NOT_FOUND),
        ("shop.example", "/%73hop/", StatusCode::OK),
        ("other.example", "/shop", StatusCode::NOT_FOUND),
        ("a@b", "/shop", StatusCode::BAD_REQUEST),
    ] {
        let answer = get(address, host, target).await;
        assert_eq!(answer.status(), status, "{host} {target}");
        let refused = status != StatusCode::OK;
        assert_eq!(header(&answer, "proxy-status").starts_with("meshwork; error="), refused, "{host} {target}");
    }
}

#[tokio::test]
async fn what_clients_pretend_is_taken_off() {
    let app = App::saying("in").await;
    let door = door(&app, 1 << 20).await;
    let request = Request::get("/shop")
        .header("host", "shop.example")
        .header("x-forwarded-for", "10.0.0.1")
        .header("x-forwarded-proto", "https")
        .header("forwarded", "for=10.0.0.1")
        .header("x-meshwork-caller", "spiffe://test/service/boss");
    let mut client = Client::http1(door.plane.gateway_address().unwrap()).await;
    client.send(request.body(empty()).unwrap()).await;
    let seen = app.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.example"));
    assert_eq!(seen.header("x-meshwork-caller"), None);
    assert_eq!(seen.header("forwarded"), None);
    assert!(seen.header("traceparent").is_some());
}

#[tokio::test]
async fn a_body_past_its_bound_is_413() {
    let app = App::saying("in").await;
    let door = door(&app, 10).await;
    let address = door.plane.gateway_address().unwrap();
    for (body, status) in [("0123456789", StatusCode::OK), ("0123456789a", StatusCode::PAYLOAD_TOO_LARGE)] {
        for chunked in [false, true] {
            for method in ["POST", "PUT"] {
                let once = futures_util::stream::iter([Ok::<_, std::io::Error>(hyper::body::Frame::data(body.into()))]);
                let streamed = runtime::http::boxed(http_body_util::StreamBody::new(once));
                let request = Request::builder().method(method).uri("/shop").header("host", "shop.example");
                let request = request.body(if chunked { streamed } else { full(body) }).unwrap();
                let answer = Client::http1(address).await.send(request).await;
                assert_eq!(answer.status(), status, "{body} {chunked} {method}");
            }
        }
    }
}

#[tokio::test]
async fn http2_comes_in_and_http1_goes_on() {
    let app = App::saying("in").await;
    let mesh = Mesh::new(&["shop"]);
    let shop = mesh.callee("shop", Protocol::Http, Target::Application(app.address), &[]).await;
    let part = in_mesh("shop", Protocol::Http, vec![endpoint("shop-0", shop.inbound())]);
    let backend = GatewayBackend { service: name("shop"), matches: Vec::new(), hosts: Vec::new() };
    let door = mesh.gateway(backend, part, 1 << 20).await;
    let mut shop = shop;
    let gateway = model::identity::Subject::Gateway(name("door"));
    shop.snapshot.inbound.as_mut().unwrap().callers.insert(gateway);
    shop.apply();
    let mut client = Client::http2(door.plane.gateway_address().unwrap()).await;
    let answer = client.send(Request::get("http://public.example/a?b").body(empty()).unwrap()).await;
    assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::OK, &b"in"[..]));
    assert_eq!((app.last().uri.to_string().as_str(), app.last().header("host")), ("/a?b", Some("public.example")));
}
