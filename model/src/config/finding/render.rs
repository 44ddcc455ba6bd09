//! Findings for people: the line, a caret under what it is about, and what was perhaps meant.

use std::fmt::Write as _;

use super::{Finding, Severity, Source};

/// Characters of a line that are shown; the rest is cut on the side that is farther from the caret.
const SNIPPET_COLUMNS_MAX: usize = 120;

/// Writes the findings one below the other, and their number. `colour`: with ANSI colours.
#[must_use]
pub fn render(findings: &[Finding], sources: &[Source<'_>], colour: bool) -> String {
    let paint = Paint { colour };
    let mut out = String::new();
    for finding in findings {
        let text = sources.iter().find(|source| source.name == finding.file).map_or("", |source| source.text);
        // Writing to a String does not fail.
        let _ = one(&mut out, finding, text, paint);
        out.push('\n');
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let plural = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    match (errors, warnings) {
        (0, 0) => {}
        (0, _) => out.push_str(&plural(warnings, "warning")),
        (_, 0) => out.push_str(&plural(errors, "error")),
        _ => out.push_str(&format!("{}, {}", plural(errors, "error"), plural(warnings, "warning"))),
    }
    if !findings.is_empty() {
        out.push('\n');
    }
    out
}

#[derive(Clone, Copy)]
struct Paint {
    colour: bool,
}

const BOLD: &str = "1";
const BLUE: &str = "1;34";

impl Paint {
    fn paint(self, style: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn one(out: &mut String, finding: &Finding, text: &str, paint: Paint) -> std::fmt::Result {
    let (word, style) = match finding.severity {
        Severity::Error => ("error", "1;31"),
        Severity::Warning => ("warning", "1;33"),
    };
    let head = paint.paint(style, &format!("{word}[{}]", finding.code));
    writeln!(out, "{head}{}", paint.paint(BOLD, &format!(": {}", printable(&finding.message))))?;
    let number = finding.line.to_string();
    let margin = " ".repeat(number.len());
    let arrow = paint.paint(BLUE, "-->");
    writeln!(out, "{margin}{arrow} {}:{}:{}", printable(&finding.file), finding.line, finding.column)?;
    let bar = paint.paint(BLUE, "|");
    if let Some(line) = text.lines().nth(finding.line as usize - 1) {
        let (shown, column, width) = cut(line, finding.column as usize - 1, finding.width as usize);
        let carets = paint.paint(style, &"^".repeat(width));
        let meant = finding.nearest.as_ref().map(|near| format!(" did you mean `{}`?", printable(near)));
        let meant = paint.paint(style, &meant.unwrap_or_default());
        writeln!(out, "{margin} {bar}")?;
        writeln!(out, "{} {bar} {shown}", paint.paint(BLUE, &number))?;
        writeln!(out, "{margin} {bar} {}{carets}{}", " ".repeat(column), meant.trim_end())?;
    } else if let Some(near) = &finding.nearest {
        writeln!(out, "{margin} {} did you mean `{}`?", paint.paint(BLUE, "="), printable(near))?;
    }
    if let Some(expected) = &finding.expected {
        writeln!(out, "{margin} {} expected: {}", paint.paint(BLUE, "="), printable(expected))?;
    }
    Ok(())
}

/// The part of a line that is shown, and where in it the caret stands and how wide it is.
fn cut(line: &str, column: usize, width: usize) -> (String, usize, usize) {
    let chars: Vec<char> = printable(line).chars().collect();
    let column = column.min(chars.len());
    let start = if column + width.min(20) > SNIPPET_COLUMNS_MAX { column - SNIPPET_COLUMNS_MAX / 2 } else { 0 };
    let end = chars.len().min(start + SNIPPET_COLUMNS_MAX);
    let lead = if start > 0 { "… " } else { "" };
    let tail = if end < chars.len() { " …" } else { "" };
    let shown: String = chars[start..end].iter().collect();
    let column = column - start;
    let width = width.clamp(1, (end - start).saturating_sub(column).max(1));
    (format!("{lead}{shown}{tail}"), column + lead.chars().count(), width)
}

/// One character for one: a tab as wide as a blank, and nothing that a terminal would obey.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            _ if c.is_control() => '\u{fffd}',
            _ => c,
        })
        .collect()
}
