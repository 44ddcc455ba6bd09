//! HTTP calls from one application to another through both of their sidecars.

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use model::config::{Protocol, Route};
use proxy::Target;
use runtime::http::{BoxFuture, Handler, Peer, boxed, empty, full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::kit::{App, Client, Mesh, Node, PATIENCE, endpoint, external, get, header, in_mesh, name, soon};

/// `orders` calls `catalog`, whose application is `app`.
async fn two(app: &App) -> (Node, Node) {
    let mesh = Mesh::new(&["orders", "catalog", "secret"]);
    let catalog = mesh.callee("catalog", Protocol::Http, Target::Application(app.address), &["orders"]).await;
    let part = in_mesh("catalog", Protocol::Http, vec![endpoint("catalog-0", catalog.inbound())]);
    (mesh.caller("orders", vec![("catalog", part)]).await, catalog)
}

#[tokio::test]
async fn a_call_goes_through_both_sidecars() {
    let app = App::saying("here").await;
    let (orders, _catalog) = two(&app).await;
    for (host, target) in [
        ("catalog", "/items?q=1"),
        ("catalog:8080", "/items?q=1"),
        ("CATALOG.", "/items?q=1"),
        ("elsewhere", "http://catalog/items?q=1"),
        ("catalog", "/a/..//items?q=1"),
        ("catalog", "/%69tems?q=1"),
    ] {
        let answer = get(orders.outbound(), host, target).await;
        assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::OK, &b"here"[..]), "{host} {target}");
        let seen = app.last();
        assert_eq!(seen.uri, "/items?q=1", "{host} {target}");
        assert_eq!(seen.header("x-meshwork-caller"), Some("spiffe://test/service/orders"));
        assert_eq!(seen.header("x-request-id"), Some(header(&answer, "x-request-id")));
    }
}

#[tokio::test]
async fn lanes_share_a_port_and_count_together() {
    let app = App::saying("here").await;
    let mut mesh = Mesh::new(&["orders", "catalog"]);
    mesh.lanes = std::sync::Arc::new(runtime::lanes::Lanes::start(2, "test").unwrap());
    let catalog = mesh.callee("catalog", Protocol::Http, Target::Application(app.address), &["orders"]).await;
    let part = in_mesh("catalog", Protocol::Http, vec![endpoint("catalog-0", catalog.inbound())]);
    let orders = mesh.caller("orders", vec![("catalog", part)]).await;
    for _ in 0..40 {
        // Each on a connection of its own, which the kernel gives to either lane.
        assert_eq!(get(orders.outbound(), "catalog", "/").await.body(), "here");
    }
    assert_eq!(orders.plane.observed().edges[0].calls, 40);
    orders.plane.stop_outbound(PATIENCE).await;
    catalog.plane.stop_inbound(PATIENCE).await;
}

#[tokio::test]
async fn the_trace_goes_on_with_a_new_span_for_each_hop() {
    let app = App::saying("").await;
    let (orders, _catalog) = two(&app).await;
    let came = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = Request::get("/").header("host", "catalog").header("traceparent", came).header("tracestate", "a=b");
    Client::http1(orders.outbound()).await.send(request.body(empty()).unwrap()).await;
    let seen = app.last();
    let went = seen.header("traceparent").unwrap();
    assert_eq!((&went[..36], &went[52..]), (&came[..36], &came[52..]));
    assert_ne!(went[36..52], came[36..52]);
    assert_eq!(seen.header("tracestate"), Some("a=b"));
}

