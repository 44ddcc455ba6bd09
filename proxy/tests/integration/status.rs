//! What an operator is told of a data plane, and where: never a way into the mesh.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, StatusCode};
use model::config::{GatewayBackend, Protocol};
use proxy::{AccessLog, DataPlane, Error, Options};
use runtime::http::empty;
use runtime::identity::Identity;
use runtime::lanes::Lanes;
use runtime::metrics::Metrics;

use crate::kit::{App, Ca, Client, Mesh, external, get, header, name, raw};

/// A data plane with these doors.
async fn start(
    identity: Option<Identity>,
    outbound: Option<SocketAddr>,
    status: Option<SocketAddr>,
) -> Result<DataPlane, Error> {
    let (signal, drain) = runtime::drain::channel();
    // It lives as long as the test.
    std::mem::forget(signal);
    DataPlane::start(Options {
        mesh: name("test"),
        subject: "service/orders".parse().unwrap(),
        instance: name("orders-0"),
        identity,
        lanes: Arc::new(Lanes::inline()),
        metrics: Metrics::default(),
        access_log: AccessLog::Off,
        outbound,
        status,
        inbound: None,
        gateway: None,
        drain,
    })
    .await
}

#[tokio::test]
async fn what_is_meant_for_metrics_leads_nowhere_else() {
    let app = App::saying("in").await;
    let backend = GatewayBackend { service: name("shop"), matches: Vec::new(), hosts: Vec::new() };
    let gateway = Mesh::new(&["shop"]).gateway(backend, external("shop", Protocol::Http, &[app.address]), 1).await;
    let address = gateway.plane.status_address().unwrap();
    assert_eq!(get(gateway.plane.gateway_address().unwrap(), "shop", "/").await.body(), "in");
    let before = app.seen().len();
    for host in ["sidecar", "localhost", "127.0.0.1:15001", "[::1]"] {
        assert_eq!(get(address, host, "/healthz").await.body(), "ok\n", "{host}");
        let metrics = get(address, host, "/metrics").await;
        assert!(String::from_utf8_lossy(metrics.body()).contains("meshwork_requests_in_flight"), "{host}");
        assert_eq!(get(address, host, "/v1/status").await.status(), StatusCode::OK, "{host}");
        assert_eq!(get(address, host, "/").await.status(), StatusCode::NOT_FOUND, "{host}");
    }
    for host in ["shop", "broker", "rebound.example.com", "10.0.0.7"] {
        for path in ["/", "/healthz", "/metrics"] {
            let answer = get(address, host, path).await;
            assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST, "{host}{path}");
            assert!(header(&answer, "proxy-status").contains("http_request_error"), "{host}{path}");
        }
    }
    let post = Request::post("/metrics").header("host", "sidecar").body(empty()).unwrap();
    assert_eq!(Client::http1(address).await.send(post).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    for (request, status) in [
        ("GET http://shop/ HTTP/1.1\r\nhost: sidecar\r\n", "421"),
        ("CONNECT shop:80 HTTP/1.1\r\nhost: shop:80\r\n", "501"),
        ("CONNECT sidecar:80 HTTP/1.1\r\nhost: sidecar:80\r\n", "501"),
    ] {
        let answer = raw(address, format!("{request}connection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
    assert_eq!(app.seen().len(), before);
}

#[tokio::test]
async fn what_asks_nobody_who_he_is_listens_on_loopback_alone() {
    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:0.0.0.0]:0"] {
        let open: SocketAddr = open.parse().unwrap();
        for (door, outbound, status) in [("outbound", Some(open), None), ("status", None, Some(open))] {
            let Err(error) = start(None, outbound, status).await else { panic!("{door} at {open}") };
            assert_eq!(
                error.to_string(),
                format!("{door}: {open} is not on loopback, where it would be reached by this machine alone")
            );
        }
    }
    for close in ["127.0.0.1:0", "127.0.0.2:0"] {
        start(None, close.parse().ok(), close.parse().ok()).await.unwrap();
    }
}

#[tokio::test]
async fn an_instance_whose_certificate_has_ended_is_not_well() {
    let (ca, subject) = (Ca::new(&name("test")), "service/orders".parse().unwrap());
    let mut ended = rcgen::CertificateParams::default();
    (ended.not_before, ended.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2020, 1, 2));
    let identity = ca.identity_with(&subject, ended);
    let plane = start(Some(identity.clone()), None, Some(([127, 0, 0, 1], 0).into())).await.unwrap();
    let mut node = Mesh::new(&[]).fresh("orders").await;
    node.snapshot.version += 1;
    plane.apply(Arc::new(node.snapshot.clone())).unwrap();
    let address = plane.status_address().unwrap();
    let unwell = get(address, "sidecar", "/healthz").await;
    let why = String::from_utf8_lossy(unwell.body()).into_owned();
    assert!(unwell.status() == StatusCode::SERVICE_UNAVAILABLE && why.starts_with("the certificate ended "), "{why}");
    assert_eq!(plane.status()["failure"].as_str().map(|why| why.starts_with("the certificate ended ")), Some(true));
    identity.replace(ca.identity(&subject).current().credentials().clone()).unwrap();
    assert_eq!(get(address, "sidecar", "/healthz").await.body(), "ok\n");
    assert!(plane.status()["failure"].is_null());
}
