//! From what runs to what is wanted, one step at a time: a pure comparison of what runs with the plan of the revision in force.
//!
//! The next step is found anew after each one, so a revision that comes in between is taken into account, and what failed holds up
//! its like and nobody else. First what is missing is started, callees before callers; then what differs is replaced, one instance of
//! a service at a time and only while the others are well; then what is no longer wanted is stopped, callers before callees.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use model::name::Name;

use super::plan::{Part, Planned};

/// An instance that runs, or is kept running.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Now {
    /// As what it was started.
    pub(crate) planned: Planned,
    /// It carries traffic, and its callers are told of it.
    pub(crate) well: bool,
}

/// What is done next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// It is missing.
    Start(Planned),
    /// It runs as something else: it is ended, and started as this.
    Replace(Planned),
    /// It is not wanted, or has an address that another one needs first.
    Stop(Name),
}

/// The next step; `None`: everything runs as it is wanted, or has to be waited for. What is `refused` stays as it is.
pub(crate) fn next(now: &[Now], wanted: &[Vec<Planned>], refused: &BTreeSet<Name>) -> Option<Step> {
    let possible = || wanted.iter().flatten().filter(|planned| !refused.contains(&planned.instance));
    let running = |name: &Name| now.iter().find(|one| one.planned.instance == *name);
    let starts = possible().filter(|planned| running(&planned.instance).is_none());
    let replaced = || {
        let pairs = possible().filter_map(|planned| Some((planned, running(&planned.instance)?)));
        pairs.filter(|(planned, one)| one.planned != **planned)
    };
    // Who is not well is replaced first: that costs nobody anything, and may be what its like wait for.
    let broken = replaced().filter(|(_, one)| !one.well);
    let ready = replaced().filter(|(planned, one)| one.well && others_are_well(planned, now, wanted));
    let replaces = broken.chain(ready).map(|(planned, _)| Step::Replace(planned.clone()));
    let step = starts.map(|planned| Step::Start(planned.clone())).chain(replaces).next();
    match step {
        Some(Step::Start(planned) | Step::Replace(planned)) if blocker(&planned, now, wanted).is_some() => {
            blocker(&planned, now, wanted).map(|blocker| Step::Stop(blocker.clone()))
        }
        Some(step) => Some(step),
        None => {
            let unwanted = now.iter().rev().map(|one| &one.planned.instance).find(|name| find(wanted, name).is_none());
            unwanted.map(|name| Step::Stop(name.clone()))
        }
    }
}

/// How many instances are to be started, replaced and stopped.
pub(crate) fn count(now: &[Now], wanted: &[Vec<Planned>]) -> [usize; 3] {
    let running = |name: &Name| now.iter().find(|one| one.planned.instance == *name);
    let mut counts = [0; 3];
    for planned in wanted.iter().flatten() {
        match running(&planned.instance) {
            None => counts[0] += 1,
            Some(one) if one.planned != *planned => counts[1] += 1,
            Some(_) => {}
        }
    }
    counts[2] = now.iter().filter(|one| find(wanted, &one.planned.instance).is_none()).count();
    counts
}

/// Whether an instance that runs has the address that `planned` declares.
pub(crate) fn is_held(planned: &Planned, now: &[Now]) -> bool {
    let Some(address) = declared(planned) else { return false };
    now.iter().any(|one| declared(&one.planned).is_some_and(|held| collide(held, address)))
}

fn others_are_well(planned: &Planned, now: &[Now], wanted: &[Vec<Planned>]) -> bool {
    let stays = |one: &&Now| find(wanted, &one.planned.instance).is_some();
    let other = |one: &&Now| one.planned.instance != planned.instance && one.planned.subject() == planned.subject();
    now.iter().filter(other).filter(stays).all(|one| one.well)
}

/// Who has the address that `planned` declares, and will not keep it.
fn blocker<'a>(planned: &Planned, now: &'a [Now], wanted: &[Vec<Planned>]) -> Option<&'a Name> {
    let address = declared(planned)?;
    let others = now.iter().map(|one| &one.planned).filter(|other| other.instance != planned.instance);
    let mut holders = others.filter(|other| declared(other).is_some_and(|held| collide(held, address)));
    holders.find(|holder| find(wanted, &holder.instance) != Some(*holder)).map(|holder| &holder.instance)
}

/// Where the mesh file says that it listens.
fn declared(planned: &Planned) -> Option<SocketAddr> {
    match &planned.part {
        Part::Gateway { listen, .. } => Some(*listen).filter(|listen| listen.port() != 0),
        Part::Service(service) => service.port.map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
        Part::ControlPlane | Part::Broker => None,
    }
}

fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

