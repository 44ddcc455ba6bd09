//! YAML 1.2 text → a tree of nodes that know their places.
//!
//! JSON is YAML, so both are read here. What a node has to be is left to [`read`](super::read). A syntax error ends the file
//! with the one finding; a duplicate key, a tag or an alias without an anchor is reported and the reading goes on.

use std::collections::BTreeMap;
use std::rc::Rc;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span};

use crate::config::finding::{Findings, Mistake, Place, Source, code};

/// Largest file, in bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Most nodes of a file, with aliases followed: an alias costs what it stands for.
pub const NODES_MAX: usize = 100_000;
/// Deepest nesting, with aliases followed.
pub const DEPTH_MAX: usize = 32;

/// A node and its place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) kind: Kind,
    /// Nodes in it, itself included, with aliases followed.
    size: usize,
    /// Levels in it, itself included.
    depth: usize,
}

#[derive(Debug)]
pub(super) enum Kind {
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<(Key, Rc<Node>)>),
    /// Something that was reported already.
    Broken,
}

/// A key of a mapping: always text.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) at: Place,
    pub(super) text: String,
}

/// Reads one file. `None` when it could not be read as a whole; then there is a finding that says why.
pub(super) fn parse(source: Source<'_>, file: u32, findings: &mut Findings<'_>) -> Option<Rc<Node>> {
    let start = Place { file, line: 1, column: 1, width: 1 };
    if source.text.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes; at most {FILE_BYTES_MAX} are read", source.text.len());
        findings.error(start, Mistake::new(code::TOO_LARGE, message));
        return None;
    }
    let mut options = granit_parser::options! {
        emit_unresolved_aliases: true,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    options.set_emit_comments(false);
    let mut builder = Builder { file, findings, open: Vec::new(), anchors: BTreeMap::new(), root: None };
    for event in Parser::new_from_str_with_options(source.text, options) {
        match event {
            Ok((event, span)) => builder.take(event, span)?,
            Err(error) => {
                builder.findings.error(syntax_place(source.text, file, &error), syntax_mistake(&error));
                return None;
            }
        }
    }
    let empty = || Rc::new(Node { at: start, kind: Kind::Mapping(Vec::new()), size: 1, depth: 1 });
    Some(builder.root.unwrap_or_else(empty))
}

fn syntax_mistake(error: &ScanError) -> Mistake {
    let mistake = Mistake::new(code::SYNTAX, format!("this is not YAML: {}", error.info()));
    if is_about_tabs(error) { mistake.expected("blanks: YAML does not indent with tabs") } else { mistake }
}

fn syntax_place(text: &str, file: u32, error: &ScanError) -> Place {
    let (line, column) = (error.marker().line().max(1), error.marker().col());
    // The parser points at the value before the tab; what has to go is the tab.
    let indented_by_tab = |line: &&str| line[..line.len() - line.trim_start().len()].find('\t');
    let tab =
        text.lines().enumerate().skip(line - 1).find_map(|(index, text)| Some((index + 1, indented_by_tab(&text)?)));
    let (line, column) = tab.filter(|_| is_about_tabs(error)).unwrap_or((line, column));
    Place { file, line: count(line), column: count(column + 1), width: 1 }
}

fn is_about_tabs(error: &ScanError) -> bool {
    use ErrorKind::{TabAtBlockScalarStart, TabInBlockIndentation, TabInIndentation, TabInPlainScalar, TabNotAllowed};
    let kind = error.kind();
    matches!(kind, TabAtBlockScalarStart | TabInBlockIndentation | TabInIndentation | TabInPlainScalar | TabNotAllowed)
}

/// A collection whose end has not come yet.
struct Open {
    at: Place,
    anchor: usize,
    kind: OpenKind,
}

enum OpenKind {
    Sequence(Vec<Rc<Node>>),
    Mapping {
        entries: Vec<(Key, Rc<Node>)>,
        /// The key whose value comes next; the inner `None` is a key that was reported and is dropped with its value.
        key: Option<Option<Key>>,
        /// Keys so far, to find the second of a kind without comparing each with each.
        places: BTreeMap<String, Place>,
    },
}

struct Builder<'f, 'a> {
    file: u32,
    findings: &'f mut Findings<'a>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
}

