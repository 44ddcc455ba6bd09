//! A command: split into words as a POSIX shell would split them (XCU §2.2), but run without a shell.
//!
//! Blanks part words. `'…'` holds everything as it is; in `"…"` a backslash takes the meaning from `"`, `\`, `$` and a backtick;
//! elsewhere from any character. What only a shell can do (`|`, `&&`, `>`, `$NAME`, …) is refused where it is not quoted,
//! since it would reach the program as text.

use schemars::{Schema, json_schema};

use super::text::bounded;
use super::{Kind, Written};
use crate::config::finding::{Mistake, code};

/// A command and its arguments.
#[derive(Debug)]
pub struct Command;

impl Kind for Command {
    type Value = Vec<String>;

    fn expected() -> String {
        "a command and its arguments, such as shop orders --verbose".to_owned()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }

    fn read(written: &Written) -> Result<Vec<String>, Mistake> {
        let words = split(bounded(written.as_text()?)?)?;
        match words.first() {
            Some(program) if !program.is_empty() => Ok(words),
            _ => Err(Mistake::new(code::MALFORMED, "the command is empty")),
        }
    }
}

fn split(text: &str) -> Result<Vec<String>, Mistake> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => quoted(&mut chars, word.get_or_insert_default())?,
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().push(chars.next().ok_or_else(|| open("a backslash"))?),
            '|' | '&' | ';' | '<' | '>' | '$' | '`' => return Err(shell(c)),
            '\0' => return Err(Mistake::new(code::MALFORMED, "a command does not hold a NUL")),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), Mistake> {
    for c in chars {
        match c {
            '\'' => return Ok(()),
            _ => word.push(c),
        }
    }
    Err(open("a single quote"))
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), Mistake> {
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok(()),
            '\\' => match chars.next().ok_or_else(|| open("a backslash"))? {
                escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                other => word.extend(['\\', other]),
            },
            '$' | '`' => return Err(shell(c)),
            _ => word.push(c),
        }
    }
    Err(open("a double quote"))
}

fn open(what: &str) -> Mistake {
    Mistake::new(code::MALFORMED, format!("{what} in the command is not closed"))
}

fn shell(c: char) -> Mistake {
    let message =
        format!("the command is not run by a shell, so '{c}' has no meaning in it; quote it, or run sh -c '…'");
    Mistake::new(code::MALFORMED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        for (text, words) in [
            ("shop orders", &["shop", "orders"][..]),
            ("  shop \t orders\n", &["shop", "orders"]),
            (r#"sh -c 'echo "$HOME" | wc'"#, &["sh", "-c", r#"echo "$HOME" | wc"#]),
            (r#"say "two words" 'it''s'"#, &["say", "two words", "its"]),
            (r#"a\ b "c\"d" "e\f" ''"#, &["a b", "c\"d", "e\\f", ""]),
            (r"price \$5", &["price", "$5"]),
        ] {
            assert_eq!(
                split(text).as_deref(),
                Ok(&words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>()[..]),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_left_open_or_meant_for_a_shell_is_refused() {
        for text in
            ["say 'it", "say \"it", "say it\\", "a | b", "a && b", "a > b", "echo $HOME", "echo \"$HOME\"", "a; b"]
        {
            assert_eq!(split(text).unwrap_err().code, code::MALFORMED, "{text}");
        }
    }
}
