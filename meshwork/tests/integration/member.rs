//! Which snapshot a role works on when it starts with one that it has kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use control::client::{Health, TokenSource};
use control::{ControlPlane, token};
use local::Local;
use meshwork::role::member::{self, Member};
use meshwork::role::{Ground, Threads};
use model::identity::Subject;
use model::name::Name;
use model::snapshot::Snapshot;
use runtime::drain::{self, Drain};
use storage::disk::memory::MemoryDisk;
use tokio::sync::{mpsc, watch};

use crate::control_plane;
use crate::process::BOUND;

/// The revision of the kept snapshot; no control plane of a test comes to it.
const KEPT: u64 = 99;
const MESH: &str = "mesh: m\nservices: {a: {}}\ngateways: {g: {listen: 127.0.0.1:0, backends: [{service: a}]}}\n";

/// A machine with a control plane and the folder of one gateway.
struct Machine {
    disk: Arc<MemoryDisk>,
    secret: token::Secret,
    drain: Drain,
}

impl Machine {
    async fn control_plane(&self) -> ControlPlane {
        control_plane::start(MESH, self.disk.clone(), &self.secret, &self.drain).await
    }

    fn keep_a_snapshot(&self) {
        let snapshot = Snapshot {
            revision: KEPT,
            version: 7,
            mesh: Name::new("m").unwrap(),
            subject: "gateway/g".parse().unwrap(),
            services: BTreeMap::new(),
            declared: BTreeSet::new(),
            inbound: None,
            gateway: None,
            broker: None,
        };
        let local = Local::open(self.disk.clone(), &PathBuf::from("/gateway")).unwrap();
        local.keep_snapshot(&snapshot).unwrap();
    }

    /// Another mesh's control plane, under other roots.
    async fn stranger(&self) -> ControlPlane {
        control_plane::start(MESH, Arc::default(), &token::Secret::generate().unwrap(), &self.drain).await
    }

    /// A token of the gateway that holds for so long.
    fn token(&self, life_s: u64) -> TokenSource {
        let (subject, instance) = gateway();
        TokenSource::fixed(token::mint(&self.secret, &subject, &instance, runtime::clock::wall_s() + life_s))
    }

    /// A gateway that enrols at `plane`, looks for it at `control` from then on, and takes up what `takes` says. The receiver has
    /// the revisions that it was to take up.
    async fn gateway(
        &self,
        plane: &ControlPlane,
        control: Option<String>,
        takes: fn(u64) -> Result<(), String>,
    ) -> mpsc::UnboundedReceiver<u64> {
        let ground = Ground { disk: self.disk.clone(), threads: Threads::Inline };
        let token = self.token(60);
        let join = async |control| {
            let options = options(plane, control, token.clone());
            Member::join(options, &ground, &self.drain, &self.drain).await.unwrap()
        };
        let mut member = join(plane.address().to_string()).await;
        if let Some(control) = control {
            // It takes up the identity that it has got by now.
            member = join(control).await;
        }
        let (health, healthy) = watch::channel(Health { healthy: true, draining: false });
        let (seen, revisions) = mpsc::unbounded_channel();
        member.follow(None, healthy, &self.drain, move |snapshot| {
            let (_, outcome) = (seen.send(snapshot.revision), takes(snapshot.revision));
            let _alive = &health;
            async move { outcome }
        });
        revisions
    }
}

/// Who answers at the control plane's address when the gateway starts again.
#[derive(Clone, Copy)]
enum There {
    ControlPlane,
    Nobody,
    Stranger,
}
use There::{ControlPlane as Itself, Nobody, Stranger};
fn gateway() -> (Subject, Name) {
    ("gateway/g".parse().unwrap(), Name::new("g-0").unwrap())
}

/// How the gateway becomes a member of the mesh of `plane`, which it looks for at `control`.
fn options(plane: &ControlPlane, control: String, token: TokenSource) -> member::Options {
    let (subject, instance) = gateway();
    member::Options {
        mesh: Name::new("m").unwrap(),
        subject,
        instance,
        subset: None,
        advertise: None,
        control,
        roots_pem: plane.roots_pem().to_owned(),
        token,
        data: PathBuf::from("/gateway"),
        ready_file: None,
        access_log: false,
        stop_timeout: BOUND,
    }
}

