//! The harm that is done in the middle of the stream, one piece after the other: an instance with its application, the broker,
//! the control plane, each killed with SIGKILL as a crash would, and each brought back by `up`.
//!
//! It says when each one happened. What it cost is left to the report.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::latency::Window;
use super::narrate::Narrator;
use super::observe::{Observed, Observer};
use super::orders::Progress;
use crate::up::{Mesh, Report};

/// How long something that was killed may take to carry traffic again.
const BACK_BOUND: Duration = Duration::from_secs(60);
/// A fault is over when everything is back and for so long no order had to be asked for again.
const QUIET: Duration = Duration::from_millis(700);
/// The longest wait for that.
const QUIET_BOUND: Duration = Duration::from_secs(20);
/// How long the control plane is away, where the stream is long enough.
const CONTROL_PLANE_AWAY: Duration = Duration::from_secs(5);
/// The share of the stream that each fault has, in hundredths: it begins when the stream has come to the first, and until it is over
/// the stream does not go on past the second. So every fault is met, and the rest of the orders meets the mesh well again.
const SHARES: [(u64, u64); 3] = [(10, 25), (25, 55), (55, 88)];
/// From one look at the stream to the next.
const STREAM_POLL: Duration = Duration::from_millis(10);

/// How many of `orders` are sent before the first fault is over.
pub(super) fn allowed_first(orders: u64) -> u64 {
    share(orders, SHARES[0].1)
}

fn share(orders: u64, hundredths: u64) -> u64 {
    orders * hundredths / 100
}

/// Fewer orders do not reach every fault.
pub(super) const ORDERS_MIN: u64 = 20;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    instance: String,
    what: String,
    hold: Duration,
}

/// A fault as it happened.
#[derive(Debug, Clone)]
pub(super) struct Happened {
    /// What was done.
    pub(super) what: String,
    /// From the kill until it carried traffic again; `None`: it did not within the bound.
    pub(super) back_after: Option<Duration>,
    /// From the kill until the last order that had to be asked for again had its answer; `None`: none had to be.
    pub(super) felt_for: Option<Duration>,
    /// In which orders may have felt it.
    pub(super) window: Window,
    /// What the mesh had counted before and after.
    pub(super) before: Observed,
    pub(super) after: Observed,
}

/// What faults act on.
pub(super) struct Ground<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) observer: &'a tokio::sync::Mutex<Observer>,
    pub(super) narrator: &'a Narrator,
    pub(super) progress: &'a Progress,
}

/// Does the harm, in turn, as the stream of `orders` at `per_second` gets on, and tells it how far it may go.
pub(super) async fn happen(
    ground: &Ground<'_>,
    orders: u64,
    per_second: f64,
    allowed: &watch::Sender<u64>,
) -> Vec<Happened> {
    let mut happened = Vec::new();
    let faults = faults(&ground.mesh.reports(), away(orders, per_second));
    for (fault, (begin, end)) in faults.into_iter().zip(SHARES) {
        allowed.send_replace(share(orders, end));
        while ground.progress.sent.load(Ordering::Relaxed) < share(orders, begin) {
            tokio::time::sleep(STREAM_POLL).await;
        }
        happened.push(one(ground, fault).await);
    }
    allowed.send_replace(orders);
    happened
}

/// How long the control plane is away: a third of the stream, so that orders go on without it.
fn away(orders: u64, per_second: f64) -> Duration {
    const SHARE: f64 = 0.3;
    Duration::from_secs_f64(orders as f64 / per_second * SHARE).min(CONTROL_PLANE_AWAY)
}

fn faults(reports: &[Report], away: Duration) -> Vec<Fault> {
    let fault = |instance: &str, what: &str, hold| Fault {
        instance: instance.to_owned(),
        what: format!("{what} killed with -9"),
        hold,
    };
    let catalog =
        reports.iter().rfind(|report| report.service.as_ref().is_some_and(|service| service.as_str() == "catalog"));
    let mut faults = Vec::new();
    faults.extend(catalog.map(|report| {
        let instance = report.instance.as_str();
        fault(instance, &format!("{instance} and its sidecar"), Duration::ZERO)
    }));
    faults.push(fault("broker", "the broker", Duration::ZERO));
    faults.push(fault("control-plane", "the control plane", away));
    faults
}

