//! The wait after a change: until every connected role runs on it, or has rejected it.

use std::collections::BTreeSet;
use std::time::Duration;

use control::view::Sidecar;
use serde::Serialize;
use tokio::time::Instant;

use super::publish::say;
use crate::operator::{Error, Operator};

/// From one look at the roles to the next.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// Before it is said for whom is waited: most meshes are faster.
const PATIENCE: Duration = Duration::from_secs(2);

/// How far the roles are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Convergence {
    /// They run on the revision, or on a later one.
    pub(super) converged: BTreeSet<String>,
    /// They have not said yet.
    pub(super) waiting: BTreeSet<String>,
    /// They rejected it, and why.
    pub(super) rejected: BTreeSet<(String, String)>,
}

impl Convergence {
    fn of(revision: u64, roles: &[Sidecar]) -> Self {
        let mut found = Self::default();
        for role in roles {
            let instance = role.instance.to_string();
            let rejected = role.rejected.as_ref().filter(|rejected| rejected.numbers.revision >= revision);
            if role.applied.is_some_and(|applied| applied.revision >= revision) {
                found.converged.insert(instance);
            } else if let Some(rejected) = rejected {
                found.rejected.insert((instance, rejected.why.clone()));
            } else {
                found.waiting.insert(instance);
            }
        }
        found
    }

    /// Whether every role runs on it.
    pub(super) fn is_whole(&self) -> bool {
        self.waiting.is_empty() && self.rejected.is_empty()
    }
}

/// Waits until every role has answered for `revision`, at most `bound`. `told`: whether it is said meanwhile for whom is waited.
pub(super) async fn wait(
    operator: &Operator,
    revision: u64,
    bound: Duration,
    told: bool,
) -> Result<Convergence, Error> {
    let (began, mut said) = (Instant::now(), BTreeSet::new());
    loop {
        let found = Convergence::of(revision, &operator.roles().await?);
        if found.waiting.is_empty() || began.elapsed() >= bound {
            return Ok(found);
        }
        if told && began.elapsed() >= PATIENCE && found.waiting != said {
            say(&format!("waiting for {}", list(&found.waiting)));
            said.clone_from(&found.waiting);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Names in one line.
pub(super) fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use control::{Numbers, Rejected};
    use model::name::Name;

    use super::*;

    #[test]
    fn a_role_has_converged_or_rejected_or_is_waited_for() {
        let numbers = |revision| Numbers { revision, version: revision };
        let role = |instance: &str, applied: Option<u64>, rejected: Option<u64>| Sidecar {
            subject: "service/a".to_owned(),
            instance: Name::new(instance).unwrap(),
            sent: None,
            applied: applied.map(numbers),
            rejected: rejected.map(|revision| Rejected { numbers: numbers(revision), why: "no room".to_owned() }),
            converged: false,
        };
        let roles = [
            role("a-0", Some(7), None),
            role("a-1", Some(6), None),
            role("a-2", Some(6), Some(7)),
            role("a-3", Some(5), Some(6)),
            role("a-4", None, None),
            role("a-5", Some(8), Some(7)),
        ];
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let found = Convergence::of(7, &roles);
        assert_eq!(found.converged, names(&["a-0", "a-5"]));
        assert_eq!(found.waiting, names(&["a-1", "a-3", "a-4"]));
        assert_eq!(found.rejected, BTreeSet::from([("a-2".to_owned(), "no room".to_owned())]));
        assert!(!found.is_whole() && Convergence::of(7, &roles[..1]).is_whole());
    }
}
