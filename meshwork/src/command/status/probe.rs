//! What of the instances is true now: each is asked, its application too, and the control plane what it tells the others. What `up` wrote
//! down says only what its processes last did.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;

use crate::client::{Answer, Client};
use crate::role::health;
use crate::up::folder::{Asked, CONTROL_PLANE, Running, RunningInstance};
use crate::up::{leftover, ports};

/// How long a role may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How an instance stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// One word; `ready` only where it is.
    pub(super) state: String,
    /// Why it is not ready.
    pub(super) why: Option<String>,
}

/// What was seen of an instance that says that it is ready.
#[derive(Debug)]
struct Seen {
    ended: bool,
    suspended: bool,
    role: Result<(), String>,
    application: Result<(), String>,
    /// `None`: the control plane says nothing.
    registry: Option<Registered>,
}

/// What the control plane says of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Registered {
    known: bool,
    presumed: bool,
    live: bool,
    rejected: Option<String>,
}

/// Asks all instances of a mesh at once.
pub(super) async fn ask(running: &Running) -> Vec<Verdict> {
    let registry = registry(running).await;
    join_all(running.instances.iter().map(|instance| one(instance, registry.as_ref()))).await
}

async fn one(instance: &RunningInstance, registry: Option<&BTreeMap<String, Registered>>) -> Verdict {
    if instance.state != "ready" {
        return not_ready(instance, runtime::clock::wall_ms());
    }
    let is_control_plane = instance.instance.as_str() == CONTROL_PLANE;
    let own = super::status_address(instance);
    let application = async {
        match (&instance.health, instance.addresses.get(ports::APPLICATION)) {
            (Some(asked), Some(address)) => ask_application(*address, asked).await,
            _ => Ok(()),
        }
    };
    let role = async {
        match own {
            Some(address) => ask_role(address).await,
            None => Ok(()),
        }
    };
    let (role, application) = tokio::join!(role, application);
    let registered = |registry: &BTreeMap<String, Registered>| registry.get(instance.instance.as_str()).cloned();
    verdict(&Seen {
        ended: instance.pid.is_some_and(|pid| leftover::started(pid).is_none()),
        suspended: instance.pid.is_some_and(leftover::is_stopped),
        role,
        application,
        registry: registry.filter(|_| !is_control_plane).map(|registry| registered(registry).unwrap_or_default()),
    })
}

/// Of an instance of which `up` itself says that it is not ready.
fn not_ready(instance: &RunningInstance, now_ms: u64) -> Verdict {
    let next = instance.next_start_ms.map(|at| {
        let after_s = at.saturating_sub(now_ms).div_ceil(1_000);
        format!("the next start is in {after_s} s")
    });
    let parts: Vec<String> = instance.last_end.iter().cloned().chain(next).collect();
    Verdict { state: instance.state.clone(), why: (!parts.is_empty()).then(|| parts.join("; ")) }
}

fn verdict(seen: &Seen) -> Verdict {
    let failing = |state: &str, why: String| Verdict { state: state.to_owned(), why: Some(why) };
    if seen.ended {
        return failing("ended", "its process has ended".to_owned());
    }
    if seen.suspended {
        return failing("suspended", "a signal has stopped its process, as SIGSTOP or a Ctrl-Z does".to_owned());
    }
    if let Err(why) = &seen.role {
        return failing("failing", format!("it does not answer that it is well: {why}"));
    }
    if let Err(why) = &seen.application {
        return failing("failing", format!("its application does not answer that it is well: {why}"));
    }
    match &seen.registry {
        Some(Registered { known: false, .. }) => {
            failing("failing", "the control plane does not hear from it".to_owned())
        }
        Some(Registered { presumed: true, .. }) => {
            failing("failing", "the control plane has not heard from it since its own restart".to_owned())
        }
        Some(Registered { rejected: Some(why), .. }) => {
            failing("failing", format!("it rejected the configuration and works on with an older one: {why}"))
        }
        Some(Registered { live: false, .. }) => {
            failing("failing", "the control plane does not tell others of it".to_owned())
        }
        _ => Verdict { state: "ready".to_owned(), why: None },
    }
}

async fn ask_role(address: SocketAddr) -> Result<(), String> {
    match get(address, "/healthz").await? {
        answer if answer.status.is_success() => Ok(()),
        answer => Err(String::from_utf8_lossy(&answer.body).trim().to_owned()),
    }
}