fn find<'a>(wanted: &'a [Vec<Planned>], name: &Name) -> Option<&'a Planned> {
    wanted.iter().flatten().find(|planned| planned.instance == *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::plan;

    const MESH: &str = "
mesh: shop
services:
  front: {protocol: http, command: front, calls: [back]}
  back: {protocol: http, command: back, instances: 2}
gateways: {public: {listen: 127.0.0.1:8080, backends: [{service: front}]}}
";

    fn waves(text: &str) -> Vec<Vec<Planned>> {
        plan::waves(&model::config::check("mesh.yaml", text).unwrap().config).unwrap()
    }

    fn running(text: &str) -> Vec<Now> {
        waves(text).into_iter().flatten().map(|planned| Now { planned, well: true }).collect()
    }

    fn word(step: &Step) -> String {
        match step {
            Step::Start(planned) => format!("start {}", planned.instance),
            Step::Replace(planned) => format!("replace {}", planned.instance),
            Step::Stop(name) => format!("stop {name}"),
        }
    }

    /// Does the steps, after which those that `fail` are not well, and tells them.
    fn steps(mut now: Vec<Now>, to: &str, fail: &[&str]) -> Vec<String> {
        let (wanted, refused) = (waves(to), BTreeSet::new());
        let mut steps = Vec::new();
        while let Some(step) = next(&now, &wanted, &refused) {
            assert!(steps.len() < 20, "no end: {steps:?}");
            let fails = |planned: &Planned| fail.contains(&planned.instance.as_str());
            match &step {
                Step::Start(planned) => now.push(Now { well: !fails(planned), planned: planned.clone() }),
                Step::Stop(name) => now.retain(|one| one.planned.instance != *name),
                Step::Replace(planned) => {
                    let one = now.iter_mut().find(|one| one.planned.instance == planned.instance).unwrap();
                    *one = Now { well: !fails(planned), planned: planned.clone() };
                }
            }
            steps.push(word(&step));
        }
        steps
    }

    #[test]
    fn a_mesh_comes_to_what_is_wanted_step_by_step() {
        let with = |from: &str, to: &str| MESH.replace(from, to);
        for (to, expected) in [
            (MESH.to_owned(), vec![]),
            // What is told to the roles by snapshot needs no process.
            (with("calls: [back]", "calls: [back], breaker: {open: 2s}"), vec![]),
            (with("instances: 2", "instances: 3"), vec!["start back-2"]),
            (with("instances: 2", "instances: 1"), vec!["stop back-1"]),
            (with("command: back", "command: back --fast"), vec!["replace back-0", "replace back-1"]),
            (with("command: back", "command: back, env: {A: b}"), vec!["replace back-0", "replace back-1"]),
            (with("command: back", "command: back, health: {path: /h}"), vec!["replace back-0", "replace back-1"]),
            (with("command: front", "command: front, port: 8101"), vec!["replace front-0"]),
            (
                with("command: back, instances: 2", "subsets: {v1: {command: back}, v2: {command: back}}"),
                vec!["start back-v1-0", "start back-v2-0", "stop back-1", "stop back-0"],
            ),
            (with("8080", "8081"), vec!["replace gateway-public"]),
            (
                with("  back:", "  deep: {protocol: http, command: deep}\n  back:").replace("[back]", "[back, deep]"),
                vec!["start deep-0"],
            ),
            (
                "mesh: shop\nservices: {}\n".to_owned(),
                vec!["stop gateway-public", "stop front-0", "stop back-1", "stop back-0"],
            ),
            (
                with("command: front,", "command: front, publishes: [work],") + "queues: {work: {}}\n",
                vec!["start broker"],
            ),
            (
                with("command: front", "command: front --new").replace("instances: 2", "instances: 3"),
                vec!["start back-2", "replace front-0"],
            ),
        ] {
            assert_eq!(steps(running(MESH), &to, &[]), expected, "{to}");
            let (now, wanted) = (running(MESH), waves(&to));
            assert!(count(&now, &wanted).iter().sum::<usize>() >= expected.len(), "{to}");
        }
    }

    #[test]
    fn an_address_that_moves_is_given_up_before_it_is_taken() {
        let ports = |front: u16, back: u16| {
            MESH.replace("command: front", &format!("command: front, port: {front}"))
                .replace("command: back, instances: 2", &format!("command: back, port: {back}"))
        };
        // Callees come first, so it is the caller that gives its address up.
        let swapped = steps(running(&ports(8_101, 8_102)), &ports(8_102, 8_101), &[]);
        assert_eq!(swapped, ["stop front-0", "stop back-0", "start back-0", "start front-0"]);
        let other = MESH.replace("public:", "other:");
        assert_eq!(steps(running(MESH), &other, &[]), ["stop gateway-public", "start gateway-other"]);
        let open = MESH.replace("public:", "other:").replace("127.0.0.1:8080", "0.0.0.0:8080");
        assert_eq!(steps(running(MESH), &open, &[]), ["stop gateway-public", "start gateway-other"]);
    }

    #[test]
    fn what_does_not_come_up_holds_up_its_like_and_nobody_else() {
        let bad = MESH.replace("command: back", "command: oops").replace("command: front", "command: front --new");
        assert_eq!(steps(running(MESH), &bad, &["back-0"]), ["replace back-0", "replace front-0"]);
        // As it stands then, another revision goes on with the others, and a mended one begins with what failed.
        let mut now = running(&bad);
        now.iter_mut().find(|one| one.planned.instance.as_str() == "back-0").unwrap().well = false;
        let back = running(MESH).into_iter().find(|one| one.planned.instance.as_str() == "back-1").unwrap();
        *now.iter_mut().find(|one| one.planned.instance.as_str() == "back-1").unwrap() = back;
        let more = bad.replace("front --new", "front --newer");
        assert_eq!(steps(now.clone(), &more, &[]), ["replace front-0"]);
        let mended = bad.replace("oops", "back --mended");
        assert_eq!(steps(now.clone(), &mended, &[]), ["replace back-0", "replace back-1"]);
        assert_eq!(steps(now, MESH, &[]), ["replace back-0", "replace front-0"]);
        // One that is not well for another reason is replaced before the last one that is.
        let mut now = running(MESH);
        now.iter_mut().find(|one| one.planned.instance.as_str() == "back-1").unwrap().well = false;
        let to = MESH.replace("command: back", "command: back --new");
        assert_eq!(steps(now, &to, &[]), ["replace back-1", "replace back-0"]);
    }

    #[test]
    fn what_is_refused_stays_as_it_is() {
        let wanted = waves(&MESH.replace("command: back", "command: nowhere").replace("instances: 2", "instances: 3"));
        let refused = ["back-0", "back-1", "back-2"].map(|name| Name::new(name).unwrap()).into();
        assert_eq!(next(&running(MESH), &wanted, &refused), None);
    }
}
