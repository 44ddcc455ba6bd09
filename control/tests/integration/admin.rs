//! What an operator sees and does.

use runtime::net;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fixture::{MESH, Machine, Role, Running, name, soon, until};

/// Status and body of one request.
async fn ask(running: &Running, method: &str, path: &str, more: &str, body: &str) -> (u16, String) {
    ask_at(running, "localhost", method, path, more, body).await
}

/// The same under another name.
async fn ask_at(running: &Running, host: &str, method: &str, path: &str, more: &str, body: &str) -> (u16, String) {
    let mut stream = net::connect(running.plane.admin_address().unwrap()).await.unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn json(running: &Running, path: &str) -> Value {
    let (status, body) = ask(running, "GET", path, "", "").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn a_rejected_snapshot_is_seen_until_a_later_one_is_applied() {
    let running = Machine::new().start(MESH).await;
    let mut orders =
        Role::start(running.control(), running.enrolled("service/orders", "orders-0").await, "orders-0", 9_001);
    orders.applied().await;
    until("it has converged", || running.plane.sidecars().iter().all(|sidecar| sidecar.converged)).await;

    let mesh = MESH.replace("calls: [payments]", "calls: []");
    let (status, body) = ask(&running, "POST", "/v1/mesh", "", &mesh).await;
    assert_eq!((status, body.as_str()), (200, r#"{"revision":2}"#));
    let offer = soon("a snapshot", orders.session.next()).await.unwrap();
    assert_eq!(offer.snapshot.revision, 2);
    offer.answer.send(Err("no room for it".to_owned())).unwrap();
    until("the rejection is here", || running.plane.sidecars()[0].rejected.is_some()).await;
    let sidecar = json(&running, "/v1/sidecars").await["sidecars"][0].clone();
    assert_eq!(sidecar["subject"], "service/orders");
    assert_eq!((&sidecar["applied"]["revision"], &sidecar["rejected"]["revision"]), (&1.into(), &2.into()));
    assert_eq!((&sidecar["rejected"]["why"], &sidecar["converged"]), (&"no room for it".into(), &false.into()));

    assert_eq!(ask(&running, "POST", "/v1/mesh", "", MESH).await.0, 200);
    assert_eq!(orders.applied().await.revision, 3);
    until("it has converged", || running.plane.sidecars()[0].converged).await;
    assert_eq!(json(&running, "/v1/sidecars").await["sidecars"][0]["rejected"], Value::Null);
    orders.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn a_mesh_file_counts_whole_or_not_at_all() {
    let running = Machine::new().start(MESH).await;
    let (status, body) = ask(&running, "POST", "/v1/mesh", "", &MESH.replace("[payments]", "[paymentz, taxx]")).await;
    assert_eq!(status, 422, "{body}");
    let findings = serde_json::from_str::<Value>(&body).unwrap()["findings"].clone();
    assert_eq!(findings.as_array().unwrap().len(), 2, "{findings}");
    assert_eq!((&findings[0]["line"], &findings[0]["nearest"]), (&4.into(), &"payments".into()));
    assert_eq!(ask(&running, "POST", "/v1/mesh", "", &MESH.replace("shop\n", "other\n")).await.0, 409);
    assert_eq!(ask(&running, "POST", "/v1/mesh", "origin: http://example.com\r\n", MESH).await.0, 403);
    assert_eq!(running.plane.revision(), 1);
    let revisions = json(&running, "/v1/revisions").await;
    assert_eq!((&revisions["current"], revisions["revisions"].as_array().unwrap().len()), (&1.into(), 1));
    assert_eq!(json(&running, "/v1/mesh").await["config"]["mesh"], "shop");
    running.stop().await;
}

#[tokio::test]
async fn a_change_that_was_made_from_an_older_revision_is_refused() {
    let running = Machine::new().start(MESH).await;
    let alone = MESH.replace("calls: [payments]", "calls: []");
    let more = format!("{MESH}  tax: {{command: shop tax}}\n");
    let from = |number: u64| format!("if-match: \"{number}\"\r\n");
    for (from, mesh, expected) in [
        (from(1), &alone, (200, r#"{"revision":2}"#)),
        // Asked again, since the answer was lost.
        (from(1), &alone, (200, r#"{"revision":2}"#)),
        (from(1), &more, (412, r#""revision":2"#)),
        ("if-match: 2\r\n".to_owned(), &more, (400, "double quotes")),
        (from(2), &more, (200, r#"{"revision":3}"#)),
        (String::new(), &alone, (200, r#"{"revision":4}"#)),
    ] {
        let (status, body) = ask(&running, "POST", "/v1/mesh", &from, mesh).await;
        assert!(status == expected.0 && body.contains(expected.1), "{from}: {status} {body}");
    }
    assert_eq!(ask(&running, "GET", "/v1/mesh", "if-none-match: \"4\"\r\n", "").await, (304, String::new()));
    assert_eq!(ask(&running, "GET", "/v1/mesh", "if-none-match: \"3\"\r\n", "").await.0, 200);
    running.stop().await;
}

#[tokio::test]
async fn an_operator_is_answered_under_a_name_of_this_machine_alone() {
    let running = Machine::new().start(MESH).await;
    for (host, status) in [
        ("127.0.0.1:15012", 200),
        ("[::1]", 200),
        ("LOCALHOST:1", 200),
        ("rebound.example.com", 421),
        ("10.0.0.7", 421),
    ] {
        for path in ["/v1/mesh", "/v1/revisions", "/v1/registry", "/v1/sidecars", "/metrics", "/healthz"] {
            assert_eq!(ask_at(&running, host, "GET", path, "", "").await.0, status, "{host}{path}");
        }
        let text = MESH.replace("shop orders", &format!("shop orders --{status}{}", host.len()));
        assert_eq!(ask_at(&running, host, "POST", "/v1/mesh", "", &text).await.0, status, "{host}");
    }
    assert_eq!(running.plane.revision(), 4, "one for each name of this machine");
    assert_eq!(ask_at(&running, "localhost\r\nhost: rebound.example.com", "GET", "/v1/mesh", "", "").await.0, 421);
    running.stop().await;
}

#[tokio::test]
async fn an_earlier_revision_comes_back_as_a_new_one() {
    let running = Machine::new().start(MESH).await;
    let alone = MESH.replace("calls: [payments]", "calls: []");
    assert_eq!(ask(&running, "POST", "/v1/mesh", "", &alone).await.0, 200);
    let back = |to: u64, more: &'static str| ask_owned(&running, format!("/v1/revisions/{to}/rollback"), more);
    assert_eq!(back(1, "if-match: \"1\"\r\n").await.0, 412);
    assert_eq!(back(1, "origin: http://example.com\r\n").await.0, 403);
    assert_eq!(back(9, "").await.0, 404);
    let (status, body) = ask_owned(&running, "/v1/revisions/1/rollback?dry_run=true".to_owned(), "").await;
    let preview = serde_json::from_str::<Value>(&body).unwrap();
    assert_eq!((status, &preview["from"]), (200, &2.into()));
    assert_eq!(preview["changes"][0]["path"], "services.orders.calls");
    assert_eq!(running.plane.revision(), 2);
    assert_eq!(back(1, "if-match: \"2\"\r\n").await, (200, r#"{"revision":3}"#.to_owned()));
    let kept = json(&running, "/v1/revisions/3").await;
    assert_eq!(kept["config"], json(&running, "/v1/revisions/1").await["config"]);
    assert_eq!((&kept["revision"], &kept["note"]), (&3.into(), &"rollback to 1".into()));
    assert_eq!(ask(&running, "GET", "/v1/revisions/9", "", "").await.0, 404);
    let notes: Vec<Value> = json(&running, "/v1/revisions").await["revisions"].as_array().unwrap().clone();
    assert_eq!((&notes[0]["note"], &notes[2]["note"]), (&"the mesh file at the start".into(), &"rollback to 1".into()));
    running.stop().await;
}

async fn ask_owned(running: &Running, path: String, more: &str) -> (u16, String) {
    ask(running, "POST", &path, more, "").await
}

#[tokio::test]
async fn what_would_change_is_shown_without_passwords_and_changes_nothing() {
    let secret = |word: &str| MESH.replace("shop orders,", &format!("shop orders, env: {{PASSWORD: {word}}},"));
    let running = Machine::new().start(&secret("sesame")).await;
    let (status, body) = ask(&running, "POST", "/v1/mesh?dry_run=true", "", &secret("tulip")).await;
    let preview = serde_json::from_str::<Value>(&body).unwrap();
    assert_eq!((status, &preview["from"], running.plane.revision()), (200, &1.into(), 1));
    assert_eq!(preview["changes"][0]["path"], "services.orders.env.PASSWORD");
    assert_eq!(ask(&running, "POST", "/v1/mesh?dry_run=true", "", &MESH.replace("shop\n", "other\n")).await.0, 409);
    let shown = [json(&running, "/v1/mesh").await, json(&running, "/v1/revisions/1").await, preview];
    for shown in shown.map(|value| value.to_string()) {
        assert!(!shown.contains("sesame") && !shown.contains("tulip") && shown.contains("PASSWORD"), "{shown}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_publication_brings_several_files_and_what_they_name() {
    let running = Machine::new().start(MESH).await;
    let tax = "services:\n  tax: {external: {addresses: ['tax:443'], tls: {name: tax, roots: tax.pem}}}\n";
    let publication = |pem: &str| {
        let files = serde_json::json!([{"name": "a.yaml", "text": MESH}, {"name": "b.yaml", "text": tax}]);
        let enclosed = serde_json::json!([{"source": 1, "path": "tax.pem", "pem": pem}]);
        serde_json::json!({"files": files, "enclosed": enclosed, "note": "apply mesh/"}).to_string()
    };
    const JSON: &str = "content-type: application/json\r\n";
    let (status, body) = ask(&running, "POST", "/v1/mesh", JSON, &publication("good day")).await;
    assert!(status == 422 && body.contains("cannot be used") && body.contains("b.yaml"), "{status} {body}");
    let pem = running.plane.roots_pem().to_owned();
    assert_eq!(ask(&running, "POST", "/v1/mesh", JSON, &publication(&pem)).await.0, 200);
    let mesh = json(&running, "/v1/mesh").await;
    assert_eq!(mesh["config"]["services"]["tax"]["place"]["external"]["tls"]["roots"], pem.as_str());
    assert_eq!(ask(&running, "POST", "/v1/mesh", JSON, "{\"fils\": []}").await.0, 400);
    running.stop().await;
}

#[tokio::test]
async fn roots_in_a_mesh_file_are_published_as_they_stand() {
    let running = Machine::new().start(MESH).await;
    let mut orders =
        Role::start(running.control(), running.enrolled("service/orders", "orders-0").await, "orders-0", 9_001);
    orders.applied().await;
    let with = |roots: &str| {
        let tax = format!("  tax: {{external: {{addresses: [\"tax:443\"], tls: {{name: tax, roots: {roots:?}}}}}}}\n");
        MESH.replace("[payments]", "[payments, tax]") + &tax
    };
    let pem = running.plane.roots_pem();
    let (status, body) = ask(&running, "POST", "/v1/mesh", "", &with(pem)).await;
    assert_eq!(status, 200, "{body}");
    let tax = orders.applied().await.services[&name("tax")].clone();
    assert_eq!(tax.external.unwrap().tls.unwrap().roots.as_deref(), Some(pem));
    for (roots, why) in [
        ("tax.pem", "brings no other file with it"),
        ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "cannot be used"),
    ] {
        let (status, body) = ask(&running, "POST", "/v1/mesh", "", &with(roots)).await;
        assert_eq!(status, 422, "{body}");
        let finding = &serde_json::from_str::<Value>(&body).unwrap()["findings"][0];
        assert!(finding["message"].as_str().unwrap().contains(why), "{finding}");
        assert_eq!((&finding["code"], &finding["line"]), (&"enclosure".into(), &6.into()));
    }
    orders.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn the_registry_and_the_metrics_are_shown() {
    let running = Machine::new().start(MESH).await;
    let mut orders =
        Role::start(running.control(), running.enrolled("service/orders", "orders-0").await, "orders-0", 9_001);
    orders.applied().await;
    until("it lives", || running.is_live("orders-0")).await;
    let instance = json(&running, "/v1/registry").await["instances"][0].clone();
    assert_eq!((&instance["instance"], &instance["address"]), (&"orders-0".into(), &"127.0.0.1:9001".into()));
    let (_, metrics) = ask(&running, "GET", "/metrics", "", "").await;
    for line in [
        "meshwork_control_revision 1",
        "meshwork_control_streams 1",
        r#"meshwork_control_certificates_total{kind="enrol",outcome="signed"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert_eq!(ask(&running, "GET", "/healthz", "", "").await, (200, "ok\n".to_owned()));
    assert_eq!(ask(&running, "GET", "/v2", "", "").await.0, 404);
    orders.stop().await;
    running.stop().await;
}
