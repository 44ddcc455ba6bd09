//! Lines of code: comments, strings' insides and test modules blanked out, so that braces and words can be counted.

/// A function.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// The line of its `fn`, from 1.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// From its `fn` to its closing brace.
    pub lines: usize,
}

/// The text's lines with everything blanked out that is not code, and test modules too.
pub fn code(text: &str) -> Vec<String> {
    let blanked = blank(text);
    let mut lines: Vec<String> = blanked.lines().map(str::to_owned).collect();
    let mut at = 0;
    while at < lines.len() {
        if lines[at].trim() == "#[cfg(test)]" {
            let end = block_end(&lines, at).unwrap_or_else(|| statement_end(&lines, at));
            lines[at..=end].iter_mut().for_each(String::clear);
            at = end;
        }
        at += 1;
    }
    lines
}

/// The functions that have a body.
pub fn functions(code: &[String]) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, line) in code.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let Some(end) = block_end(code, at) else { continue };
        found.push(Function { line: at + 1, name, lines: end - at + 1 });
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split(|c: char| !(c.is_alphanumeric() || c == '_')).skip_while(|word| *word != "fn");
    words.next()?;
    let name = words.next().filter(|name| !name.is_empty())?;
    Some(name.to_owned())
}

/// The line on which the block that begins at or behind `start` closes; `None` when a `;` comes first.
fn block_end(code: &[String], start: usize) -> Option<usize> {
    let mut depth = 0usize;
    let mut inside = 0usize;
    for (at, line) in code.iter().enumerate().skip(start) {
        for character in line.chars() {
            match character {
                '(' | '[' => inside += 1,
                ')' | ']' => inside = inside.saturating_sub(1),
                '{' => depth += 1,
                '}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return Some(at);
                    }
                }
                ';' if depth == 0 && inside == 0 => return None,
                _ => {}
            }
        }
    }
    None
}

/// The line on which what begins at `start` and has no block ends: `mod tests;`.
fn statement_end(code: &[String], start: usize) -> usize {
    code[start..].iter().position(|line| line.contains(';')).map_or(code.len() - 1, |lines| start + lines)
}

/// Replaces comments and the insides of strings and characters with blanks; line breaks stay.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => find(bytes, at, b"\n"),
            b'/' if bytes.get(at + 1) == Some(&b'*') => find(bytes, at + 2, b"*/") + 2,
            b'"' => string_end(bytes, at + 1),
            b'r' if !part_of_word(bytes, at) && raw_hashes(bytes, at).is_some() => raw_end(bytes, at),
            b'\'' => character_end(bytes, at),
            _ => at + 1,
        };
        let end = end.min(bytes.len());
        if end > at + 1 {
            out[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn part_of_word(bytes: &[u8], at: usize) -> bool {
    at.checked_sub(1).is_some_and(|before| bytes[before].is_ascii_alphanumeric() || bytes[before] == b'_')
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    rest.windows(what.len()).position(|window| window == what).map_or(bytes.len(), |found| from + found)
}

fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

fn raw_hashes(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    (bytes.get(at + 1 + hashes) == Some(&b'"')).then_some(hashes)
}

fn raw_end(bytes: &[u8], at: usize) -> usize {
    let hashes = raw_hashes(bytes, at).unwrap_or(0);
    let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    find(bytes, at + 2 + hashes, &close) + close.len()
}

/// A character literal's end; a lifetime is one step.
fn character_end(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at + 1) {
        Some(b'\\') => find(bytes, at + 3, b"'") + 1,
        Some(_) => {
            let width = (2..=5).find(|width| bytes.get(at + width) == Some(&b'\''));
            let lifetime = bytes[at + 1].is_ascii_alphabetic() && bytes.get(at + 2) != Some(&b'\'');
            match width {
                Some(width) if !lifetime => at + width + 1,
                _ => at + 1,
            }
        }
        None => at + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_in_words_do_not_count() {
        let text = "fn a<'x>(s: &'x str) -> char {\n    // }\n    let _ = \"}\\\"}\";\n    let _ = r#\"}\"}\"#;\n    '}'\n}\nfn b();\n";
        let found = functions(&code(text));
        assert_eq!(found, [Function { line: 1, name: "a".to_owned(), lines: 6 }]);
    }

    #[test]
    fn a_test_module_in_its_own_file_hides_nothing_behind_it() {
        assert_eq!(code("#[cfg(test)]\nmod tests;\nfn a() {}\n"), ["", "", "fn a() {}"]);
    }
}
