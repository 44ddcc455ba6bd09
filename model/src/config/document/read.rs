//! A tree of nodes → the types of the document, through serde, without stopping at the first finding.
//!
//! serde's derived code gives up on the first error it meets. So errors do not get to it: what can be wrong stands in a
//! [`Located`] or a [`Scalar`](super::scalar::Scalar), and those two, when they meet something that they cannot hold, report it
//! here and hold nothing. An unknown key is found by the list of fields that derived code hands to its deserializer.
//! What a scalar's text means is left to its kind and to [`check`](mod@crate::config::check).

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use serde::de::value::SeqDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use super::later;
use super::located::{LOCATED, Located};
use super::scalar::SCALAR;
use super::tree::{Key, Kind, Node};
use crate::config::finding::{Findings, Mistake, Place, code};
use crate::name;

/// Reads the tree as a `T`.
pub(super) fn read<T: for<'de> Deserialize<'de>>(node: &Node, findings: &mut Findings<'_>) -> Located<T> {
    let sink = Sink::default();
    let read = Located::deserialize(Reader { node, sink: &sink });
    for (at, mistake) in sink.into_inner() {
        findings.error(at, mistake);
    }
    read.unwrap_or(Located { at: node.at, value: None })
}

type Sink = RefCell<Vec<(Place, Mistake)>>;

/// Why a value could not be read. `None`: there is a finding already.
#[derive(Debug)]
struct Refusal(Option<Mistake>);

impl Refusal {
    fn report(self, at: Place, sink: &Sink) {
        if let Some(mistake) = self.0 {
            sink.borrow_mut().push((at, mistake));
        }
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_ref().map_or("reported already", |mistake| &mistake.message))
    }
}

impl de::Error for Refusal {
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self(Some(Mistake::new(code::WRONG_TYPE, message.to_string())))
    }
}

/// Reads one node as whatever serde asks for.
#[derive(Clone, Copy)]
struct Reader<'t> {
    node: &'t Node,
    sink: &'t Sink,
}

impl Reader<'_> {
    fn wrong_type(&self, expected: impl Into<String>) -> Refusal {
        let expected = expected.into();
        let found = match &self.node.kind {
            Kind::Broken => return Refusal(None),
            Kind::Scalar { text, plain: true } if text.is_empty() => "nothing".to_owned(),
            Kind::Scalar { text, .. } => format!("the text {text:?}"),
            Kind::Sequence(_) => "a list".to_owned(),
            Kind::Mapping(_) => "a mapping".to_owned(),
        };
        let nearest = match &self.node.kind {
            // The commonest slip: one entry without its brackets.
            Kind::Scalar { text, .. } if expected.starts_with("a list") && !text.is_empty() => {
                Some(format!("[{text}]"))
            }
            _ => None,
        };
        let message = format!("expected {expected}; found {found}");
        Refusal(Some(Mistake::new(code::WRONG_TYPE, message).expected(expected).nearest(nearest)))
    }

    /// Nothing at all, as in `queues: {tasks: }`.
    fn is_empty(&self) -> bool {
        matches!(&self.node.kind, Kind::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        Err(self.wrong_type((&visitor as &dyn Expected).to_string()))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Refusal> {
        match (name, &self.node.kind) {
            (LOCATED, _) => visitor.visit_seq(LocatedParts { reader: self, next: Part::Place }),
            (SCALAR, Kind::Scalar { text, plain }) => {
                visitor.visit_seq(ScalarParts { at: self.node.at, text: Some(text), plain: *plain, next: Part::Place })
            }
            (SCALAR, _) => {
                self.wrong_type((&visitor as &dyn Expected).to_string()).report(self.node.at, self.sink);
                visitor.visit_seq(ScalarParts { at: self.node.at, text: None, plain: false, next: Part::Place })
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.node.kind {
            Kind::Sequence(items) => visitor.visit_seq(Items { items: items.iter(), sink: self.sink }),
            _ => Err(self.wrong_type("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.node.kind {
            Kind::Mapping(entries) => visitor.visit_map(Pairs::new(entries, None, self.sink)),
            _ => Err(self.wrong_type("a mapping from names")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match &self.node.kind {
            Kind::Mapping(entries) => visitor.visit_map(Pairs::new(entries, Some(Fields { name, fields }), self.sink)),
            _ if self.is_empty() => visitor.visit_map(Pairs::new(&[], None, self.sink)),
            _ => Err(self.wrong_type(format!("a mapping with {}", fields.join(", ")))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        tuple tuple_struct enum identifier ignored_any
    }
}

/// What a marked newtype consists of, in order.
#[derive(Clone, Copy)]
enum Part {
    Place,
    Value,
    Plain,
    End,
}

/// A [`Located`]: its place, then its value unless that is refused.
struct LocatedParts<'t> {
    reader: Reader<'t>,
    next: Part,
}

impl<'de> SeqAccess<'de> for LocatedParts<'_> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        match std::mem::replace(&mut self.next, Part::End) {
            Part::Place => {
                self.next = Part::Value;
                write_place(self.reader.node.at, seed)
            }
            Part::Value => Ok(match seed.deserialize(self.reader) {
                Ok(value) => Some(value),
                Err(refusal) => {
                    refusal.report(self.reader.node.at, self.reader.sink);
                    None
                }
            }),
            Part::Plain | Part::End => Ok(None),
        }
    }
}

/// A scalar: its place, then its text and whether it was plain, unless it is none.
struct ScalarParts<'t> {
    at: Place,
    text: Option<&'t str>,
    plain: bool,
    next: Part,
}

impl<'de> SeqAccess<'de> for ScalarParts<'_> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        match std::mem::replace(&mut self.next, Part::End) {
            Part::Place => {
                self.next = Part::Value;
                write_place(self.at, seed)
            }
            Part::Value => {
                self.next = Part::Plain;
                self.text.map(|text| seed.deserialize(text.into_deserializer())).transpose()
            }
            Part::Plain => seed.deserialize(self.plain.into_deserializer()).map(Some),
            Part::End => Ok(None),
        }
    }
}

fn write_place<'de, T: DeserializeSeed<'de>>(at: Place, seed: T) -> Result<Option<T::Value>, Refusal> {
    let parts = [at.file, at.line, at.column, at.width];
    seed.deserialize(SeqDeserializer::new(parts.into_iter())).map(Some)
}

struct Items<'t> {
    items: std::slice::Iter<'t, Rc<Node>>,
    sink: &'t Sink,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        self.items.next().map(|node| seed.deserialize(Reader { node, sink: self.sink })).transpose()
    }
}

