//! What a service says about its work: one line of logfmt on standard error for each noteworthy event.

use std::fmt::{Display, Write as _};
use std::io::Write as _;

/// Says that something happened; `fields` are what it happened to.
pub fn say(message: &str, fields: &[(&str, &dyn Display)]) {
    let mut text = line(message, fields);
    text.push('\n');
    // A closed standard error is no reason to stop serving.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn line(message: &str, fields: &[(&str, &dyn Display)]) -> String {
    let mut text = String::from("msg=");
    push_value(&mut text, message);
    for (key, value) in fields {
        let _ = write!(text, " {key}=");
        push_value(&mut text, &value.to_string());
    }
    text
}

fn push_value(text: &mut String, value: &str) {
    let plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '=');
    if plain {
        text.push_str(value);
    } else {
        let _ = write!(text, "{value:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn quotes_what_would_be_misread() {
        assert_eq!(
            line("order placed", &[("order", &"ord-1"), ("cents", &42)]),
            r#"msg="order placed" order=ord-1 cents=42"#
        );
        assert_eq!(
            line("x", &[("why", &"no \"stock\"\nat all"), ("none", &"")]),
            r#"msg=x why="no \"stock\"\nat all" none="""#
        );
    }
}
