//! What became of the snapshots that were sent: for each stream the last one sent, the last one applied and the last one
//! rejected. A role that rejected a revision has not converged, whatever else it runs on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::identity::Subject;
use model::name::Name;
use serde::{Deserialize, Serialize};

use crate::registry::Stream;

/// Snapshots sent on a stream whose answers are still understood.
const UNANSWERED_MAX: usize = 32;
/// Longest reason that is kept, in bytes.
const REASON_LENGTH_MAX: usize = 4_096;

/// A snapshot by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// The configuration it was cut from.
    pub revision: u64,
    /// The snapshot.
    pub version: u64,
}

/// A snapshot that a role did not take up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Which.
    #[serde(flatten)]
    pub numbers: Numbers,
    /// Why, in the role's words.
    pub why: String,
}

/// How far one role is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    sent: VecDeque<Numbers>,
    /// What it runs on, if it said so on this stream.
    pub applied: Option<Numbers>,
    /// What it rejected, until it takes up a later one.
    pub rejected: Option<Rejected>,
}

/// All roles that have a stream.
#[derive(Debug, Default)]
pub struct Sidecars(BTreeMap<(Subject, Name), (Stream, Progress)>);

impl Progress {
    /// The latest that was sent.
    #[must_use]
    pub fn sent(&self) -> Option<Numbers> {
        self.sent.back().copied()
    }

    /// Whether it runs on the latest that was sent, and that is of `revision`.
    #[must_use]
    pub fn has_converged(&self, revision: u64) -> bool {
        self.applied.is_some_and(|applied| Some(applied) == self.sent() && applied.revision == revision)
    }

    /// Whether it has said what became of `version`, or of a later one.
    fn has_answered(&self, version: u64) -> bool {
        let rejected = self.rejected.as_ref().map(|rejected| rejected.numbers);
        self.applied.into_iter().chain(rejected).any(|numbers| numbers.version >= version)
    }
}

impl Sidecars {
    /// A stream begins.
    pub fn begin(&mut self, stream: &Stream) {
        self.0.insert(key(stream), (stream.clone(), Progress::default()));
    }

    /// A stream has ended.
    pub fn end(&mut self, stream: &Stream) {
        if self.progress(stream).is_some() {
            self.0.remove(&key(stream));
        }
    }

    /// A snapshot goes out.
    pub fn sent(&mut self, stream: &Stream, version: u64, revision: u64) {
        let Some(progress) = self.progress(stream) else { return };
        if progress.sent.len() == UNANSWERED_MAX {
            progress.sent.pop_front();
        }
        progress.sent.push_back(Numbers { revision, version });
    }

    /// A role answers for a snapshot. An answer for one that was never sent, or too long ago, says nothing.
    pub fn answered(&mut self, stream: &Stream, version: u64, rejected: Option<&str>) {
        let Some(progress) = self.progress(stream) else { return };
        let Some(&numbers) = progress.sent.iter().find(|sent| sent.version == version) else { return };
        match rejected {
            None => (progress.applied, progress.rejected) = (Some(numbers), None),
            Some(why) => {
                let end = why.floor_char_boundary(REASON_LENGTH_MAX);
                progress.rejected = Some(Rejected { numbers, why: why[..end].to_owned() });
            }
        }
    }

    /// How far an instance is; `None` when it has no stream.
    #[must_use]
    pub fn of(&self, subject: &Subject, instance: &Name) -> Option<&Progress> {
        self.0.get(&(subject.clone(), instance.clone())).map(|(_, progress)| progress)
    }

    /// Who has a stream.
    #[must_use]
    pub fn subjects(&self) -> BTreeSet<Subject> {
        self.0.keys().map(|(subject, _)| subject.clone()).collect()
    }

    /// Whether every role of `subject` that has a stream has said what became of `version`.
    #[must_use]
    pub fn have_answered(&self, subject: &Subject, version: u64) -> bool {
        let of_subject = self.0.iter().filter(|((of, _), _)| of == subject);
        of_subject.map(|(_, (_, progress))| progress).all(|progress| progress.has_answered(version))
    }

    fn progress(&mut self, stream: &Stream) -> Option<&mut Progress> {
        let (current, progress) = self.0.get_mut(&key(stream))?;
        (current == stream).then_some(progress)
    }
}

fn key(stream: &Stream) -> (Subject, Name) {
    (stream.subject().clone(), stream.instance().clone())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::registry::{Hello, Registry};

    #[test]
    fn a_rejected_revision_is_not_converged_until_a_later_one_is_applied() {
        let hello = Hello { instance: Name::new("broker-0").unwrap(), subset: None, address: None };
        let mut registry = Registry::default();
        let old = registry.hello(&Subject::Broker, hello.clone(), Duration::ZERO).unwrap();
        let stream = registry.hello(&Subject::Broker, hello, Duration::ZERO).unwrap();
        let mut sidecars = Sidecars::default();
        sidecars.begin(&stream);
        let progress = |sidecars: &Sidecars| sidecars.of(&Subject::Broker, stream.instance()).unwrap().clone();
        sidecars.sent(&stream, 4, 1);
        assert!(!progress(&sidecars).has_converged(1));
        sidecars.answered(&stream, 4, None);
        assert!(progress(&sidecars).has_converged(1) && !progress(&sidecars).has_converged(2));
        sidecars.sent(&stream, 5, 2);
        sidecars.answered(&stream, 5, Some("no such engine"));
        let rejected = Rejected { numbers: Numbers { revision: 2, version: 5 }, why: "no such engine".to_owned() };
        assert_eq!(progress(&sidecars).rejected, Some(rejected));
        assert_eq!(progress(&sidecars).applied, Some(Numbers { revision: 1, version: 4 }));
        assert!(!progress(&sidecars).has_converged(2));
        sidecars.answered(&stream, 77, None);
        sidecars.answered(&old, 5, None);
        assert!(!progress(&sidecars).has_converged(2));
        sidecars.sent(&stream, 6, 3);
        sidecars.answered(&stream, 6, None);
        assert!(progress(&sidecars).has_converged(3) && progress(&sidecars).rejected.is_none());
        sidecars.end(&old);
        assert!(sidecars.of(&Subject::Broker, stream.instance()).is_some());
        sidecars.end(&stream);
        assert!(sidecars.of(&Subject::Broker, stream.instance()).is_none());
    }
}