impl Builder<'_, '_> {
    /// Takes one event; `None` when the rest of the file is not worth reading.
    fn take(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        let at = self.place(&span);
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                let mistake = Mistake::new(code::SYNTAX, "a second document in one file").expected("one document");
                self.findings.error(at, mistake);
                return None;
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), &span);
                let plain = style == ScalarStyle::Plain;
                let kind = Kind::Scalar { text: text.into_owned(), plain };
                self.add(Rc::new(Node { at, kind, size: 1, depth: 1 }), anchor)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.is_some(), &span);
                self.open.push(Open { at, anchor, kind: OpenKind::Sequence(Vec::new()) });
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.is_some(), &span);
                let kind = OpenKind::Mapping { entries: Vec::new(), key: None, places: BTreeMap::new() };
                self.open.push(Open { at, anchor, kind });
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => self.add(node, 0)?,
                None => self.broken_alias(at, "this alias stands inside of its own anchor")?,
            },
            Event::UnresolvedAlias(name) => {
                self.broken_alias(at, &format!("there is no anchor `&{name}` above this alias"))?;
            }
            _ => {}
        }
        Some(())
    }

    fn broken_alias(&mut self, at: Place, message: &str) -> Option<()> {
        self.findings.error(at, Mistake::new(code::UNKNOWN_ALIAS, message));
        self.add(Rc::new(Node { at, kind: Kind::Broken, size: 1, depth: 1 }), 0)
    }

    fn refuse_tag(&mut self, tagged: bool, span: &Span) {
        if tagged {
            let at = span.tag_span().map_or_else(|| self.place(span), |tag| self.place(&tag));
            self.findings.error(at, Mistake::new(code::TAG, "tags have no meaning here; leave it out"));
        }
    }

    fn close(&mut self) -> Option<()> {
        let Open { at, anchor, kind } = self.open.pop()?;
        let (kind, size, depth) = match kind {
            OpenKind::Sequence(items) => {
                let (size, depth) = measure(items.iter());
                (Kind::Sequence(items), size, depth)
            }
            OpenKind::Mapping { entries, .. } => {
                let (size, depth) = measure(entries.iter().map(|(_, value)| value));
                (Kind::Mapping(entries), size, depth)
            }
        };
        self.add(Rc::new(Node { at, kind, size, depth }), anchor)
    }

    /// Puts a finished node where it belongs.
    fn add(&mut self, node: Rc<Node>, anchor: usize) -> Option<()> {
        if node.size > NODES_MAX || node.depth > DEPTH_MAX {
            let message = format!("this holds more than {NODES_MAX} nodes, or more than {DEPTH_MAX} levels");
            self.findings.error(node.at, Mistake::new(code::TOO_LARGE, message));
            return None;
        }
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        let Some(Open { kind, .. }) = self.open.last_mut() else {
            self.root = Some(node);
            return Some(());
        };
        match kind {
            OpenKind::Sequence(items) => items.push(node),
            OpenKind::Mapping { entries, key, places } => match key.take() {
                None => *key = Some(new_key(&node, places, self.findings)),
                Some(Some(name)) => entries.push((name, node)),
                Some(None) => {}
            },
        }
        Some(())
    }

    fn place(&self, span: &Span) -> Place {
        // A scalar of several lines is underlined up to the end of its first one, which the renderer cuts.
        let width = span.end.index().saturating_sub(span.start.index()).max(1);
        let width = if span.end.line() == span.start.line() { width } else { 1 };
        Place {
            file: self.file,
            line: count(span.start.line()),
            column: count(span.start.col() + 1),
            width: count(width),
        }
    }
}

/// A key out of its node: text, and not there already.
fn new_key(node: &Node, places: &mut BTreeMap<String, Place>, findings: &mut Findings<'_>) -> Option<Key> {
    let Kind::Scalar { text, .. } = &node.kind else {
        if !matches!(node.kind, Kind::Broken) {
            findings.error(node.at, Mistake::new(code::WRONG_TYPE, "a key is one word of text").expected("text"));
        }
        return None;
    };
    if let Some(first) = places.get(text) {
        let message = format!("duplicate key `{text}`; the first is in line {}", first.line);
        findings.error(node.at, Mistake::new(code::DUPLICATE, message).expected("each key once"));
        return None;
    }
    places.insert(text.clone(), node.at);
    Some(Key { at: node.at, text: text.clone() })
}

fn measure<'n>(children: impl Iterator<Item = &'n Rc<Node>>) -> (usize, usize) {
    let (size, depth) = children
        .fold((0_usize, 0), |(size, depth), child| (size.saturating_add(child.size), usize::max(depth, child.depth)));
    (size.saturating_add(1), depth + 1)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
