//! The `WWW-Authenticate` header (RFC 9110, section 11.6.1).

/// A way in which a server lets itself be convinced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// The scheme in lower case: `basic`, `bearer`.
    pub(super) scheme: String,
    /// The parameters, names in lower case, values unquoted.
    parameters: Vec<(String, String)>,
}

impl Challenge {
    pub(super) fn new(scheme: &str, parameters: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            scheme: scheme.to_owned(),
            parameters: parameters.iter().map(own).collect(),
        }
    }

    /// Returns a parameter's value; the first one if it is given twice.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Parses one header value, which may hold several challenges; what is malformed ends the parse.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let word = token(rest);
        if word.is_empty() {
            return challenges;
        }
        rest = &rest[word.len()..];
        let after = rest.trim_start_matches([' ', '\t']);
        match (after.strip_prefix('='), challenges.last_mut()) {
            // `word=` is a parameter; a scheme is followed by a space, a comma or the end.
            (Some(value), Some(challenge)) => {
                let Some((value, remainder)) =
                    parameter_value(value.trim_start_matches([' ', '\t']))
                else {
                    return challenges;
                };
                challenge
                    .parameters
                    .push((word.to_ascii_lowercase(), value));
                rest = remainder;
            }
            (Some(_), None) => return challenges,
            (None, _) => {
                challenges.push(Challenge {
                    scheme: word.to_ascii_lowercase(),
                    parameters: Vec::new(),
                });
            }
        }
    }
}

/// Returns the token (RFC 9110, section 5.6.2) at the beginning of `text`, which may be empty.
fn token(text: &str) -> &str {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    &text[..text.find(|c| !is_token(c)).unwrap_or(text.len())]
}

/// Returns a quoted or plain value and what follows it.
fn parameter_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        // Registries send unquoted URLs and scopes now and then, so more than tokens is taken.
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected` is `scheme name=value|name=value; scheme`.
    fn check(header: &str, expected: &str) {
        let show = |challenge: &Challenge| {
            let parameters: Vec<_> = challenge
                .parameters
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            format!("{} {}", challenge.scheme, parameters.join("|"))
                .trim()
                .to_owned()
        };
        let shown: Vec<_> = parse(header).iter().map(show).collect();
        assert_eq!(shown.join("; "), expected, "{header}");
    }

    #[test]
    fn challenges_are_taken_apart() {
        check(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
            "bearer realm=https://auth.docker.io/token|service=registry.docker.io|scope=repository:a/b:pull,push",
        );
        check(r#"Basic realm="a \"b\" \\c""#, r#"basic realm=a "b" \c"#);
        check("BASIC", "basic");
        check(
            r#"Basic realm="x", Bearer realm="y" , Service = z"#,
            "basic realm=x; bearer realm=y|service=z",
        );
        check(
            "Bearer realm=https://x/y?z=1,scope=",
            "bearer realm=https://x/y?z=1|scope=",
        );
        check("Negotiate, Basic realm=x", "negotiate; basic realm=x");
    }

    #[test]
    fn malformed_headers_end_the_parse() {
        check("", "");
        check("=", "");
        check("a=b", "");
        check(r#"Bearer realm="x"#, "bearer");
        check(r#"Bearer realm="x\"#, "bearer");
        check("Bearer é", "bearer");
        check(",,,Basic,,,", "basic");
    }
}
