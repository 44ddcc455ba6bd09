//! Who is told what, and when.

use std::time::{Duration, Instant};

use control::client::{self, Health};
use model::identity::Subject;
use runtime::tls::Alpn;

use crate::fixture::{Bare, MESH, Machine, Role, endpoints, hello, name, soon, until};

#[tokio::test]
async fn an_instance_is_an_endpoint_while_it_lives() {
    let running = Machine::new().start(MESH).await;
    let mut orders =
        Role::start(running.control(), running.enrolled("service/orders", "orders-0").await, "orders-0", 9_001);
    let first = orders.applied().await;
    assert_eq!((first.revision, first.subject.to_string().as_str()), (1, "service/orders"));
    assert!(endpoints(&first, "payments").is_empty());

    let payments = running.enrolled("service/payments", "payments-0").await;
    let mut steady = Role::start(running.control(), payments, "payments-0", 9_002);
    steady.applied().await;
    let second = orders.told_of("payments", &["payments-0"]).await;
    assert!(second.version > first.version);

    // One that crashes stays for as long as three heartbeats may be missing.
    let other = running.enrolled("service/payments", "payments-1").await;
    let settings = other.current().client(&Subject::ControlPlane, Alpn::Http2).unwrap();
    let crashing = Bare::open(&running, settings, hello("payments-1", 9_003)).await.unwrap();
    let heard = Instant::now();
    crashing.beat(true).await;
    orders.told_of("payments", &["payments-0", "payments-1"]).await;
    drop(crashing);
    orders.told_of("payments", &["payments-0"]).await;
    assert!(heard.elapsed() >= Duration::from_secs(3), "{:?}", heard.elapsed());

    // One that is sick is out at once, and back at once.
    steady.health.send_replace(Health { healthy: false, draining: false });
    orders.told_of("payments", &[]).await;
    steady.health.send_replace(Health { healthy: true, draining: false });
    orders.told_of("payments", &["payments-0"]).await;

    // One that ends says so.
    steady.stop().await;
    orders.told_of("payments", &[]).await;
    until("the registry forgets it", || running.plane.registry().len() == 1).await;
    orders.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn an_instance_that_drains_hears_when_nobody_is_told_of_it() {
    let running = Machine::new().start(MESH).await;
    let mut orders =
        Role::start(running.control(), running.enrolled("service/orders", "orders-0").await, "orders-0", 9_001);
    let identity = running.enrolled("service/payments", "payments-0").await;
    let mut payments = Role::start(running.control(), identity.clone(), "payments-0", 9_002);
    payments.applied().await;
    orders.told_of("payments", &["payments-0"]).await;
    let control = running.control();
    let withdrawing = tokio::spawn(async move { client::withdrawn(&control, &identity, &name("payments-0")).await });
    payments.health.send_replace(Health { healthy: true, draining: true });
    orders.told_of("payments", &[]).await;
    soon("that it has withdrawn", withdrawing).await.unwrap().unwrap();
    // It is still told what it needs for its own calls.
    assert!(running.plane.sidecars().iter().any(|sidecar| sidecar.instance.as_str() == "payments-0"));
    running.stop().await;
}

#[tokio::test]
async fn a_stream_needs_a_certificate_and_a_name_that_fits_it() {
    let running = Machine::new().start(MESH).await;
    let mesh = crate::fixture::name("shop");
    let stranger = runtime::identity::enrolment(&mesh, running.plane.roots_pem()).unwrap();
    let refused = Bare::open(&running, stranger, hello("orders-0", 9_001)).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused}");

    let orders = running.enrolled("service/orders", "orders-0").await;
    let settings = orders.current().client(&Subject::ControlPlane, Alpn::Http2).unwrap();
    // Not even its sibling's, at whose name it would take what is sent there.
    for (instance, address, code) in [
        ("payments-0", "127.0.0.1:1", tonic::Code::PermissionDenied),
        ("orders-1", "127.0.0.1:1", tonic::Code::PermissionDenied),
        ("Orders", "127.0.0.1:1", tonic::Code::PermissionDenied),
        ("orders-0", "here", tonic::Code::InvalidArgument),
        ("orders-0", "0.0.0.0:1", tonic::Code::InvalidArgument),
    ] {
        let odd = api::control::Hello { instance: instance.to_owned(), address: address.to_owned(), ..hello("", 1) };
        let end = Bare::open(&running, settings.clone(), odd).await.unwrap().end().await;
        assert_eq!(end.code(), code, "{end}");
    }
    assert!(running.plane.registry().is_empty());
    let (control, sibling) = (running.control(), name("orders-1"));
    let refused = soon("a refusal", client::withdrawn(&control, &orders, &sibling)).await.unwrap_err();
    assert!(refused.to_string().contains("does not speak for"), "{refused}");
    running.stop().await;
}

