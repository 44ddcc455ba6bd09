//! What the checker knows while it proves a mesh: what is declared, and where findings go.

use std::collections::BTreeMap;

use super::merge::Mesh;
use crate::config::document::scalar::{Enclosure, Kind, NameText, Scalar};
use crate::config::document::{Entries, Located, Service};
use crate::config::enclosed::{Enclosed, Enclosures};
use crate::config::finding::{Findings, Mistake, Place, code};
use crate::config::{BROKER, SIDECAR};
use crate::name::{self, Name};

/// See the module.
pub(super) struct Context<'d, 'a> {
    pub(super) mesh: Mesh<'d>,
    pub(super) findings: Findings<'a>,
    /// By name, also those whose name or content is wrong: a reference to them is right.
    services: BTreeMap<&'d str, &'d Located<Service>>,
    /// Some `publishes` or `consumes` could not be followed, so nobody can say what is left unused.
    pub(super) lost_destination: bool,
    /// What each queue and topic is.
    destinations: BTreeMap<&'d str, &'static str>,
    enclosures: &'d Enclosures,
}

impl<'d, 'a> Context<'d, 'a> {
    pub(super) fn new(mesh: Mesh<'d>, findings: Findings<'a>, enclosures: &'d Enclosures) -> Self {
        let services = mesh.services.iter().map(|(name, service)| (name.text(), *service)).collect();
        let queues = mesh.queues.iter().map(|(name, _)| (name.text(), "queue"));
        let topics = mesh.topics.iter().map(|(name, _)| (name.text(), "topic"));
        let destinations = topics.chain(queues).collect();
        Self { lost_destination: mesh.lost_services, mesh, findings, services, destinations, enclosures }
    }

    pub(super) fn mesh_name(&mut self) -> Option<Name> {
        let name = self.mesh.name?;
        self.read(name)
    }

    pub(super) fn error(&mut self, at: Place, mistake: Mistake) {
        self.findings.error(at, mistake);
    }

    pub(super) fn warning(&mut self, at: Place, mistake: Mistake) {
        self.findings.warning(at, mistake);
    }

    /// What a scalar means; `None` with a finding when it means nothing.
    pub(super) fn read<K: Kind>(&mut self, scalar: &Scalar<K>) -> Option<K::Value> {
        match scalar.read()? {
            Ok(value) => Some(value),
            Err(mistake) => {
                self.findings.error(scalar.at, mistake);
                None
            }
        }
    }

    /// What a scalar means; the default when it is absent or means nothing.
    pub(super) fn read_or<K: Kind>(&mut self, scalar: Option<&Scalar<K>>, default: K::Value) -> K::Value {
        scalar.and_then(|scalar| self.read(scalar)).unwrap_or(default)
    }

    /// A whole number in the type that its kind's bounds fit into.
    pub(super) fn number_or<K: Kind<Value = u64>, N: TryFrom<u64>>(
        &mut self,
        scalar: Option<&Scalar<K>>,
        default: N,
    ) -> N {
        scalar.and_then(|scalar| self.read(scalar)).and_then(|number| N::try_from(number).ok()).unwrap_or(default)
    }

    /// The content of what is enclosed.
    pub(super) fn enclosed(&mut self, scalar: &Scalar<Enclosure>) -> Option<String> {
        let text = self.read(scalar)?;
        match self.enclosures.get(&Enclosed { source: scalar.at.file as usize, text }) {
            Ok(content) => Some(content),
            Err(why) => {
                let mistake = Mistake::new(code::ENCLOSURE, why).expected(Enclosure::expected());
                self.error(scalar.at, mistake);
                None
            }
        }
    }

    pub(super) fn missing(&mut self, at: Place, what: &str, expected: &str) {
        let at = Place { width: 1, ..at };
        self.error(at, Mistake::new(code::MISSING_KEY, what).expected(expected));
    }

    /// The pairs of a mapping by what their keys mean.
    pub(super) fn pairs<K, V>(&mut self, written: Option<&Located<Entries<K, Scalar<V>>>>) -> BTreeMap<String, V::Value>
    where
        K: Kind<Value = String>,
        V: Kind,
    {
        let mut read = BTreeMap::new();
        for (key, value) in inner(written).iter().flat_map(|Entries(pairs)| pairs) {
            let (name, value) = (self.read(key), self.read(value));
            if let (Some(name), Some(value)) = (name, value)
                && read.insert(name.clone(), value).is_some()
            {
                let message = format!("duplicate `{name}`");
                self.error(key.at, Mistake::new(code::DUPLICATE, message));
            }
        }
        read
    }