async fn ask_application(address: SocketAddr, asked: &Asked) -> Result<(), String> {
    let asking = health::ask(address, asked.path.as_deref());
    match tokio::time::timeout(Duration::from_millis(asked.timeout_ms), asking).await {
        Ok(answer) => answer,
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// What the control plane says of all instances, where it says anything.
async fn registry(running: &Running) -> Option<BTreeMap<String, Registered>> {
    let control_plane = running.instances.iter().find(|instance| instance.instance.as_str() == CONTROL_PLANE)?;
    let address = *control_plane.addresses.get(ports::ADMIN)?;
    let (registry, sidecars) = tokio::join!(get(address, "/v1/registry"), get(address, "/v1/sidecars"));
    let read = |answer: Result<Answer, String>| -> Option<Value> {
        answer.ok().filter(|answer| answer.status.is_success())?.json().ok()
    };
    Some(registered(&read(registry)?, &read(sidecars)?))
}

fn registered(registry: &Value, sidecars: &Value) -> BTreeMap<String, Registered> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let mut all = BTreeMap::new();
    for instance in list(registry, "instances") {
        let Some(name) = instance["instance"].as_str() else { continue };
        let is = |key: &str| instance[key].as_bool().unwrap_or_default();
        let (live, presumed) = (is("live"), is("presumed"));
        all.insert(name.to_owned(), Registered { known: true, presumed, live, rejected: None });
    }
    for sidecar in list(sidecars, "sidecars") {
        let found = sidecar["instance"].as_str().and_then(|name| all.get_mut(name));
        if let Some(found) = found {
            found.rejected = sidecar["rejected"]["why"].as_str().map(str::to_owned);
        }
    }
    all
}

/// A GET on loopback.
async fn get(address: SocketAddr, path: &str) -> Result<Answer, String> {
    let client = Client::new(address, &address.to_string());
    match tokio::time::timeout(ANSWER_TIMEOUT, client.get(path)).await {
        Ok(answer) => answer.map_err(|error| format!("{:#}", anyhow::Error::from(error))),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn well() -> Seen {
        let registry = Some(Registered { known: true, presumed: false, live: true, rejected: None });
        Seen { ended: false, suspended: false, role: Ok(()), application: Ok(()), registry }
    }

    #[test]
    fn only_what_answers_and_is_called_is_ready() {
        let no = || Err("connection refused".to_owned());
        let registry = |known, live, rejected: Option<&str>| {
            Some(Registered { known, presumed: false, live, rejected: rejected.map(str::to_owned) })
        };
        let presumed = Some(Registered { known: true, presumed: true, live: true, rejected: None });
        let cases = [
            (well(), "ready", ""),
            (Seen { registry: None, ..well() }, "ready", ""),
            (Seen { ended: true, role: no(), ..well() }, "ended", "has ended"),
            (Seen { suspended: true, role: no(), ..well() }, "suspended", "SIGSTOP"),
            (Seen { role: no(), ..well() }, "failing", "connection refused"),
            (Seen { application: no(), ..well() }, "failing", "its application does not answer"),
            (Seen { registry: registry(false, false, None), ..well() }, "failing", "does not hear from it"),
            (Seen { registry: registry(true, false, None), ..well() }, "failing", "does not tell others"),
            (Seen { registry: presumed, ..well() }, "failing", "has not heard from it since its own restart"),
            (Seen { registry: registry(true, true, Some("no room")), ..well() }, "failing", "no room"),
        ];
        for (seen, state, why) in cases {
            let found = verdict(&seen);
            assert_eq!(found.state, state, "{seen:?}");
            assert!(found.why.clone().unwrap_or_default().contains(why), "{found:?}");
        }
    }

    #[test]
    fn the_control_planes_two_lists_are_one() {
        let all = registered(
            &json!({"instances": [{"instance": "a-0", "live": true, "presumed": true}, {"instance": "b-0", "live": false}]}),
            &json!({"sidecars": [{"instance": "a-0", "rejected": null}, {"instance": "b-0", "rejected": {"why": "no"}}]}),
        );
        assert_eq!(all["a-0"], Registered { known: true, presumed: true, live: true, rejected: None });
        let b = Registered { known: true, presumed: false, live: false, rejected: Some("no".to_owned()) };
        assert_eq!(all["b-0"], b);
    }
}
