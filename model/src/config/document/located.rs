//! The two holders of the document: a value with its place, and the entries of a mapping in the order of the file.

use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::scalar::Scalar;
use crate::config::finding::Place;

/// Under this name `read` knows a [`Located`].
pub(super) const LOCATED: &str = "$located";

/// A value and its place.
#[derive(Debug)]
pub struct Located<T> {
    /// Where it begins.
    pub at: Place,
    /// `None`: it could not be read, and a finding says so.
    pub value: Option<T>,
}

/// What stands under the names of a mapping, in the order of the file.
#[derive(Debug)]
pub struct Entries<K, T>(pub Vec<(Scalar<K>, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(LOCATED, LocatedVisitor(PhantomData))
    }
}

struct LocatedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for LocatedVisitor<T> {
    type Value = Located<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
        let at = next_place(&mut parts)?;
        Ok(Located { at, value: parts.next_element()? })
    }
}

/// The place that `read` puts before everything.
pub(super) fn next_place<'de, A: SeqAccess<'de>>(parts: &mut A) -> Result<Place, A::Error> {
    let (file, line, column, width) = parts.next_element()?.unwrap_or_default();
    Ok(Place { file, line, column, width })
}

impl<'de, K: super::scalar::Kind, T: Deserialize<'de>> Deserialize<'de> for Entries<K, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

struct EntriesVisitor<K, T>(PhantomData<(K, T)>);

impl<'de, K: super::scalar::Kind, T: Deserialize<'de>> Visitor<'de> for EntriesVisitor<K, T> {
    type Value = Entries<K, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping from names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

impl<T: JsonSchema> JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<K: super::scalar::Kind, T: JsonSchema> JsonSchema for Entries<K, T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Entries_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": K::schema(),
            "additionalProperties": generator.subschema_for::<T>(),
        })
    }
}