/// The first `count` revisions that a gateway which kept one takes up or rejects.
async fn revisions(there: There, takes: fn(u64) -> Result<(), String>, count: usize) -> Vec<u64> {
    let (ending, drain) = drain::channel();
    let machine = Machine { disk: Arc::default(), secret: token::Secret::generate().unwrap(), drain };
    machine.keep_a_snapshot();
    let plane = machine.control_plane().await;
    let stranger = machine.stranger().await;
    let control = match there {
        Itself => None,
        // Port 1 of loopback: nobody listens there.
        Nobody => Some("127.0.0.1:1".to_owned()),
        Stranger => Some(stranger.address().to_string()),
    };
    let mut revisions = machine.gateway(&plane, control, takes).await;
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.push(tokio::time::timeout(BOUND, revisions.recv()).await.expect("a snapshot").unwrap());
    }
    ending.drain(BOUND).await.unwrap();
    assert!(revisions.try_recv().is_err(), "more than {seen:?}");
    seen
}

#[tokio::test]
async fn what_was_kept_is_not_used_where_the_control_plane_is_there() {
    assert_eq!(revisions(Itself, |_| Ok(()), 1).await, [1]);
}

#[tokio::test]
async fn what_was_kept_is_used_at_once_where_it_is_not() {
    assert_eq!(revisions(Nobody, |_| Ok(()), 1).await, [KEPT]);
}

#[tokio::test]
async fn what_was_kept_is_used_where_the_live_one_is_no_good() {
    let takes = |revision| if revision == KEPT { Ok(()) } else { Err("no room for it".to_owned()) };
    assert_eq!(revisions(Itself, takes, 2).await, [1, KEPT]);
}

#[tokio::test]
async fn what_was_kept_is_used_where_a_stranger_has_the_control_planes_address() {
    assert_eq!(revisions(Stranger, |_| Ok(()), 1).await, [KEPT]);
}

#[tokio::test]
async fn a_role_that_starts_with_an_ended_certificate_and_an_ended_token_is_taken_back() {
    let (ending, drain) = drain::channel();
    let machine = Machine { disk: Arc::default(), secret: token::Secret::generate().unwrap(), drain };
    let life = Duration::from_secs(6);
    let (disk, secret) = (machine.disk.clone(), &machine.secret);
    let plane = control_plane::start_with(MESH, disk.clone(), secret, life, &machine.drain).await;
    let ground = Ground { disk, threads: Threads::Inline };
    let token = machine.token(1);
    let join = async |drain: &Drain| {
        let options = options(&plane, plane.address().to_string(), token.clone());
        Member::join(options, &ground, drain, &machine.drain).await
    };
    // The role ends, and nobody renews its certificate any more.
    let (first_ending, first_drain) = drain::channel();
    let end_s = join(&first_drain).await.unwrap().identity.current().not_after_s;
    first_ending.drain(BOUND).await.unwrap();
    while runtime::clock::wall_s() <= end_s {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let again = tokio::time::timeout(BOUND, join(&machine.drain)).await.expect("an answer").unwrap();
    assert!(again.identity.current().not_after_s > end_s);
    ending.drain(BOUND).await.unwrap();
}

#[test]
fn an_instance_that_listens_on_all_addresses_says_at_which_it_is_reached() {
    for (inbound, advertise, good) in [
        ("10.0.0.7:1", None, true),
        ("127.0.0.1:0", None, true),
        ("0.0.0.0:1", Some("10.0.0.7:1"), true),
        ("0.0.0.0:1", None, false),
        ("[::]:1", None, false),
    ] {
        let (subject, instance) = gateway();
        let options = member::Options {
            mesh: Name::new("m").unwrap(),
            subject,
            instance,
            subset: None,
            advertise: advertise.map(|address: &str| address.parse().unwrap()),
            control: String::new(),
            roots_pem: String::new(),
            token: TokenSource::fixed(String::new()),
            data: PathBuf::new(),
            ready_file: None,
            access_log: false,
            stop_timeout: BOUND,
        };
        assert_eq!(options.reached_at(inbound.parse().unwrap()).is_ok(), good, "{inbound}, {advertise:?}");
    }
}