/// The keys that a struct of the document has.
#[derive(Clone, Copy)]
struct Fields {
    name: &'static str,
    fields: &'static [&'static str],
}

impl Fields {
    fn refuse(self, key: &Key) -> Mistake {
        let text = &key.text;
        if let Some(hint) = later::key(self.name, text) {
            return Mistake::new(code::NOT_BUILT_YET, format!("`{text}` is not built yet{hint}"));
        }
        let known = self.fields.join(", ");
        Mistake::new(code::UNKNOWN_KEY, format!("unknown key `{text}`"))
            .expected(if known.is_empty() { "no keys".to_owned() } else { format!("one of {known}") })
            .nearest(name::nearest(text, self.fields.iter().copied()).first().copied())
    }
}

/// The entries of a mapping; of a struct's, only those that it knows.
struct Pairs<'t> {
    entries: std::slice::Iter<'t, (Key, Rc<Node>)>,
    fields: Option<Fields>,
    value: Option<&'t Node>,
    sink: &'t Sink,
}

impl<'t> Pairs<'t> {
    fn new(entries: &'t [(Key, Rc<Node>)], fields: Option<Fields>, sink: &'t Sink) -> Self {
        Self { entries: entries.iter(), fields, value: None, sink }
    }

    fn next_known(&mut self) -> Option<&'t (Key, Rc<Node>)> {
        for entry in self.entries.by_ref() {
            match self.fields {
                Some(fields) if !fields.fields.contains(&entry.0.text.as_str()) => {
                    self.sink.borrow_mut().push((entry.0.at, fields.refuse(&entry.0)));
                }
                _ => return Some(entry),
            }
        }
        None
    }
}

impl<'de> MapAccess<'de> for Pairs<'_> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        let Some((key, node)) = self.next_known() else { return Ok(None) };
        self.value = Some(node);
        seed.deserialize(KeyReader { key }).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let node = self.value.take().ok_or(Refusal(None))?;
        seed.deserialize(Reader { node, sink: self.sink })
    }
}

/// A key: a scalar for [`Entries`](super::located::Entries), an identifier for derived code.
struct KeyReader<'t> {
    key: &'t Key,
}

impl<'de> Deserializer<'de> for KeyReader<'_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_str(&self.key.text)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Refusal> {
        // A key is text in JSON too, so it counts as quoted: `200: …` is the name "200".
        let parts = ScalarParts { at: self.key.at, text: Some(&self.key.text), plain: false, next: Part::Place };
        visitor.visit_seq(parts)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
