//! What a restart of the control plane keeps, and that nobody loses by it.

use std::path::Path;

use model::identity::Subject;
use runtime::tls::Alpn;
use storage::disk::{Disk as _, read_whole, replace};

use crate::fixture::{Bare, MESH, Machine, Role, config, endpoints, hello, soon, until};

#[tokio::test]
async fn revisions_and_the_root_are_kept() {
    let mut machine = Machine::new();
    let other = MESH.replace("calls: [payments]", "calls: []");
    let running = machine.start(MESH).await;
    let root = running.plane.roots_pem().to_owned();
    let old = running.enrolled("service/orders").await;
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

/// It made a new root without a word, and no role could come any more.
#[tokio::test]
async fn a_root_that_is_missing_beside_revisions_is_not_made_anew() {
    let mut machine = Machine::new();
    machine.start(MESH).await.stop().await;
    let (folder, authority) = (Path::new("/control"), Path::new("/control/authority.pem"));
    let kept = read_whole(&*machine.disk, authority, 100_000).unwrap();
    machine.disk.remove(authority).unwrap();
    for emptied in [false, true] {
        if emptied {
            machine.disk.remove(&folder.join("revisions/000001.json")).unwrap();
        }
        let text = machine.refused(MESH).await.to_string();
        for word in ["/control/authority.pem is missing", "mv /control /control.old"] {
            assert!(text.contains(word), "{word} in {text}");
        }
        assert!(!machine.disk.exists(authority).unwrap(), "nothing was made");
    }
    replace(&*machine.disk, authority, &kept).unwrap();
    let running = machine.start(MESH).await;
    assert_eq!(running.plane.revision(), 2, "a number whose file is gone is not given again");
    running.stop().await;
}

#[tokio::test]
async fn a_turned_bit_in_what_is_kept_is_seen() {
    let mut machine = Machine::new();
    machine.start(MESH).await.stop().await;
    let revision = Path::new("/control/revisions/000001.json");
    let length = read_whole(&*machine.disk, revision, 100_000).unwrap().len();
    machine.disk.flip_bit(revision, length / 2, 0);
    let running = machine.start(MESH).await;
    assert_eq!(running.plane.revision(), 2, "a damaged revision is not taken for the mesh file's");
    running.stop().await;
    let authority = Path::new("/control/authority.pem");
    let length = read_whole(&*machine.disk, authority, 100_000).unwrap().len();
    machine.disk.flip_bit(authority, length / 2, 0);
    let text = machine.refused(MESH).await.to_string();
    assert!(text.contains("/control/authority.pem is damaged") && text.contains("crc32c"), "{text}");
}

/// An earlier release wrote both without a checksum.
#[tokio::test]
async fn what_an_earlier_release_kept_is_taken_up() {
    let mut machine = Machine::new();
    let root = {
        let running = machine.start(MESH).await;
        let root = running.plane.roots_pem().to_owned();
        running.stop().await;
        root
    };
    for path in ["/control/authority.pem", "/control/revisions/000001.json"].map(Path::new) {
        let kept = read_whole(&*machine.disk, path, 100_000).unwrap();
        let line = kept.iter().position(|byte| *byte == b'\n').unwrap();
        replace(&*machine.disk, path, &kept[line + 1..]).unwrap();
    }
    machine.disk.remove(Path::new("/control/revision")).unwrap();
    let running = machine.start(MESH).await;
    assert_eq!((running.plane.revision(), running.plane.roots_pem()), (1, root.as_str()));
    running.stop().await;
}

#[tokio::test]
async fn a_running_role_is_not_told_of_an_emptied_registry() {
    let mut machine = Machine::new();
    let running = machine.start(MESH).await;
    let (orders, payments) = (running.enrolled("service/orders").await, running.enrolled("service/payments").await);
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
