//! What a restart of the control plane keeps, and that nobody loses by it.

use std::path::Path;
use std::sync::Arc;

use model::identity::Subject;
use model::snapshot::Snapshot;
use runtime::tls::Alpn;
use rustls::ClientConfig;
use storage::disk::{Disk as _, read_whole, replace};

use crate::fixture::{Bare, MESH, Machine, Role, Running, config, endpoints, hello, name, soon, until};

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

    // What was published stays, whatever the mesh file says; also when there is none, as when it has mistakes.
    for file in [Some(MESH), Some(&*other), None] {
        let running = machine.start_with(file).await.unwrap();
        assert_eq!((running.plane.revision(), running.plane.roots_pem()), (2, root.as_str()));
        assert!(control::client::renew(&running.control(), &old).await.is_ok());
        running.stop().await;
    }
    let tax = MESH.replace("mesh: shop", "mesh: tax");
    let error = machine.start_with(Some(&tax)).await.err().unwrap().to_string();
    assert!(error.contains("runs the mesh shop; the file is of the mesh tax"), "{error}");
}

#[tokio::test]
async fn a_revision_that_cannot_be_read_costs_itself_only() {
    let mut machine = Machine::new();
    let other = MESH.replace("calls: [payments]", "calls: []");
    let running = machine.start(MESH).await;
    assert_eq!(running.plane.publish(config(&other)).unwrap(), 2);
    running.stop().await;
    replace(&*machine.disk, Path::new("/control/revisions/000002.json"), b"{\"revision\": 2, \"conf").unwrap();
    let running = machine.start(&other).await;
    // Roles have seen the number 2, so the one before it comes back as 3.
    assert_eq!(running.plane.revision(), 3);
    assert_eq!(running.plane.publish(config(MESH)).unwrap(), 3);
    running.stop().await;
}

#[tokio::test]
async fn a_control_plane_without_anything_to_begin_with_says_so() {
    let error = Machine::new().start_with(None).await.err().unwrap().to_string();
    assert!(error.contains("no revision is kept and there is no good mesh file"), "{error}");
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

/// A caller and two instances of what it calls, of which nobody says goodbye when the control plane restarts.
struct Before {
    machine: Machine,
    running: Running,
    caller: Role,
    steady: Role,
    // What the late one proves itself with.
    late: Arc<ClientConfig>,
}

impl Before {
    /// The control plane has restarted, and `payments-1` has not connected yet.
    async fn restarted(between: impl FnOnce(&Machine)) -> Self {
        let mut machine = Machine::new();
        let running = machine.start(MESH).await;
        let orders = running.enrolled("service/orders", "orders-0").await;
        let payments = running.enrolled("service/payments", "payments-0").await;
        let late = running.enrolled("service/payments", "payments-1").await;
        let late = late.current().client(&Subject::ControlPlane, Alpn::Http2).unwrap();
        let mut caller = Role::start(running.control(), orders, "orders-0", 9_001);
        let mut steady = Role::start(running.control(), payments, "payments-0", 9_002);
        steady.applied().await;
        let bare = Bare::open(&running, late.clone(), hello("payments-1", 9_003)).await.unwrap();
        bare.beat(true).await;
        caller.told_of("payments", &["payments-0", "payments-1"]).await;
        drop(bare);
        running.stop().await;
        between(&machine);
        let running = machine.start(MESH).await;
        Self { machine, running, caller, steady, late }
    }

    async fn stop(self) {
        self.caller.stop().await;
        self.steady.stop().await;
        self.running.stop().await;
    }
}

/// Five seconds after the restart it was gone from what others were told, though it lived.
#[tokio::test]
async fn an_instance_that_comes_late_after_a_restart_is_missing_nowhere() {
    let mut before = Before::restarted(|_| {}).await;
    let (running, caller) = (&before.running, &mut before.caller);
    // It is told at once, and not of less than it knows.
    let first = caller.applied().await;
    assert_eq!(endpoints(&first, "payments"), ["payments-0", "payments-1"]);
    let presumed = || {
        let registry = running.plane.registry();
        let presumed = registry.iter().filter(|instance| instance.presumed && instance.live);
        presumed.map(|instance| instance.instance.to_string()).collect::<Vec<_>>()
    };
    until("all others are back", || presumed() == ["payments-1"]).await;
    // Whoever starts anew is told of it too.
    let fresh = running.enrolled("service/orders", "orders-1").await;
    let mut fresh = Role::start(running.control(), fresh, "orders-1", 9_004);
    assert_eq!(endpoints(&fresh.applied().await, "payments"), ["payments-0", "payments-1"]);
    // A new revision reaches everyone without a wait, and takes nobody out.
    let more = format!("{MESH}  tax: {{command: shop tax}}\n");
    running.plane.publish(config(&more)).unwrap();
    let next = caller.applied().await;
    assert_eq!((next.revision, endpoints(&next, "payments").len()), (2, 2));
    // When it comes, what it says counts.
    let late = Bare::open(running, before.late.clone(), hello("payments-1", 9_003)).await.unwrap();
    late.beat(false).await;
    caller.told_of("payments", &["payments-0"]).await;
    assert!(presumed().is_empty());
    fresh.stop().await;
    before.stop().await;
}

/// Callers had the old address for five seconds.
#[tokio::test]
async fn an_instance_that_moved_during_a_restart_is_told_of_at_once() {
    let mut before = Before::restarted(|_| {}).await;
    let address = |snapshot: &Snapshot| snapshot.services[&name("payments")].endpoints[1].address.port();
    // It is told before the moved one has come, so nothing holds snapshots back.
    assert_eq!(address(&before.caller.applied().await), 9_003);
    let moved = Bare::open(&before.running, before.late.clone(), hello("payments-1", 9_009)).await.unwrap();
    moved.beat(true).await;
    let told =
        async { while address(&before.caller.told_of("payments", &["payments-0", "payments-1"]).await) != 9_009 {} };
    soon("the new address", told).await;
    before.stop().await;
}

#[tokio::test]
async fn who_said_goodbye_before_a_restart_is_not_presumed_to_live() {
    let before = Before::restarted(|_| {}).await;
    let Before { mut machine, running, mut caller, steady, .. } = before;
    let is_back = || running.plane.sidecars().iter().any(|sidecar| sidecar.instance.as_str() == "payments-0");
    until("it is back", is_back).await;
    steady.stop().await;
    caller.told_of("payments", &["payments-1"]).await;
    running.stop().await;
    let running = machine.start(MESH).await;
    assert_eq!(endpoints(&caller.applied().await, "payments"), ["payments-1"]);
    caller.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn where_nobody_knows_who_lived_a_running_role_waits() {
    let mut before = Before::restarted(|machine| {
        control::forget_instances(&*machine.disk, Path::new("/control")).unwrap();
    })
    .await;
    // The late one comes later than the caller, and before the wait is over.
    until("the caller is back", || before.running.is_live("orders-0")).await;
    assert!(before.running.plane.registry().iter().all(|instance| !instance.presumed));
    let late = Bare::open(&before.running, before.late.clone(), hello("payments-1", 9_003)).await.unwrap();
    late.beat(true).await;
    let next = async {
        loop {
            tokio::select! {
                snapshot = before.caller.applied() => return snapshot,
                () = tokio::time::sleep(std::time::Duration::from_secs(1)) => late.beat(true).await,
            }
        }
    };
    assert_eq!(endpoints(&soon("a snapshot", next).await, "payments"), ["payments-0", "payments-1"]);
    before.stop().await;
}
