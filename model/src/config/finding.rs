//! Findings: what is wrong with a mesh file, where, what was expected, and what was perhaps meant.
//!
//! A finding is for people ([`render()`]) and for programs (`Serialize`, with a `code` that does not change). Finding them is
//! left to [`check`](mod@super::check).

mod render;

use std::cmp::Ordering;
use std::fmt;

use serde::Serialize;

pub use render::render;

/// Findings reported at a time; what is beyond is counted in a last one with the code [`code::MORE`].
pub const FINDINGS_MAX: usize = 100;

/// One file of a mesh: how it is called in findings, and what it says.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its name, as the user wrote it.
    pub name: &'a str,
    /// Its whole text.
    pub text: &'a str,
}

/// What stands at one place of a mesh file and should not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether the mesh can run in spite of it.
    pub severity: Severity,
    /// What kind of finding it is: one of [`code`], the same in every version.
    pub code: &'static str,
    /// The file's name as given to `check`.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// Characters from `column` on that it is about; at least 1.
    pub width: u32,
    /// What is wrong, in a sentence without a full stop.
    pub message: String,
    /// What can stand there.
    pub expected: Option<String>,
    /// The valid word nearest to what stands there.
    pub nearest: Option<String>,
}

/// Whether a mesh can run in spite of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot: there is no configuration.
    Error,
    /// It can, and will probably not do what was meant.
    Warning,
}

/// In one line, as compilers write it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let Self { file, line, column, code, message, .. } = self;
        write!(f, "{file}:{line}:{column}: {severity}[{code}]: {message}")?;
        self.nearest.as_ref().map_or(Ok(()), |near| write!(f, "; did you mean `{near}`?"))
    }
}

/// The place of a node in the files of a mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    /// Which of the files, from 0.
    pub file: u32,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// Characters on that line; at least 1.
    pub width: u32,
}

/// What is wrong with a text, before it is known where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// One of [`code`].
    pub code: &'static str,
    /// As in [`Finding`].
    pub message: String,
    /// As in [`Finding`].
    pub expected: Option<String>,
    /// As in [`Finding`].
    pub nearest: Option<String>,
}

impl Mistake {
    /// A mistake that says what is wrong and nothing else.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), expected: None, nearest: None }
    }

    /// With what can stand there instead.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// With what was perhaps meant.
    #[must_use]
    pub fn nearest(mut self, nearest: Option<impl Into<String>>) -> Self {
        self.nearest = nearest.map(Into::into);
        self
    }
}

/// Where findings are gathered while files are read and checked.
#[derive(Debug)]
pub(super) struct Findings<'a> {
    sources: &'a [Source<'a>],
    gathered: Vec<(Place, Severity, Mistake)>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(sources: &'a [Source<'a>]) -> Self {
        Self { sources, gathered: Vec::new() }
    }

    pub(super) fn error(&mut self, at: Place, mistake: Mistake) {
        self.gathered.push((at, Severity::Error, mistake));
    }

    pub(super) fn warning(&mut self, at: Place, mistake: Mistake) {
        self.gathered.push((at, Severity::Warning, mistake));
    }

    pub(super) fn has_error(&self) -> bool {
        self.gathered.iter().any(|(_, severity, _)| *severity == Severity::Error)
    }

    /// `file:line` of a place, to point at it out of another finding.
    pub(super) fn point(&self, at: Place) -> String {
        format!("{}:{}", self.name(at), at.line)
    }

    /// The findings in the order of the files, each once, and at most [`FINDINGS_MAX`] of them and their count.
    pub(super) fn finish(mut self) -> Vec<Finding> {
        self.gathered.sort_by(order);
        // A node that is used again by an alias is read again.
        self.gathered.dedup();
        let found = self.gathered.len();
        let errors = self.gathered.iter().filter(|(_, severity, _)| *severity == Severity::Error).count();
        let mut findings: Vec<Finding> =
            self.gathered.iter().take(FINDINGS_MAX).map(|gathered| self.place(gathered)).collect();
        if found > FINDINGS_MAX {
            // The count stands for an error if any of those left out is one.
            let shown_errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
            let severity = if errors > shown_errors { Severity::Error } else { Severity::Warning };
            let message = format!("and {} more findings", found - FINDINGS_MAX);
            findings.push(self.place(&(self.gathered[FINDINGS_MAX].0, severity, Mistake::new(code::MORE, message))));
        }
        findings
    }

    fn place(&self, (at, severity, mistake): &(Place, Severity, Mistake)) -> Finding {
        Finding {
            severity: *severity,
            code: mistake.code,
            file: self.name(*at).to_owned(),
            line: at.line.max(1),
            column: at.column.max(1),
            width: at.width.max(1),
            message: mistake.message.clone(),
            expected: mistake.expected.clone(),
            nearest: mistake.nearest.clone(),
        }
    }

    fn name(&self, at: Place) -> &'a str {
        self.sources.get(at.file as usize).map_or("", |source| source.name)
    }
}

