//! Changes of a mesh, as lines for people.

use model::config::{Change, HIDDEN};

use crate::terminal::{self, BAD, FAINT, GOOD, PENDING};

/// Characters of a value that are shown.
const VALUE_CHARS_MAX: usize = 80;

/// One line for each change.
pub(crate) fn lines(changes: &[Change]) -> Vec<String> {
    changes.iter().map(line).collect()
}

fn line(Change { path, old, new }: &Change) -> String {
    let (mark, style) = match (old, new) {
        (None, _) => ("+", GOOD),
        (_, None) => ("-", BAD),
        _ => ("~", PENDING),
    };
    let side = |side: &Option<String>| side.as_deref().filter(|text| !["{…}", HIDDEN].contains(text)).map(short);
    let values = match (side(old), side(new)) {
        (Some(old), Some(new)) => format!(": {old} {} {new}", terminal::paint(FAINT, "→")),
        (Some(one), None) | (None, Some(one)) => format!(": {one}"),
        (None, None) => String::new(),
    };
    format!("  {} {path}{values}", terminal::paint(style, mark))
}

/// The first line of a value, and not all of a long one.
fn short(value: &str) -> String {
    let first = value.lines().next().unwrap_or_default();
    let cut: String = first.chars().take(VALUE_CHARS_MAX).collect();
    if cut.len() < value.len() { format!("{cut}…") } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_one_line() {
        let change = |old: Option<&str>, new: Option<&str>| {
            let (old, new) = (old.map(str::to_owned), new.map(str::to_owned));
            let line = line(&Change { path: "services.a".to_owned(), old, new });
            anstream::adapter::strip_str(&line).to_string()
        };
        assert_eq!(change(None, Some("{…}")), "  + services.a");
        assert_eq!(change(Some("{…}"), None), "  - services.a");
        assert_eq!(change(Some(HIDDEN), Some(HIDDEN)), "  ~ services.a");
        assert_eq!(change(Some("red"), Some("blue")), "  ~ services.a: red → blue");
        assert_eq!(change(None, Some("one\ntwo")), "  + services.a: one…");
    }
}
