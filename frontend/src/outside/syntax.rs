//! Whom a file asks for: `# syntax=`, or the build argument that stands for it.

use std::collections::BTreeMap;

use crate::dockerfile;
use crate::dockerfile::span::Span;

/// The build argument that stands for `# syntax=`.
const SYNTAX: &str = "BUILDKIT_SYNTAX";

/// The front ends that the built-in one is, whatever their tag or digest.
const OURS: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// What a program of the caller's host begins with.
const EXEC: &str = "exec:";

/// Who is to read a file, if not the built-in front end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A program of this host, as written after `exec:`.
    Program(String),
    /// An image, as written.
    Image(String),
}

/// Whom a file or a build argument asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Who.
    pub reader: Reader,
    /// Where the file says so; none where the build argument does.
    pub span: Option<Span>,
}

/// Finds who is to read `text`; none is the built-in front end.
pub fn asked(text: &str, build_args: &BTreeMap<String, Option<String>>) -> Option<Asked> {
    let (named, span) = match build_args.get(SYNTAX).and_then(Option::as_deref) {
        Some("") => return None,
        Some(given) => (given.split_whitespace().next()?.to_owned(), None),
        None => {
            let word = dockerfile::syntax(text)?;
            (word.text.to_string(), Some(word.span))
        }
    };
    let reader = match named.strip_prefix(EXEC) {
        Some(program) => Reader::Program(program.to_owned()),
        None if is_built_in(&named) => return None,
        None => Reader::Image(named),
    };
    Some(Asked { reader, span })
}

/// Whether a name is that of the built-in front end.
fn is_built_in(named: &str) -> bool {
    let name = named.strip_prefix("docker.io/").unwrap_or(named);
    let name = name.split('@').next().unwrap_or_default();
    let name = name.split(':').next().unwrap_or_default();
    OURS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, given: Option<&str>, expected: Option<Reader>) {
        let value = given.map(|value| (SYNTAX.to_owned(), Some(value.to_owned())));
        let found = asked(text, &value.into_iter().collect());
        assert_eq!(
            found.map(|asked| asked.reader),
            expected,
            "{text:?} {given:?}"
        );
    }

    #[test]
    fn files_ask_for_their_front_end() {
        let image = |name: &str| Some(Reader::Image(name.to_owned()));
        let program = |name: &str| Some(Reader::Program(name.to_owned()));
        check("FROM x\n", None, None);
        check("# syntax=docker/dockerfile:1.7-labs\nFROM x\n", None, None);
        check(
            "# syntax=docker.io/docker/dockerfile-upstream@sha256:0\n",
            None,
            None,
        );
        check("# syntax=me/app:1\nname = \"x\"\n", None, image("me/app:1"));
        check("\u{feff}#syntax = me/app\n", None, image("me/app"));
        check("// syntax=me/app more\n", None, image("me/app"));
        check("{\"syntax\": \"me/app\"}", None, image("me/app"));
        check("#!/bin/x\n# syntax=exec:./x\n", None, program("./x"));
        check(
            "# syntax=docker/dockerfile2:1\n",
            None,
            image("docker/dockerfile2:1"),
        );
    }

    #[test]
    fn the_build_argument_goes_first() {
        let image = Some(Reader::Image("me/app".to_owned()));
        check("# syntax=other\n", Some("me/app"), image);
        check("# syntax=other\n", Some(""), None);
        check("# syntax=other\n", Some("docker/dockerfile"), None);
        check("", Some("exec:x"), Some(Reader::Program("x".to_owned())));
    }

    #[test]
    fn the_place_is_that_of_the_name() {
        let text = "# syntax=me/app\n";
        let asked = asked(text, &BTreeMap::new()).unwrap();
        assert_eq!(asked.span.unwrap().of(text), "me/app");
    }
}