fn order(one: &(Place, Severity, Mistake), other: &(Place, Severity, Mistake)) -> Ordering {
    let key = |(at, severity, mistake): &(Place, Severity, Mistake)| (*at, *severity, mistake.code);
    key(one).cmp(&key(other)).then_with(|| one.2.message.cmp(&other.2.message))
}

/// The kinds of findings. The words are part of `--format json` and do not change.
pub mod code {
    /// It is not YAML.
    pub const SYNTAX: &str = "syntax";
    /// A bound on the file itself: its size, its depth, its nodes.
    pub const TOO_LARGE: &str = "too-large";
    /// An alias without an anchor before it.
    pub const UNKNOWN_ALIAS: &str = "unknown-alias";
    /// A YAML tag; types are declared by the schema alone.
    pub const TAG: &str = "tag";
    /// The same key or the same entry twice.
    pub const DUPLICATE: &str = "duplicate";
    /// A mapping where text belongs, a number where a list belongs, and so on.
    pub const WRONG_TYPE: &str = "wrong-type";
    /// A key that nothing reads.
    pub const UNKNOWN_KEY: &str = "unknown-key";
    /// A word of the design that this version cannot keep.
    pub const NOT_BUILT_YET: &str = "not-built-yet";
    /// A word outside of the few that can stand there.
    pub const UNKNOWN_WORD: &str = "unknown-word";
    /// A key without which its mapping means nothing.
    pub const MISSING_KEY: &str = "missing-key";
    /// Two keys that exclude each other.
    pub const CONFLICT: &str = "conflict";
    /// A duration, size or percentage without a unit, or with an unknown one.
    pub const QUANTITY: &str = "quantity";
    /// A quantity outside of its bounds.
    pub const OUT_OF_RANGE: &str = "out-of-range";
    /// A text of the wrong form: a path without `/`, a command with an open quote, an address without a port.
    pub const MALFORMED: &str = "malformed";
    /// A text that is not a DNS label.
    pub const BAD_NAME: &str = "bad-name";
    /// A name that Meshwork itself answers to.
    pub const RESERVED_NAME: &str = "reserved-name";
    /// A name that points nowhere.
    pub const UNKNOWN_NAME: &str = "unknown-name";
    /// A subset that its service does not have.
    pub const UNKNOWN_SUBSET: &str = "unknown-subset";
    /// A file that the mesh file names, or a PEM in it, that cannot be used.
    pub const ENCLOSURE: &str = "enclosure";
    /// A name that two things have.
    pub const NAME_TAKEN: &str = "name-taken";
    /// A port or an address that two things listen on.
    pub const PORT_TAKEN: &str = "port-taken";
    /// Weights whose sum is 0.
    pub const WEIGHTS: &str = "weights";
    /// Two services that speak differently where they must speak alike.
    pub const PROTOCOL_MISMATCH: &str = "protocol-mismatch";
    /// A timeout longer than the one that holds it.
    pub const TIMEOUT_ORDER: &str = "timeout-order";
    /// Services that wait for each other in a circle.
    pub const CALL_CYCLE: &str = "call-cycle";
    /// A destination to which nothing is sent.
    pub const NO_PUBLISHER: &str = "no-publisher";
    /// A destination from which nothing is taken.
    pub const NO_CONSUMER: &str = "no-consumer";
    /// A retry that its own conditions keep from happening.
    pub const RETRY_WITHOUT_EFFECT: &str = "retry-without-effect";
    /// Retries of services along a chain of calls that multiply to many attempts.
    pub const RETRIES_MULTIPLY: &str = "retries-multiply";
    /// A rule behind one that takes everything.
    pub const NEVER_REACHED: &str = "never-reached";
    /// Findings beyond those that are reported.
    pub const MORE: &str = "more";
}
