//! Who is told what, and when.

use control::client::{self, Health};
use model::identity::Subject;
use runtime::tls::Alpn;

use crate::fixture::{Bare, MESH, Machine, Role, endpoints, hello, name, soon, until};

#[tokio::test]
async fn an_instance_is_an_endpoint_while_it_lives() {
    let running = Machine::new().start(MESH).await;
    let mut orders = Role::start(running.control(), running.enrolled("service/orders").await, "orders-0", 9_001);
    let first = orders.applied().await;
    assert_eq!((first.revision, first.subject.to_string().as_str()), (1, "service/orders"));
    assert!(endpoints(&first, "payments").is_empty());

    let payments = running.enrolled("service/payments").await;
    let mut steady = Role::start(running.control(), payments.clone(), "payments-0", 9_002);
    steady.applied().await;
    let second = orders.told_of("payments", &["payments-0"]).await;
    assert!(second.version > first.version);

    // One that crashes stays for as long as three heartbeats may be missing.
    let settings = payments.current().client(&Subject::ControlPlane, Alpn::Http2).unwrap();
    let crashing = Bare::open(&running, settings, hello("payments-1", 9_003)).await.unwrap();
    crashing.beat(true).await;
    orders.told_of("payments", &["payments-0", "payments-1"]).await;
    drop(crashing);
    orders.told_of("payments", &["payments-0"]).await;

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
    let mut orders = Role::start(running.control(), running.enrolled("service/orders").await, "orders-0", 9_001);
    let identity = running.enrolled("service/payments").await;
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

    let orders = running.enrolled("service/orders").await;
    let settings = orders.current().client(&Subject::ControlPlane, Alpn::Http2).unwrap();
    for (instance, address) in [("payments-0", "127.0.0.1:1"), ("Orders", "127.0.0.1:1"), ("orders-0", "here")] {
        let odd = api::control::Hello { instance: instance.to_owned(), address: address.to_owned(), ..hello("", 1) };
        let end = Bare::open(&running, settings.clone(), odd).await.unwrap().end().await;
        assert_eq!(end.code(), tonic::Code::InvalidArgument, "{end}");
    }
    assert!(running.plane.registry().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn the_latest_stream_of_an_instance_counts() {
    let running = Machine::new().start(MESH).await;
    let orders = running.enrolled("service/orders").await;
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
    let orders = running.enrolled("service/orders").await;
    let settings = orders.current().client(&Subject::ControlPlane, Alpn::Http2).unwrap();
    let bare = Bare::open(&running, settings, hello("orders-0", 9_001)).await.unwrap();
    until("it is connected", || running.plane.sidecars().len() == 1).await;
    let without = "{mesh: shop, services: {payments: {command: shop payments}}}";
    assert_eq!(running.plane.publish(crate::fixture::config(without)).unwrap(), 2);
    assert_eq!(bare.end().await.code(), tonic::Code::PermissionDenied);
    running.stop().await;
}