#[tokio::test]
async fn what_is_for_one_hop_stays_on_it() {
    let app = App::start(|_| {
        let reply = Response::builder().header("connection", "x-back").header("x-back", "1").header("keep-alive", "5");
        reply.header("proxy-status", "meshwork; error=connection_refused").body(full("ok")).unwrap()
    })
    .await;
    let (orders, _catalog) = two(&app).await;
    let request = Request::get("/")
        .header("host", "catalog")
        .header("connection", "keep-alive, x-there")
        .header("x-there", "1")
        .header("keep-alive", "timeout=5")
        .header("proxy-connection", "keep-alive")
        .header("te", "trailers, deflate")
        .header("x-meshwork-caller", "spiffe://test/service/boss")
        .header("x-stays", "1");
    let answer = Client::http1(orders.outbound()).await.send(request.body(empty()).unwrap()).await;
    let seen = app.last();
    for gone in ["x-there", "keep-alive", "proxy-connection"] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    // Our own, as RFC 9110 §10.1.4 wants it beside TE.
    assert_eq!(seen.header("connection"), Some("te"));
    assert_eq!(seen.header("te"), Some("trailers"));
    assert_eq!(seen.header("x-stays"), Some("1"));
    assert_eq!(seen.header("x-meshwork-caller"), Some("spiffe://test/service/orders"));
    for gone in ["x-back", "keep-alive", "proxy-status"] {
        assert_eq!(header(&answer, gone), "", "{gone}");
    }
}

#[tokio::test]
async fn bodies_go_both_ways_whatever_their_framing() {
    let app = App::start(|seen| Response::new(full(seen.body.clone()))).await;
    let (orders, _catalog) = two(&app).await;
    let long = vec![b'x'; 300_000];
    for method in ["POST", "PUT", "GET"] {
        for chunked in [false, true] {
            let (mut client1, mut client2) =
                (Client::http1(orders.outbound()).await, Client::http2(orders.outbound()).await);
            for client in [&mut client1, &mut client2] {
                let pieces =
                    long.chunks(70_000).map(|piece| Ok::<_, std::io::Error>(Frame::data(piece.to_vec().into())));
                let streamed = StreamBody::new(futures_util::stream::iter(pieces.collect::<Vec<_>>()));
                let body = if chunked { boxed(streamed) } else { full(long.clone()) };
                let mut request = Request::builder().method(method).uri("http://catalog/echo").body(body).unwrap();
                if chunked && method == "GET" && matches!(client, Client::Http1(_)) {
                    request.headers_mut().insert("transfer-encoding", "chunked".parse().unwrap());
                }
                request.headers_mut().insert("host", "catalog".parse().unwrap());
                let answer = client.send(request).await;
                assert_eq!((answer.status(), answer.body().len()), (StatusCode::OK, long.len()), "{method} {chunked}");
            }
        }
    }
}

