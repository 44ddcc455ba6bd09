//! Scalars: one text of the file, kept as written together with its place and the kind of thing that it must be.
//!
//! A [`Kind`] says what can stand there, once: for people, for the JSON Schema, and for [`Kind::read`]. Reading is left to
//! `check`, so that one wrong scalar keeps nothing else from being read.

mod address;
mod command;
mod quantity;
mod text;
mod word;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

pub use address::{Address, Host, Listen};
pub use command::Command;
pub use quantity::{Flag, Percent, Size, Time, Whole};
pub use text::{AnyText, Enclosure, EnvName, EnvValue, HeaderName, HeaderValue, Method, NameText, PathText};
pub use word::{RetryCondition, Word, Words};

use super::located::next_place;
use crate::config::finding::{Mistake, Place, code};

/// Under this name `read` knows a [`Scalar`].
pub(super) const SCALAR: &str = "$scalar";

/// A kind of scalar: what can stand there, and what it means.
pub trait Kind {
    /// What it means.
    type Value;

    /// What can stand there, for people: `a duration such as 250ms`.
    fn expected() -> String;

    /// The same for editors.
    fn schema() -> Schema;

    /// What is written, as what it means.
    ///
    /// # Errors
    /// When it is not of this kind. `expected` may be left out: [`Scalar::read`] fills it in.
    fn read(written: &Written) -> Result<Self::Value, Mistake>;
}

/// A text as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Without quotes and escapes.
    pub text: String,
    /// Without quotes in the file, so that YAML may take it for a number, a truth value or nothing.
    pub plain: bool,
}

/// A scalar of a kind, and its place.
pub struct Scalar<K> {
    /// Where it stands.
    pub at: Place,
    /// `None`: a list or a mapping stood there, and a finding says so.
    pub written: Option<Written>,
    kind: PhantomData<K>,
}

impl<K: Kind> Scalar<K> {
    /// What it means; `None` when it could not be read at all, which is reported already.
    ///
    /// # Errors
    /// When it is not of its kind.
    pub fn read(&self) -> Option<Result<K::Value, Mistake>> {
        let written = self.written.as_ref()?;
        Some(K::read(written).map_err(|mut mistake| {
            mistake.expected.get_or_insert_with(K::expected);
            mistake
        }))
    }
}

impl<K> Scalar<K> {
    /// The text, or nothing.
    #[must_use]
    pub fn text(&self) -> &str {
        self.written.as_ref().map_or("", |written| &written.text)
    }
}

impl<K> fmt::Debug for Scalar<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.text(), f)
    }
}

/// What YAML's core schema (YAML 1.2.2 §10.3.2) takes a text for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Nothing,
    Truth,
    Number,
    Text,
}

impl Written {
    fn shape(&self) -> Shape {
        let text = self.text.as_str();
        match text {
            _ if !self.plain => Shape::Text,
            "" | "~" | "null" | "Null" | "NULL" => Shape::Nothing,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Shape::Truth,
            _ if is_number(text) => Shape::Number,
            _ => Shape::Text,
        }
    }

    /// The text if it is one: a number or a truth value has to be quoted to be text.
    fn as_text(&self) -> Result<&str, Mistake> {
        let text = &self.text;
        let what = match self.shape() {
            Shape::Text => return Ok(text),
            Shape::Nothing => return Err(self.nothing()),
            Shape::Number => "number",
            Shape::Truth => "truth value",
        };
        let mistake =
            Mistake::new(code::WRONG_TYPE, format!("found the {what} {text} where text is expected; put it in quotes"));
        Err(mistake.nearest(Some(format!("\"{text}\""))))
    }

    /// The text of whatever stands there, if anything does.
    fn as_any(&self) -> Result<&str, Mistake> {
        if self.shape() == Shape::Nothing { Err(self.nothing()) } else { Ok(&self.text) }
    }

    /// The text, if it is plain: numbers and truth values are not quoted.
    fn as_plain(&self) -> Result<&str, Mistake> {
        match self.shape() {
            Shape::Nothing => Err(self.nothing()),
            Shape::Text if !self.plain => {
                let unquoted = Self { text: self.text.clone(), plain: true };
                let nearest = matches!(unquoted.shape(), Shape::Number | Shape::Truth).then_some(unquoted.text);
                let hint = if nearest.is_some() { "; remove the quotes" } else { "" };
                let message = format!("found the text {:?}{hint}", self.text);
                Err(Mistake::new(code::WRONG_TYPE, message).nearest(nearest))
            }
            _ => Ok(&self.text),
        }
    }

    fn nothing(&self) -> Mistake {
        Mistake::new(code::WRONG_TYPE, "missing value")
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let special = matches!(digits, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN");
    let prefixed = |prefix, radix| {
        text.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    // f64 reads `inf` and `nan` too, which YAML does not.
    let decimal = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') && digits.parse::<f64>().is_ok();
    special || decimal || prefixed("0x", 16) || prefixed("0o", 8)
}

impl<'de, K: Kind> Deserialize<'de> for Scalar<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(SCALAR, ScalarVisitor(PhantomData))
    }
}

struct ScalarVisitor<K>(PhantomData<K>);

impl<'de, K: Kind> Visitor<'de> for ScalarVisitor<K> {
    type Value = Scalar<K>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&K::expected())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
        let at = next_place(&mut parts)?;
        let text: Option<String> = parts.next_element()?;
        let plain = parts.next_element()?.unwrap_or(false);
        Ok(Scalar { at, written: text.map(|text| Written { text, plain }), kind: PhantomData })
    }
}

impl<K: Kind> JsonSchema for Scalar<K> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        K::expected().into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        K::schema()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_text_has_the_shape_that_yaml_gives_it() {
        for (text, shape) in [
            ("", Shape::Nothing),
            ("~", Shape::Nothing),
            ("null", Shape::Nothing),
            ("true", Shape::Truth),
            ("yes", Shape::Text),
            ("8080", Shape::Number),
            ("-1", Shape::Number),
            ("1.5e3", Shape::Number),
            (".5", Shape::Number),
            ("0x1F", Shape::Number),
            ("0o17", Shape::Number),
            (".inf", Shape::Number),
            ("inf", Shape::Text),
            ("nan", Shape::Text),
            ("250ms", Shape::Text),
            ("20%", Shape::Text),
            ("1.2.3", Shape::Text),
        ] {
            assert_eq!(Written { text: text.to_owned(), plain: true }.shape(), shape, "{text:?}");
            assert_eq!(Written { text: text.to_owned(), plain: false }.shape(), Shape::Text, "{text:?} in quotes");
        }
    }
}