    /// A declared name that Meshwork does not answer to itself.
    pub(super) fn own_name(&mut self, name: &Scalar<NameText>) -> Option<Name> {
        if matches!(name.text(), BROKER | SIDECAR) {
            let message = format!("`{}` is a name under which Meshwork itself is reached", name.text());
            self.error(name.at, Mistake::new(code::RESERVED_NAME, message).expected("another name"));
            return None;
        }
        self.read(name)
    }

    pub(super) fn declared_service(&self, name: &str) -> Option<&'d Service> {
        self.services.get(name)?.value.as_ref()
    }

    /// A name that must point to a service.
    pub(super) fn service(&mut self, reference: &Scalar<NameText>) -> Option<Name> {
        reference.written.as_ref()?;
        let text = reference.text();
        if self.services.contains_key(text) {
            return Name::new(text).ok();
        }
        if self.mesh.lost_services {
            return None;
        }
        let mistake = if matches!(text, BROKER | SIDECAR) {
            let message =
                format!("`{text}` needs no permission to be called; `publishes` and `consumes` say what it is for");
            Mistake::new(code::RESERVED_NAME, message)
        } else {
            let what = match self.destinations.get(text).copied() {
                Some(kind) => {
                    format!("`{text}` is a {kind}, not a service; it belongs under `publishes` or `consumes`")
                }
                None => format!("there is no service `{text}`"),
            };
            self.points_nowhere(what, text, self.services.keys().copied(), "services")
        };
        self.error(reference.at, mistake.expected("the name of a service"));
        None
    }

    /// A name that must point to a queue or a topic, as the flags allow.
    pub(super) fn destination(&mut self, reference: &Scalar<NameText>, wanted: Wanted) -> Option<Name> {
        if reference.written.is_none() {
            self.lost_destination = true;
            return None;
        }
        let text = reference.text();
        let kind = self.destinations.get(text).copied();
        let words = wanted.words();
        let fitting = |kind: &str| matches!(wanted, Wanted::Either) || kind == words;
        if kind.is_some_and(fitting) {
            return Name::new(text).ok();
        }
        self.lost_destination = true;
        if self.mesh.lost_destinations {
            return None;
        }
        let what = match kind {
            Some(other) => format!("`{text}` is a {other}, not a {words}; write `{other}: {text}`"),
            None if self.services.contains_key(text) => format!("`{text}` is a service, not a {words}"),
            None => format!("there is no {words} `{text}`"),
        };
        let known = self.destinations.iter().filter(|(_, kind)| fitting(kind)).map(|(name, _)| *name);
        let mistake = self.points_nowhere(what, text, known, wanted.plural());
        self.error(reference.at, mistake.expected(format!("the name of a {words}")));
        None
    }

    fn points_nowhere<'n>(
        &self,
        what: String,
        text: &str,
        known: impl Iterator<Item = &'n str>,
        whose: &str,
    ) -> Mistake {
        let known: Vec<_> = known.collect();
        let what = if known.is_empty() && what.starts_with("there is no") {
            format!("{what}; no {whose} are declared")
        } else {
            what
        };
        let nearest = name::nearest(text, known).first().map(|near| (*near).to_owned());
        Mistake::new(code::UNKNOWN_NAME, what).nearest(nearest)
    }
}

/// What a name under `publishes` or `consumes` may point to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    Queue,
    Topic,
    Either,
}

impl Wanted {
    fn words(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Topic => "topic",
            Self::Either => "queue or topic",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Queue => "queues",
            Self::Topic => "topics",
            Self::Either => "queues and topics",
        }
    }
}

/// What a located value holds, if it is there and could be read.
pub(super) fn inner<T>(located: Option<&Located<T>>) -> Option<&T> {
    located.and_then(|located| located.value.as_ref())
}

/// The entries of a list, if it is there and could be read.
pub(super) fn list<T>(located: Option<&Located<Vec<T>>>) -> &[T] {
    inner(located).map_or(&[], Vec::as_slice)
}
