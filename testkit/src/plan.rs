//! What a seed decides: how fast orders are placed, and which faults come when.

use std::time::Duration;

use serde::Serialize;

use crate::levels::Stream;

/// The hosts that faults may hit. The client is the world outside and stays.
pub const HOSTS: [&str; 9] =
    ["control", "broker", "gateway", "orders-0", "stock-0", "stock-1", "shipping-0", "notifications-0", "packing-0"];
/// The host that no fault hits by itself: what breaks its streams is told by their other end.
pub const LEVELS_HOST: &str = "levels-0";

/// Keys, each with its own sequence of orders.
pub const KEYS: u32 = 4;

/// Faults begin when the mesh carries traffic and have all ended by the end of this window.
const FAULTS_FROM: Duration = Duration::from_secs(3);
const FAULTS_WINDOW: Duration = Duration::from_secs(9);
const FAULTS_MAX: u32 = 8;
/// A run without faults is not over at once.
const PLACING_MIN: Duration = Duration::from_secs(6);
/// By then a stream has begun.
const STREAM_FROM: Duration = Duration::from_secs(5);
/// Orders are placed for this much longer than the last fault lasts.
const PLACING_AFTER: Duration = Duration::from_secs(1);
/// The longest that one fault lasts.
const FAULT_MAX: Duration = Duration::from_secs(4);
/// A disk fails within this many more operations of its kind.
const OPERATIONS_MAX: u64 = 30;

/// What one run does.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// From one order of a key to the next.
    pub pause: Duration,
    /// Until when orders are placed: a little longer than the last fault lasts.
    pub placing_until: Duration,
    /// The run is not over before, so that a stream can come to its end.
    pub lasts_until: Duration,
    /// In the order in which they begin.
    pub faults: Vec<Fault>,
    /// What `orders` watches all the time.
    pub stream: Stream,
}

/// One fault.
#[derive(Debug, Clone, Serialize)]
pub struct Fault {
    /// When it begins.
    pub begins: Duration,
    /// When it has ended.
    pub ends: Duration,
    /// What it is.
    pub kind: Kind,
}

/// Kinds of fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The host stops in the middle of what it does and loses what it has not synced; at the end it starts anew.
    Crash(&'static str),
    /// Nothing passes between the two hosts.
    Partition(&'static str, &'static str),
    /// Nothing passes from the one host to the other; the other direction works.
    OneWay(&'static str, &'static str),
    /// What is sent between the two hosts arrives only at the end, all at once.
    Hold(&'static str, &'static str),
    /// The same between the host and everybody else: to them it has paused, while its own time goes on.
    Stall(&'static str),
    /// Everything between the two hosts takes this much longer.
    Slow(&'static str, &'static str, Duration),
    /// After so many more operations of the kind the host's disk fails at every one; at the end the host crashes, and starts on a good disk.
    Disk(&'static str, Operation, u64),
    /// The control plane crashes, and after its start an operator publishes the mesh file's second revision.
    Revise,
}

/// What a disk fails at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Writing.
    Write,
    /// Syncing.
    Sync,
    /// Taking room.
    Allocate,
}

impl Kind {
    /// Whether it comes between two hosts, or stops one of them.
    #[must_use]
    pub fn touches(&self, one: &str, other: &str) -> bool {
        match self {
            Self::Crash(host) | Self::Disk(host, ..) | Self::Stall(host) => *host == one || *host == other,
            Self::Revise => [one, other].contains(&"control"),
            Self::Partition(a, b) | Self::OneWay(a, b) | Self::Hold(a, b) | Self::Slow(a, b, _) => {
                (*a == one && *b == other) || (*a == other && *b == one)
            }
        }
    }

    /// The host that is stopped by it.
    fn stops(&self) -> Option<&'static str> {
        match self {
            Self::Crash(host) | Self::Disk(host, ..) => Some(host),
            Self::Revise => Some("control"),
            Self::Partition(..) | Self::OneWay(..) | Self::Hold(..) | Self::Stall(_) | Self::Slow(..) => None,
        }
    }
}

