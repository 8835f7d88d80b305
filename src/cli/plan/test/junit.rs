//! What became of the cases as JUnit XML, which every CI shows.
//!
//! There is no standard; what is written here is what Jenkins' plugin, GitLab and GitHub's actions read.

use std::fmt::Write as _;

use super::{ProblemKind, Ran, Suite};

pub(super) fn write(suite: &Suite) -> String {
    let errors = suite.ran.iter().filter(|ran| is_error(ran)).count();
    let failures = suite.failed() - errors;
    let counts = format!(
        "tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" time=\"{:.3}\"",
        suite.ran.len(),
        suite.took.as_secs_f64(),
    );
    let name = escaped(&suite.directory.display().to_string());
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(text, "<testsuites name=\"kiln plan test\" {counts}>");
    let _ = writeln!(text, "  <testsuite name=\"{name}\" skipped=\"0\" {counts}>");
    for ran in &suite.ran {
        let _ = write!(
            text,
            "    <testcase name=\"{}\" classname=\"{name}\" file=\"{}\" time=\"{:.3}\"",
            escaped(&ran.name),
            escaped(&ran.file.display().to_string()),
            ran.took.as_secs_f64(),
        );
        if ran.problems.is_empty() {
            text.push_str("/>\n");
            continue;
        }
        text.push_str(">\n");
        // One element a case, since some readers count elements as cases.
        let element = if is_error(ran) { "error" } else { "failure" };
        let messages: Vec<&str> = ran
            .problems
            .iter()
            .map(|problem| problem.message.as_str())
            .collect();
        let first = messages.first().and_then(|message| message.lines().next());
        let kind = ran
            .problems
            .first()
            .map_or("", |problem| problem.kind.word());
        let _ = writeln!(
            text,
            "      <{element} message=\"{}\" type=\"{kind}\">{}</{element}>",
            escaped(first.unwrap_or_default()),
            escaped(&messages.join("\n")),
        );
        text.push_str("    </testcase>\n");
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

fn is_error(ran: &Ran) -> bool {
    ran.problems
        .iter()
        .any(|problem| problem.kind == ProblemKind::Error)
}

/// Text as XML 1.0 can have it; what it cannot have at all becomes a replacement character.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\n' | '\t' => out.push(character),
            // A reader makes a line end of it, unless it is written so.
            '\r' => out.push_str("&#13;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            control if (control as u32) < 0x20 => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Problem;
    use super::*;

    /// A real reader finds what was written, whatever it is.
    #[test]
    fn another_reader_understands() {
        let hostile = "a\"b'<c>&amp;]]>\r\n\u{1}\u{0}\u{1b}[31m\t\u{ffff}é";
        let problem = |kind, message: &str| Problem {
            kind,
            message: message.to_owned(),
        };
        let ran = |name: &str, problems| Ran {
            name: name.to_owned(),
            file: "x/case.toml".into(),
            took: Duration::from_millis(1500),
            accepted: None,
            problems,
        };
        let suite = Suite {
            directory: "tests/<plans>".into(),
            ran: vec![
                ran("good", Vec::new()),
                ran(
                    hostile,
                    vec![
                        problem(ProblemKind::Plan, hostile),
                        problem(ProblemKind::Assertion, "second"),
                    ],
                ),
                ran("odd", vec![problem(ProblemKind::Error, "one\ntwo")]),
            ],
            filtered_out: 2,
            took: Duration::from_secs(2),
        };
        let text = write(&suite);
        let document = roxmltree::Document::parse(&text).unwrap();
        let root = document.root_element();
        assert_eq!(root.tag_name().name(), "testsuites");
        let attributes =
            ["tests", "failures", "errors", "time"].map(|name| root.attribute(name).unwrap());
        assert_eq!(attributes, ["3", "1", "1", "2.000"]);
        let cases: Vec<_> = root
            .descendants()
            .filter(|node| node.has_tag_name("testcase"))
            .collect();
        assert_eq!(cases.len(), 3);
        assert_eq!(cases[0].children().count(), 0);
        let visible = "a\"b'<c>&amp;]]>\r\n\u{fffd}\u{fffd}\u{fffd}[31m\t\u{fffd}é";
        let failure = cases[1]
            .children()
            .find(|node| node.has_tag_name("failure"))
            .unwrap();
        assert_eq!(failure.text(), Some(format!("{visible}\nsecond").as_str()));
        assert_eq!(failure.attribute("type"), Some("plan"));
        // A line end in an attribute is a blank to every reader.
        assert_eq!(
            cases[1].attribute("name").unwrap(),
            visible.replace(['\n', '\t'], " ")
        );
        let error = cases[2]
            .children()
            .find(|node| node.has_tag_name("error"))
            .unwrap();
        assert_eq!(
            (error.attribute("message"), error.text()),
            (Some("one"), Some("one\ntwo"))
        );
    }
}
