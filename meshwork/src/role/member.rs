//! What every role but the control plane has in common: it becomes a member of the mesh.
//!
//! It takes up the identity it kept or enrols for one, keeps it renewed, and from then on applies what the control plane sends,
//! answers for each, and keeps what was good. With the control plane gone it works on with what it has: at its start that is the
//! last good snapshot it kept, whose endpoints may be those of an earlier run.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use control::client::{self, Health, Hello, Session};
use local::Local;
use model::identity::{SpiffeId, Subject};
use model::name::Name;
use model::snapshot::Snapshot;
use runtime::drain::Drain;
use runtime::identity::Identity;
use runtime::lanes;
use tokio::sync::{mpsc, oneshot, watch};

use super::Ground;

/// How a role becomes a member.
#[derive(Debug, Clone)]
pub struct Options {
    /// The mesh.
    pub mesh: Name,
    /// Who the role is.
    pub subject: Subject,
    /// The instance's name, unique in the mesh.
    pub instance: Name,
    /// The subset of the service it belongs to.
    pub subset: Option<Name>,
    /// Where the mesh reaches this instance when that is not where it listens: behind an address translation, in a container.
    pub advertise: Option<SocketAddr>,
    /// The control plane, `host:port`.
    pub control: String,
    /// The mesh's roots in PEM.
    pub roots_pem: String,
    /// The token that was made for this instance.
    pub token: String,
    /// The role's own folder.
    pub data: PathBuf,
    /// Where to write the ready file.
    pub ready_file: Option<PathBuf>,
    /// Whether each request is logged, as one JSON line.
    pub access_log: bool,
    /// From being asked to end to being killed by whoever runs the role.
    pub stop_timeout: Duration,
}

/// A member: its identity and what it keeps.
#[derive(Debug)]
pub struct Member {
    options: Options,
    /// Its identity, kept renewed.
    pub identity: Identity,
    local: Local,
    /// Where snapshots are kept: a sync takes as long as the disk likes, and the shared runtime has more to do than to wait for it.
    /// It ends with the member.
    keeper: mpsc::Sender<Keeping>,
}

/// A snapshot to keep, and who waits for that.
type Keeping = (Arc<Snapshot>, oneshot::Sender<()>);

/// Snapshots that wait to be kept: whoever sends one waits for it before the next.
const KEEPING_MAX: usize = 1;

/// How long a role that kept a snapshot waits at its start for a live one: instances may have moved since, and a request that is
/// sent where one was before is refused or, worse, answered by someone else. Shorter than the time after which the control plane
/// takes the role for serving (3 s, `control::client::session`).
const LIVE_FIRST: Duration = Duration::from_secs(2);

/// Kept credentials that end sooner than this are not taken up again: enrolling anew is surer.
const LIFE_LEFT_MIN: Duration = Duration::from_secs(30);

impl Member {
    /// Takes up the kept identity or enrols for one, unless `stop` comes before, and keeps it renewed until `drain`.
    ///
    /// # Errors
    /// When the disk says no, or the control plane refuses the token. While the control plane cannot be reached it is asked again.
    pub async fn join(options: Options, ground: &Ground, drain: &Drain, stop: &Drain) -> anyhow::Result<Self> {
        let local = Local::open(ground.disk.clone(), &options.data)?;
        let identity = match kept_identity(&local, &options) {
            Some(identity) => identity,
            None => enrol(&options, &local, stop).await?,
        };
        let (control, token) = (options.control.clone(), Some(options.token.clone()));
        let renewal = client::keep_renewed(control, identity.clone(), token, keeper(local.clone()), drain.clone());
        drain.spawn(renewal);
        let keeper = start_keeper(local.clone(), ground)?;
        Ok(Self { options, identity, local, keeper })
    }

    /// Applies what the control plane sends, and before that the last good snapshot if the control plane cannot be reached or sends
    /// nothing for two seconds. The receiver holds the version in use; 0: none yet.
    ///
    /// `inbound` is where the mesh reaches this instance.
    pub fn follow<A, F>(
        &self,
        inbound: Option<SocketAddr>,
        health: watch::Receiver<Health>,
        drain: &Drain,
        apply: A,
    ) -> watch::Receiver<u64>
    where
        A: Fn(Arc<Snapshot>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let (version, in_use) = watch::channel(0);
        let mut session = client::Options {
            control: self.options.control.clone(),
            identity: self.identity.clone(),
            hello: Hello {
                instance: self.options.instance.clone(),
                subset: self.options.subset.clone(),
                address: inbound.map(|bound| self.options.advertise.unwrap_or(bound)),
                version: 0,
            },
            health,
            drain: drain.clone(),
        };
        let (local, keeper) = (self.local.clone(), self.keeper.clone());
        let ending = drain.clone();
        drain.spawn(async move {
            let mut kept = kept_snapshot(&local);
            session.hello.version = kept.as_ref().map_or(0, |snapshot| snapshot.version);
            let mut session = Session::start(session);
            let on_its_own = on_its_own(&session);
            tokio::pin!(on_its_own);
            loop {
                let offer = tokio::select! {
                    offer = session.next() => offer,
                    () = &mut on_its_own, if kept.is_some() => {
                        take_up(kept.take(), &apply, &version).await;
                        continue;
                    }
                    () = ending.requested() => None,
                };
                let Some(offer) = offer else { break };
                let snapshot = Arc::new(offer.snapshot);
                let outcome = apply(snapshot.clone()).await;
                if outcome.is_ok() {
                    kept = None;
                    keep(&keeper, snapshot.clone()).await;
                    version.send_replace(snapshot.version);
                } else {
                    take_up(kept.take(), &apply, &version).await;
                }
                // The session may have ended meanwhile; the next one starts with a snapshot of its own.
                let _ = offer.answer.send(outcome);
            }
        });
        in_use
    }

