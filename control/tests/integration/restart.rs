//! What a restart of the control plane keeps, and that nobody loses by it.

use model::identity::Subject;
use runtime::tls::Alpn;

use crate::fixture::{Bare, MESH, Machine, Role, config, endpoints, hello, soon, until};

#[tokio::test]
async fn revisions_and_the_root_are_kept() {
    let mut machine = Machine::new();
    let other = MESH.replace("calls: [payments]", "calls: []");
    let running = machine.start(MESH).await;
    let root = running.plane.roots_pem().to_owned();
    let old = running.enrolled("service/orders", "orders-0").await;
    assert_eq!(running.plane.revision(), 1);
    assert_eq!(running.plane.publish(config(MESH)).unwrap(), 1);
    assert_eq!(running.plane.publish(config(&other)).unwrap(), 2);
    running.stop().await;

    let running = machine.start(&other).await;
    assert_eq!((running.plane.revision(), running.plane.roots_pem()), (2, root.as_str()));
    assert!(control::client::renew(&running.control(), &old).await.is_ok());
    running.stop().await;
    let running = machine.start(MESH).await;
    assert_eq!(running.plane.revision(), 3);
    running.stop().await;
}

#[tokio::test]
async fn a_running_role_is_not_told_of_an_emptied_registry() {
    let mut machine = Machine::new();
    let running = machine.start(MESH).await;
    let (orders, payments) = (
        running.enrolled("service/orders", "orders-0").await,
        running.enrolled("service/payments", "payments-0").await,
    );
    let mut caller = Role::start(running.control(), orders, "orders-0", 9_001);
    let mut callee = Role::start(running.control(), payments.clone(), "payments-0", 9_002);
    callee.applied().await;
    let mut before = caller.applied().await;
    while endpoints(&before, "payments").is_empty() {
        before = caller.applied().await;
    }
    until("it has converged", || running.plane.sidecars()[0].converged).await;
    callee.stop().await;
    running.stop().await;

    // The callee comes back later than the caller.
    let running = machine.start(MESH).await;
    until("the caller is back", || running.is_live("orders-0")).await;
    let settings = payments.current().client(&Subject::ControlPlane, Alpn::Http2).unwrap();
    let callee = Bare::open(&running, settings, hello("payments-0", 9_002)).await.unwrap();
    callee.beat(true).await;
    let next = async {
        loop {
            tokio::select! {
                snapshot = caller.applied() => return snapshot,
                () = tokio::time::sleep(std::time::Duration::from_secs(1)) => callee.beat(true).await,
            }
        }
    };
    let after = soon("a snapshot", next).await;
    assert_eq!(endpoints(&after, "payments"), ["payments-0"]);
    assert!(after.version > before.version);
    caller.stop().await;
    running.stop().await;
}
