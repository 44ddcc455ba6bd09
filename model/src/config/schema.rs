//! The JSON Schema of the mesh file, made from the types that read it, for editors and for `meshwork schema`.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::document::Document;

/// The schema (JSON Schema 2020-12).
#[must_use]
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Document>().to_value();
    without_null(&mut schema);
    schema
}

/// Takes `null` out of what may be left out: an absent key is absent, and a key with nothing behind it is a finding.
fn without_null(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = &types[..] {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
                if choices.len() == 1
                    && let Some(Value::Object(only)) = choices.pop()
                {
                    object.remove("anyOf");
                    // What the field says of itself is nearer than what its type says.
                    for (key, inner) in only {
                        object.entry(key).or_insert(inner);
                    }
                }
            }
            object.values_mut().for_each(without_null);
        }
        _ => {}
    }
}
