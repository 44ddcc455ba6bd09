//! Kinds of text: names, paths, header names and values, variables of the environment.

use schemars::{Schema, json_schema};

use super::{Kind, Written};
use crate::config::finding::{Mistake, code};
use crate::name::{self, Name};

/// Longest text that is not a name, in bytes: a path, a header's value, a variable, a command.
pub const TEXT_BYTES_MAX: usize = 8 << 10;

/// Longest PEM that stands in the mesh file itself, in bytes: some ten certificates.
const ENCLOSURE_BYTES_MAX: usize = 32 << 10;

/// A DNS label.
#[derive(Debug)]
pub struct NameText;

impl Kind for NameText {
    type Value = Name;

    fn expected() -> String {
        format!("a name of a-z, 0-9 and '-', with at most {} characters", name::NAME_LENGTH_MAX)
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"})
    }

    fn read(written: &Written) -> Result<Name, Mistake> {
        let text = written.as_text()?;
        Name::new(text).map_err(|error| Mistake::new(code::BAD_NAME, error.to_string()).nearest(nearest_name(text)))
    }
}

/// `Order_Items` → `order-items`.
fn nearest_name(text: &str) -> Option<String> {
    let lower: String =
        text.to_lowercase().chars().map(|c| if matches!(c, '_' | '.' | ' ' | '/') { '-' } else { c }).collect();
    let trimmed = lower.trim_matches('-');
    Name::new(trimmed).ok().map(|name| name.as_str().to_owned())
}

/// Any text that is not empty.
#[derive(Debug)]
pub struct AnyText;

impl Kind for AnyText {
    type Value = String;

    fn expected() -> String {
        "text".to_owned()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }

    fn read(written: &Written) -> Result<String, Mistake> {
        let text = bounded(written.as_text()?)?;
        if text.is_empty() {
            return Err(Mistake::new(code::MALFORMED, "the text is empty"));
        }
        Ok(text.to_owned())
    }
}

/// The path of a file, or in its place what would stand in it.
#[derive(Debug)]
pub struct Enclosure;

impl Kind for Enclosure {
    type Value = String;

    fn expected() -> String {
        "the path of a PEM file from the mesh file's folder, or the PEM itself".to_owned()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }

    fn read(written: &Written) -> Result<String, Mistake> {
        let text = written.as_text()?;
        match text.len() {
            0 => Err(Mistake::new(code::MALFORMED, "the text is empty")),
            1..=ENCLOSURE_BYTES_MAX => Ok(text.to_owned()),
            long => {
                let message =
                    format!("this text has {long} bytes; at most {ENCLOSURE_BYTES_MAX} stand here, and more in a file");
                Err(Mistake::new(code::OUT_OF_RANGE, message))
            }
        }
    }
}

/// The path of a URL.
#[derive(Debug)]
pub struct PathText;

impl Kind for PathText {
    type Value = String;

    fn expected() -> String {
        "a path that begins with '/'".to_owned()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^/[^?#\\s]*$"})
    }

    fn read(written: &Written) -> Result<String, Mistake> {
        let text = bounded(written.as_text()?)?;
        if !text.starts_with('/') {
            let mistake = Mistake::new(code::MALFORMED, format!("the path {text:?} does not begin with '/'"));
            let clean = !text.is_empty() && !text.contains(is_not_of_a_path);
            return Err(mistake.nearest(clean.then(|| format!("/{text}"))));
        }
        match text.chars().find(|c| is_not_of_a_path(*c)) {
            Some(odd) => Err(Mistake::new(code::MALFORMED, format!("a path does not hold {odd:?}"))),
            None => Ok(text.to_owned()),
        }
    }
}

fn is_not_of_a_path(c: char) -> bool {
    matches!(c, '?' | '#') || c.is_whitespace() || c.is_control()
}

/// The name of a header, in any case.
#[derive(Debug)]
pub struct HeaderName;

impl Kind for HeaderName {
    type Value = String;

    fn expected() -> String {
        "the name of a header".to_owned()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[-!#$%&'*+.^_`|~0-9A-Za-z]+$"})
    }

    fn read(written: &Written) -> Result<String, Mistake> {
        Ok(token(written.as_text()?, "the name of a header")?.to_ascii_lowercase())
    }
}

/// The method of a request, in upper case.
#[derive(Debug)]
pub struct Method;

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];

impl Kind for Method {
    type Value = String;