async fn one(ground: &Ground<'_>, fault: Fault) -> Happened {
    let Ground { mesh, observer, narrator, .. } = ground;
    let before = look(mesh, observer).await;
    let report = mesh.reports().into_iter().find(|report| report.instance.as_str() == fault.instance);
    let (starts, pid) = report.map_or((0, None), |report| (report.starts, report.pid));
    let pid = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
    let hold = match fault.hold {
        Duration::ZERO => String::new(),
        hold => format!("; it stays away for {:.1} s and orders go on", hold.as_secs_f64()),
    };
    narrator.harm(&format!("{}{pid}{hold}", fault.what));
    let (from, killed) = (narrator.now(), Instant::now());
    mesh.kill(&fault.instance, fault.hold).await;
    let back = tokio::time::timeout(BACK_BOUND, mesh.ready_after(&fault.instance, starts)).await;
    let back_after = back.is_ok().then(|| killed.elapsed());
    match back_after {
        Some(after) => narrator.good(&format!("{} is back after {:.1} s", fault.instance, after.as_secs_f64())),
        None => narrator.harm(&format!("{} did not come back", fault.instance)),
    }
    let felt_for = until_quiet(ground.progress).await.map(|last| last.saturating_duration_since(killed));
    if let Some(felt) = felt_for {
        narrator.good(&format!("every order goes through again, {:.1} s after the kill", felt.as_secs_f64()));
    }
    let window = Window { from, to: narrator.now() };
    Happened { what: fault.what, back_after, felt_for, window, before, after: look(mesh, observer).await }
}

/// Waits until no order is being asked for again; gives the last moment at which one was.
async fn until_quiet(progress: &Progress) -> Option<Instant> {
    let start = Instant::now();
    let mut waited = None;
    while waited.unwrap_or(start).elapsed() < QUIET && start.elapsed() < QUIET_BOUND {
        if progress.waiting.load(Ordering::Relaxed) > 0 {
            waited = Some(Instant::now());
        }
        tokio::time::sleep(STREAM_POLL).await;
    }
    waited
}

/// What the mesh has counted up to now.
pub(super) async fn look(mesh: &Mesh, observer: &tokio::sync::Mutex<Observer>) -> Observed {
    let mut observer = observer.lock().await;
    observer.look(mesh).await;
    observer.observed()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::name::Name;

    use super::*;
    use crate::up::State;

    fn report(service: Option<&str>, instance: &str) -> Report {
        let name = |text: &str| Name::new(text).unwrap();
        Report {
            label: service.unwrap_or(instance).to_owned(),
            service: service.map(name),
            instance: name(instance),
            state: State::Ready,
            pid: Some(1),
            starts: 1,
            addresses: BTreeMap::new(),
        }
    }

    #[test]
    fn an_instance_the_broker_and_the_control_plane_are_killed_in_this_order() {
        let reports = [
            report(None, "broker"),
            report(Some("catalog"), "catalog-0"),
            report(Some("catalog"), "catalog-1"),
            report(Some("orders"), "orders-0"),
        ];
        let faults = faults(&reports, Duration::from_secs(2));
        let instances: Vec<_> = faults.iter().map(|fault| (fault.instance.as_str(), fault.hold.as_secs())).collect();
        assert_eq!(instances, [("catalog-1", 0), ("broker", 0), ("control-plane", 2)]);
    }

    #[test]
    fn each_fault_has_a_share_of_the_smallest_stream() {
        let shares: Vec<_> =
            SHARES.iter().map(|(begin, end)| (share(ORDERS_MIN, *begin), share(ORDERS_MIN, *end))).collect();
        assert!(shares.iter().all(|(begin, end)| begin < end), "{shares:?}");
        assert!(SHARES.windows(2).all(|two| two[0].1 == two[1].0));
        assert_eq!(allowed_first(300), 75);
    }

    #[test]
    fn the_control_plane_is_away_for_a_part_of_the_stream() {
        assert_eq!(away(300, 25.0), Duration::from_millis(3_600));
        assert_eq!(away(10_000, 25.0), CONTROL_PLANE_AWAY);
    }
}