impl Plan {
    /// Draws a plan.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut faults: Vec<Fault> = (0..random.u32(0..=FAULTS_MAX)).map(|_| draw_fault(&mut random)).collect();
        faults.sort_by_key(|fault| fault.begins);
        let faults = without_overlapping_crashes(faults);
        let stream = draw_stream(&mut random);
        let healed = faults.iter().map(|fault| fault.ends).max().unwrap_or_default();
        Self {
            pause: Duration::from_millis(random.u64(150..=900)),
            placing_until: healed.max(PLACING_MIN) + PLACING_AFTER,
            lasts_until: STREAM_FROM + stream.lasts() + PLACING_AFTER,
            faults,
            stream,
        }
    }
}

/// Most are short; one in eight lasts longer than the default bound of a request, one in fifty longer than that of what is silent.
fn draw_stream(random: &mut fastrand::Rng) -> Stream {
    let seconds = Duration::from_secs;
    match random.u32(0..50) {
        0 => Stream { every: seconds(70), count: 10 },
        1..7 => Stream { every: seconds(2), count: 10 },
        _ => Stream { every: Duration::from_millis(500), count: random.u32(2..10) },
    }
}

fn draw_fault(random: &mut fastrand::Rng) -> Fault {
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let begins = FAULTS_FROM + Duration::from_millis(random.u64(0..millis(FAULTS_WINDOW)));
    let ends = begins + Duration::from_millis(random.u64(100..millis(FAULT_MAX)));
    let one = HOSTS[random.usize(0..HOSTS.len())];
    let other = HOSTS[random.usize(0..HOSTS.len())];
    let kind = match random.u32(0..20) {
        0..4 => Kind::Crash(one),
        4..6 => Kind::Crash("broker"),
        6..8 => draw_disk_fault(random),
        8..10 => Kind::Revise,
        10 => Kind::Stall(one),
        _ if one == other => Kind::Crash(one),
        11..14 => Kind::Partition(one, other),
        14..16 => Kind::OneWay(one, other),
        16 => Kind::Hold(one, other),
        _ => Kind::Slow(one, other, Duration::from_millis(random.u64(20..600))),
    };
    Fault { begins, ends, kind }
}

/// Half of them hit the broker, as many crashes do: its disk is the one that holds what was acknowledged.
fn draw_disk_fault(random: &mut fastrand::Rng) -> Kind {
    let host = if random.bool() { "broker" } else { HOSTS[random.usize(0..HOSTS.len())] };
    let operation = [Operation::Write, Operation::Sync, Operation::Allocate][random.usize(0..3)];
    Kind::Disk(host, operation, random.u64(0..OPERATIONS_MAX))
}

/// A host that is down cannot be stopped: of two faults that stop one host and overlap, the later is left out.
fn without_overlapping_crashes(faults: Vec<Fault>) -> Vec<Fault> {
    let mut kept: Vec<Fault> = Vec::with_capacity(faults.len());
    for fault in faults {
        let stops = fault.kind.stops();
        let overlaps = stops.is_some() && kept.iter().any(|k| k.kind.stops() == stops && k.ends >= fault.begins);
        if !overlaps {
            kept.push(fault);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan() {
        for seed in 0..200 {
            let plan = Plan::draw(seed);
            assert_eq!(format!("{plan:?}"), format!("{:?}", Plan::draw(seed)));
            assert!(plan.faults.iter().all(|f| f.begins >= FAULTS_FROM && f.ends > f.begins));
            assert!(plan.faults.iter().all(|f| f.ends < plan.placing_until));
            assert!(plan.placing_until <= FAULTS_FROM + FAULTS_WINDOW + FAULT_MAX + PLACING_AFTER);
            assert!(plan.lasts_until > STREAM_FROM + plan.stream.lasts(), "a stream comes to its end");
        }
        let faults = (0..200).flat_map(|seed| Plan::draw(seed).faults);
        let kinds: std::collections::BTreeSet<String> =
            faults.map(|f| format!("{:?}", f.kind).chars().take_while(|c| c.is_alphanumeric()).collect()).collect();
        assert_eq!(kinds.len(), 8, "every kind of fault comes: {kinds:?}");
    }
}