    fn expected() -> String {
        "a method in upper case, such as GET".to_owned()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[-!#$%&'*+.^_`|~0-9A-Z]+$"})
    }

    fn read(written: &Written) -> Result<String, Mistake> {
        let text = token(written.as_text()?, "a method")?;
        // RFC 9110 §9.1: methods are case-sensitive, so `get` would match nothing.
        if text.contains(|c: char| c.is_ascii_lowercase()) {
            let upper = text.to_ascii_uppercase();
            let nearest = name::nearest(&upper, METHODS).first().map_or(upper.clone(), |near| (*near).to_owned());
            let mistake = Mistake::new(code::MALFORMED, format!("the method {text:?} is not in upper case"));
            return Err(mistake.nearest(Some(nearest)));
        }
        Ok(text.to_owned())
    }
}

/// A token of RFC 9110 §5.6.2.
fn token<'a>(text: &'a str, what: &str) -> Result<&'a str, Mistake> {
    let text = bounded(text)?;
    let odd = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~".contains(*c));
    match odd {
        _ if text.is_empty() => Err(Mistake::new(code::MALFORMED, format!("{what} is not empty"))),
        Some(odd) => Err(Mistake::new(code::MALFORMED, format!("{what} does not hold {odd:?}"))),
        None => Ok(text),
    }
}

/// The value of a header.
#[derive(Debug)]
pub struct HeaderValue;

impl Kind for HeaderValue {
    type Value = String;

    fn expected() -> String {
        "the value of a header: one line of text".to_owned()
    }

    fn schema() -> Schema {
        json_schema!({"type": ["string", "number", "boolean"]})
    }

    fn read(written: &Written) -> Result<String, Mistake> {
        let text = bounded(written.as_any()?)?;
        match text.chars().find(|c| c.is_control() && *c != '\t') {
            Some(odd) => Err(Mistake::new(code::MALFORMED, format!("the value of a header does not hold {odd:?}"))),
            None => Ok(text.to_owned()),
        }
    }
}

/// The name of a variable of the environment.
#[derive(Debug)]
pub struct EnvName;

/// What each application is told, and no mesh file may tell it: its port, and where its sidecar is.
const OWN_VARIABLES: [&str; 3] = ["PORT", "HTTP_PROXY", "http_proxy"];
/// How the variables begin that Meshwork's own roles read.
const OWN_PREFIX: &str = "MESHWORK_";

impl Kind for EnvName {
    type Value = String;

    fn expected() -> String {
        "the name of a variable: A-Z, a-z, 0-9 and '_', not a digit first".to_owned()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"})
    }

    fn read(written: &Written) -> Result<String, Mistake> {
        let text = bounded(written.as_text()?)?;
        let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !first || text.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            return Err(Mistake::new(code::MALFORMED, format!("{text:?} cannot name a variable")));
        }
        if OWN_VARIABLES.contains(&text) || text.starts_with(OWN_PREFIX) {
            let message = format!(
                "`{text}` is set by Meshwork itself for each application; a value from the mesh file would be overwritten"
            );
            return Err(Mistake::new(code::RESERVED_NAME, message).expected("another name"));
        }
        Ok(text.to_owned())
    }
}

/// The value of a variable of the environment: numbers and truth values stay as they are written.
#[derive(Debug)]
pub struct EnvValue;

impl Kind for EnvValue {
    type Value = String;

    fn expected() -> String {
        "text, a number or a truth value".to_owned()
    }

    fn schema() -> Schema {
        json_schema!({"type": ["string", "number", "boolean"]})
    }

    fn read(written: &Written) -> Result<String, Mistake> {
        let text = bounded(written.as_any()?)?;
        if text.contains('\0') {
            return Err(Mistake::new(code::MALFORMED, "a variable does not hold a NUL"));
        }
        Ok(text.to_owned())
    }
}

pub(super) fn bounded(text: &str) -> Result<&str, Mistake> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("this text has {} bytes; at most {TEXT_BYTES_MAX} are taken", text.len());
        return Err(Mistake::new(code::OUT_OF_RANGE, message));
    }
    Ok(text)
}