    /// How this role became a member.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }
}

/// Waits until a snapshot is in use.
///
/// # Errors
/// When the role ends before.
pub async fn in_use(version: &mut watch::Receiver<u64>, drain: &Drain) -> anyhow::Result<()> {
    tokio::select! {
        outcome = version.wait_for(|version| *version > 0) => outcome.map(|_| ()).context("the session ended before its first snapshot"),
        () = drain.requested() => anyhow::bail!("asked to end before the first snapshot"),
    }
}

fn kept_identity(local: &Local, options: &Options) -> Option<Identity> {
    let wanted = SpiffeId { mesh: options.mesh.clone(), subject: options.subject.clone() };
    let credentials = match local.credentials() {
        Ok(credentials) => credentials?,
        Err(error) => {
            tracing::warn!(%error, "the kept identity cannot be used; enrolling anew");
            return None;
        }
    };
    // A mesh that was made anew has another root: what was kept from the old one opens no door.
    if credentials.roots_pem != options.roots_pem {
        return None;
    }
    let identity = match Identity::new(credentials) {
        Ok(identity) => identity,
        Err(error) => {
            tracing::warn!(%error, "the kept identity cannot be used; enrolling anew");
            return None;
        }
    };
    let current = identity.current();
    let lives = current.not_after_s > runtime::clock::wall_s() + LIFE_LEFT_MIN.as_secs();
    (current.id == wanted && lives).then_some(identity)
}

/// Waits for the control plane as long as it takes, unless `stop` comes before; a refusal is final.
async fn enrol(options: &Options, local: &Local, stop: &Drain) -> anyhow::Result<Identity> {
    let id = SpiffeId { mesh: options.mesh.clone(), subject: options.subject.clone() };
    let credentials = tokio::select! {
        outcome = client::enrol(&options.control, &options.roots_pem, &options.token, &id) => outcome,
        () = stop.requested() => anyhow::bail!("asked to end before {} could enrol", options.instance),
    }
    .with_context(|| format!("{} could not enrol", options.instance))?;
    let identity = Identity::new(credentials.clone())?;
    local.keep_credentials(&credentials)?;
    Ok(identity)
}

fn keeper(local: Local) -> impl Fn(&runtime::identity::Credentials) + Send + Sync + 'static {
    move |credentials| {
        if let Err(error) = local.keep_credentials(credentials) {
            tracing::error!(%error, "the renewed identity could not be kept; a restart would enrol anew");
        }
    }
}

/// Resolves when a role should not wait for a live snapshot any longer.
fn on_its_own(session: &Session) -> impl Future<Output = ()> + Send + use<> {
    let away = session.away();
    // An error means that the time is over.
    async move { drop(tokio::time::timeout(LIVE_FIRST, away).await) }
}

fn kept_snapshot(local: &Local) -> Option<Arc<Snapshot>> {
    match local.snapshot() {
        Ok(snapshot) => snapshot.map(Arc::new),
        Err(error) => {
            tracing::error!(%error, "the last good snapshot cannot be used");
            None
        }
    }
}

async fn take_up<A, F>(kept: Option<Arc<Snapshot>>, apply: &A, version: &watch::Sender<u64>)
where
    A: Fn(Arc<Snapshot>) -> F,
    F: Future<Output = Result<(), String>>,
{
    let Some(snapshot) = kept else { return };
    match apply(snapshot.clone()).await {
        Ok(()) => {
            tracing::info!(
                revision = snapshot.revision,
                version = snapshot.version,
                "working on the last good snapshot"
            );
            version.send_replace(snapshot.version);
        }
        Err(why) => tracing::error!(why, "the last good snapshot was rejected"),
    }
}

fn start_keeper(local: Local, ground: &Ground) -> std::io::Result<mpsc::Sender<Keeping>> {
    lanes::disk_lane("snapshots", ground.place(), KEEPING_MAX, KEEPING_MAX, move |batch: &mut Vec<Keeping>| {
        for (snapshot, kept) in batch.drain(..) {
            if let Err(error) = local.keep_snapshot(&snapshot) {
                tracing::error!(%error, "the snapshot is in use but could not be kept; a restart would fall back to an older one");
            }
            // Who waited may have ended.
            let _ = kept.send(());
        }
    })
}

/// Resolves when the snapshot is on the disk, or the disk has said no: what is said of a snapshot is said after that.
async fn keep(keeper: &mpsc::Sender<Keeping>, snapshot: Arc<Snapshot>) {
    let (done, kept) = oneshot::channel();
    if keeper.send((snapshot, done)).await.is_err() || kept.await.is_err() {
        tracing::error!("nobody keeps snapshots any more; a restart would fall back to an older one");
    }
}