#[tokio::test]
async fn trailers_of_http1_go_through() {
    let app = App::streaming(|_| {
        Box::pin(async {
            let trailers = http::HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]);
            let frames = vec![Ok::<_, std::io::Error>(Frame::data("ab".into())), Ok(Frame::trailers(trailers))];
            let body = boxed(StreamBody::new(futures_util::stream::iter(frames)));
            Response::builder().header("trailer", "x-sum").body(body).unwrap()
        })
    })
    .await;
    let (orders, _catalog) = two(&app).await;
    let request = Request::get("/").header("host", "catalog").header("te", "trailers").header("connection", "te");
    let mut client = Client::http1(orders.outbound()).await;
    let answer = soon("an answer", client.try_send(request.body(empty()).unwrap())).await.unwrap();
    let whole = soon("an end", answer.into_body().collect()).await.unwrap();
    assert_eq!(whole.trailers().unwrap()["x-sum"], "7");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_call_behind_it() {
    let (gone, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (began, mut begun) = tokio::sync::mpsc::unbounded_channel();
    struct Guard(tokio::sync::mpsc::UnboundedSender<()>);
    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let app = App::streaming(move |_| {
        let (guard, began) = (Guard(gone.clone()), began.clone());
        Box::pin(async move {
            let _guard = guard;
            began.send(()).unwrap();
            std::future::pending().await
        })
    })
    .await;
    let (orders, _catalog) = two(&app).await;
    for http2 in [false, true] {
        let mut client =
            if http2 { Client::http2(orders.outbound()).await } else { Client::http1(orders.outbound()).await };
        let request = Request::get("http://catalog/").header("host", "catalog").body(empty()).unwrap();
        let call = tokio::spawn(async move { client.try_send(request).await });
        soon("the request", begun.recv()).await.unwrap();
        call.abort();
        soon("that it is cancelled", told.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn endpoints_that_stay_keep_their_connections_over_snapshots() {
    let app = App::saying("x").await;
    let (mut orders, _catalog) = two(&app).await;
    get(orders.outbound(), "catalog", "/").await;
    let connections = |node: &Node| node.plane.status()["services"]["catalog"]["endpoints"][0]["connections"].clone();
    assert_eq!(connections(&orders), 1);
    orders.part("catalog").endpoints.push(endpoint("catalog-9", ([127, 0, 0, 1], 9).into()));
    orders.apply();
    assert_eq!(connections(&orders), 1);
    orders.part("catalog").endpoints.remove(0);
    orders.apply();
    assert_eq!(connections(&orders), 0);
}

#[tokio::test]
async fn a_snapshot_is_taken_whole_or_not_at_all() {
    let app = App::saying("x").await;
    let (orders, _catalog) = two(&app).await;
    let mut broken = orders.snapshot.clone();
    broken.version += 1;
    broken.services.get_mut(&name("catalog")).unwrap().routes[0].backends[0].service = name("nowhere");
    let rejected = orders.plane.apply(broken.into()).unwrap_err();
    assert!(rejected.to_string().contains("nowhere"), "{rejected}");
    let mut old = orders.snapshot.clone();
    old.version -= 1;
    assert!(orders.plane.apply(old.into()).unwrap_err().to_string().contains("older"));
    let mut other = orders.snapshot.clone();
    other.subject = model::identity::Subject::Broker;
    let rejected = orders.plane.apply(other.into()).unwrap_err().to_string();
    assert!(rejected.contains("broker"), "{rejected}");
    assert_eq!(get(orders.outbound(), "catalog", "/").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn weights_and_matches_choose_among_backends() {
    let (v1, v2, beta) = (App::saying("v1").await, App::saying("v2").await, App::saying("beta").await);
    let mesh = Mesh::new(&["orders", "pay", "v1", "v2", "beta"]);
    let mut part = external("pay", Protocol::Http, &[v1.address]);
    let backend = |to: &str, weight| model::config::Backend { service: name(to), subset: None, weight };
    let split = Route { backends: vec![backend("v1", 3), backend("v2", 1)], ..Route::plain(&name("pay")) };
    let matched = model::config::Match {
        path: Some(model::config::PathMatch::Prefix("/beta".to_owned())),
        method: None,
        headers: [("x-try".to_owned(), "1".to_owned())].into(),
    };
    let by_header = Route { matches: vec![matched], backends: vec![backend("beta", 1)], ..Route::plain(&name("pay")) };
    part.routes = vec![by_header, split];
    let hidden = |text: &str, app: &App| model::snapshot::ServicePart {
        callable: false,
        ..external(text, Protocol::Http, &[app.address])
    };
    let services =
        vec![("pay", part), ("v1", hidden("v1", &v1)), ("v2", hidden("v2", &v2)), ("beta", hidden("beta", &beta))];
    let orders = mesh.caller("orders", services).await;
    let mut client = Client::http1(orders.outbound()).await;
    for _ in 0..400 {
        let request = Request::get("/").header("host", "pay").body(empty()).unwrap();
        assert_eq!(client.send(request).await.status(), StatusCode::OK);
    }
    assert!((50..150).contains(&v2.seen().len()), "{}", v2.seen().len());
    let request = Request::get("/beta/x").header("host", "pay").header("x-try", "1").body(empty()).unwrap();
    assert_eq!(client.send(request).await.body(), "beta");
    assert_eq!(get(orders.outbound(), "v2", "/").await.status(), StatusCode::FORBIDDEN);
    let observed = orders.plane.observed();
    let pay = observed.edges.iter().find(|edge| edge.service == name("pay")).unwrap();
    assert_eq!((pay.calls, pay.failures, pay.retries), (401, 0, 0));
}

struct Echo;

impl Handler for Echo {
    fn call(&self, request: Request<runtime::http::Body>) -> BoxFuture<Response<runtime::http::Body>> {
        Box::pin(async move {
            let peer = request.extensions().get::<Peer>().map(|peer| peer.0.to_string());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Response::new(full(format!("{}: {}", peer.unwrap_or_default(), String::from_utf8_lossy(&body))))
        })
    }
}

#[tokio::test]
async fn a_handler_of_the_process_answers_in_an_application_s_place() {
    let mesh = Mesh::new(&["orders", "store"]);
    let store = mesh.callee("store", Protocol::Http, Target::Handler(std::sync::Arc::new(Echo)), &["orders"]).await;
    let part = in_mesh("store", Protocol::Http, vec![endpoint("store-0", store.inbound())]);
    let orders = mesh.caller("orders", vec![("store", part)]).await;
    let request = Request::post("/").header("host", "store").body(full("hello")).unwrap();
    let answer = Client::http1(orders.outbound()).await.send(request).await;
    assert_eq!(answer.body(), "spiffe://test/service/orders: hello");
}

#[tokio::test]
async fn a_call_may_begin_inside_of_the_process() {
    let app = App::saying("pushed").await;
    let (orders, _catalog) = two(&app).await;
    let request = Request::post("http://catalog/events/x?y=1").body(full("event")).unwrap();
    let answer = orders.plane.caller().call(request).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "pushed");
    assert_eq!(app.last().uri, "/events/x?y=1");
    assert_eq!(app.last().body, "event");
}

#[tokio::test]
async fn the_sidecar_tells_how_it_stands() {
    let app = App::saying("x").await;
    let (orders, _catalog) = two(&app).await;
    get(orders.outbound(), "catalog", "/").await;
    assert_eq!(get(orders.outbound(), "sidecar", "/healthz").await.body(), "ok\n");
    let status = get(orders.outbound(), "sidecar", "/v1/status").await;
    let status: serde_json::Value = serde_json::from_slice(status.body()).unwrap();
    assert_eq!(status["services"]["catalog"]["endpoints"][0]["breaker"], "closed");
    assert_eq!(status["edges"][0]["calls"], 1);
    let metrics = get(orders.outbound(), "sidecar", "/metrics").await;
    let text = String::from_utf8_lossy(metrics.body()).into_owned();
    let line =
        "meshwork_requests_total{direction=\"outbound\",service=\"catalog\",route=\"default\",status_class=\"2xx\"} 1";
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn the_sidecar_tells_how_it_stands_at_its_own_address_without_a_proxy_setting() {
    let app = App::saying("x").await;
    let (orders, _catalog) = two(&app).await;
    let address = orders.outbound();
    let port = address.port();
    for host in [address.to_string(), format!("localhost:{port}"), format!("[::1]:{port}")] {
        for (path, part) in [("/healthz", "ok"), ("/v1/status", "\"revision\""), ("/metrics", "meshwork_")] {
            let answer = get(address, &host, path).await;
            assert_eq!(answer.status(), StatusCode::OK, "{host}{path}");
            assert!(String::from_utf8_lossy(answer.body()).contains(part), "{host}{path}");
        }
        assert_eq!(get(address, &host, "/").await.status(), StatusCode::NOT_FOUND);
    }
    // Another port of this machine is the application's own matter, and no address of the mesh.
    for host in ["localhost", "127.0.0.1:1", "192.0.2.1"] {
        let answer = get(address, host, "/healthz").await;
        assert!(String::from_utf8_lossy(answer.body()).contains("no service is named"), "{host}");
    }
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_is_told_to_go_on() {
    let app = App::start(|seen| Response::new(full(seen.body.clone()))).await;
    let (orders, _catalog) = two(&app).await;
    let mut stream = runtime::net::connect(orders.outbound()).await.unwrap();
    let head =
        b"POST / HTTP/1.1\r\nHost: catalog\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let told = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut got = vec![0; told.len()];
    soon("to be told", stream.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, told);
    stream.write_all(b"abc").await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("abc"), "{answer}");
    assert_eq!((&app.last().body[..], app.last().header("expect")), (&b"abc"[..], Some("100-continue")));
}

#[tokio::test]
async fn a_client_that_waits_is_not_told_to_send_what_is_refused() {
    let app = App::saying("x").await;
    let (orders, _catalog) = two(&app).await;
    let request = "POST / HTTP/1.1\r\nHost: secret\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    // It ends by itself: whether the body comes nobody knows, so nothing can follow on the connection.
    let answer = crate::kit::raw(orders.outbound(), request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("connection: close\r\n"), "{answer}");
    assert!(!answer.contains("100 Continue"), "{answer}");
}
