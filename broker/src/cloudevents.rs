//! CloudEvents 1.0.2 as they stand outside of the broker: in HTTP headers ([`http`]) and in JSON ([`json`]).

pub mod http;
pub mod json;

/// Why something is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// The only version there is.
const SPEC_VERSION: &str = "1.0";

/// Puts an attribute where it belongs: the ones that have a place of their own, or the extensions.
fn set(event: &mut api::broker::Event, name: &str, value: String) -> Result<(), Error> {
    match name {
        "specversion" if value == SPEC_VERSION => {}
        "specversion" => return Err(Error(format!("specversion {value:?} is not {SPEC_VERSION:?}"))),
        "id" => event.id = value,
        "source" => event.source = value,
        "type" => event.r#type = value,
        "subject" => event.subject = Some(value),
        "time" => event.time = Some(value),
        "datacontenttype" => event.data_content_type = Some(value),
        "dataschema" => event.data_schema = Some(value),
        "data" | "data_base64" => return Err(Error(format!("{name} is not an attribute"))),
        _ => {
            event.extensions.insert(name.to_owned(), value);
        }
    }
    Ok(())
}

/// The attributes that have a value, in order; the media type of the data is not among them.
fn attributes(event: &api::broker::Event) -> impl Iterator<Item = (&str, &str)> {
    let own = [
        ("specversion", Some(SPEC_VERSION)),
        ("id", Some(event.id.as_str())),
        ("source", Some(event.source.as_str())),
        ("type", Some(event.r#type.as_str())),
        ("subject", event.subject.as_deref()),
        ("time", event.time.as_deref()),
        ("dataschema", event.data_schema.as_deref()),
    ];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
    own.chain(event.extensions.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

#[cfg(test)]
mod tests;