#[tokio::test]
async fn what_an_instance_says_it_has_seen_does_not_number_what_others_are_sent() {
    let running = Machine::new().start(MESH).await;
    let mut steady =
        Role::start(running.control(), running.enrolled("service/orders", "orders-0").await, "orders-0", 1);
    let first = steady.applied().await;
    let odd = running.enrolled("service/orders", "orders-1").await;
    let settings = odd.current().client(&Subject::ControlPlane, Alpn::Http2).unwrap();
    let ahead = api::control::Hello { version: u64::MAX, ..hello("orders-1", 2) };
    let mut odd = Bare::open(&running, settings, ahead).await.unwrap();
    assert!(soon("a snapshot", odd.snapshots.message()).await.unwrap().is_some());
    let without = MESH.replace("calls: [payments]", "calls: []");
    running.plane.publish(crate::fixture::config(&without)).unwrap();
    let second = steady.applied().await;
    assert_eq!((second.revision, second.version), (2, first.version + 1));
    running.stop().await;
}

#[tokio::test]
async fn an_instance_whose_certificate_has_ended_is_no_endpoint() {
    let mut machine = Machine::new();
    machine.life = std::time::Duration::from_secs(3);
    let running = machine.start(MESH).await;
    // Nobody renews it.
    let orders = running.enrolled("service/orders", "orders-0").await;
    let mut role = Role::start(running.control(), orders.clone(), "orders-0", 9_001);
    role.applied().await;
    until("it lives", || running.is_live("orders-0")).await;
    until("it does not", || !running.is_live("orders-0")).await;
    assert!(orders.current().ended_for_s(runtime::clock::wall_s()) > 0);
    assert_eq!(running.plane.sidecars().len(), 1, "its stream stands");
    orders.replace(client::enrol(&running.claim("service/orders", "orders-0"), None).await.unwrap()).unwrap();
    until("it lives again", || running.is_live("orders-0")).await;
    running.stop().await;
}

#[tokio::test]
async fn the_latest_stream_of_an_instance_counts() {
    let running = Machine::new().start(MESH).await;
    let orders = running.enrolled("service/orders", "orders-0").await;
    let settings = orders.current().client(&Subject::ControlPlane, Alpn::Http2).unwrap();
    let old = Bare::open(&running, settings.clone(), hello("orders-0", 9_001)).await.unwrap();
    old.beat(true).await;
    until("the old one lives", || running.is_live("orders-0")).await;
    let mut new = Bare::open(&running, settings, hello("orders-0", 9_001)).await.unwrap();
    assert_eq!(old.end().await.code(), tonic::Code::Aborted);
    assert!(soon("a snapshot", new.snapshots.message()).await.unwrap().is_some());
    assert!(running.is_live("orders-0"));
    running.stop().await;
}

#[tokio::test]
async fn what_the_mesh_no_longer_declares_is_told_so() {
    let running = Machine::new().start(MESH).await;
    let orders = running.enrolled("service/orders", "orders-0").await;
    let settings = orders.current().client(&Subject::ControlPlane, Alpn::Http2).unwrap();
    let bare = Bare::open(&running, settings, hello("orders-0", 9_001)).await.unwrap();
    until("it is connected", || running.plane.sidecars().len() == 1).await;
    let without = "{mesh: shop, services: {payments: {command: shop payments}}}";
    assert_eq!(running.plane.publish(crate::fixture::config(without)).unwrap(), 2);
    assert_eq!(bare.end().await.code(), tonic::Code::PermissionDenied);
    running.stop().await;
}
