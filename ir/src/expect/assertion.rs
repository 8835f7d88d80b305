//! The words of assertions.

use crate::suggest::closest;

/// An assertion is no longer than this.
const LIMIT_BYTES: usize = 4096;

/// Something that must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// As it was written.
    pub(super) text: String,
    pub(super) rule: Rule,
    pub(super) scope: Scope,
}

/// Which steps an assertion is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    /// Those of a stage, or those that the results are built up with.
    In(String),
    /// Those that need a stage and are not of it.
    After(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    BaseImagesPinned,
    ImagesFrom(Vec<String>),
    DownloadsVerified,
    NoRootRuns,
    NoNetwork,
    NoPrivilegedRuns,
    NoRuns,
    NeverRuns(String),
    NoWholeContext,
    SecretsOnly(Vec<String>),
    NoSecretsInEnvironment,
    AtMostLayers(usize),
    ImageUserNotRoot,
    ImageUser(String),
    CommandSet,
    HealthcheckSet,
    Label(String, Option<String>),
    Env(String, Option<String>),
    Exposes(String),
    Platforms(Vec<String>),
}

/// Why a text is no assertion.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// There is no assertion of that name.
    #[error("unknown assertion `{name}`{}", .nearest.map_or_else(
        || format!(": there are {}", NAMES.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
        |nearest| format!(" (did you mean `{nearest}`?)"),
    ))]
    Unknown {
        /// The name.
        name: String,
        /// The name that is closest to it, if one is.
        nearest: Option<&'static str>,
    },
    /// Its arguments are not what it takes.
    #[error("`{text}` is not `{form}`")]
    Form {
        /// The assertion.
        text: String,
        /// How it is written.
        form: &'static str,
    },
    /// A quote is not closed, or it is too long.
    #[error("`{text}` {problem}")]
    Text {
        /// The assertion, or its beginning.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// The names of all assertions, with the form of each.
pub const NAMES: &[(&str, &str)] = &[
    ("base-images-pinned", "base-images-pinned [SCOPE]"),
    ("images-from", "images-from PATTERN... [SCOPE]"),
    ("downloads-verified", "downloads-verified [SCOPE]"),
    ("no-root-runs", "no-root-runs [SCOPE]"),
    ("no-network", "no-network [SCOPE]"),
    ("no-privileged-runs", "no-privileged-runs [SCOPE]"),
    ("no-runs", "no-runs [SCOPE]"),
    ("never-runs", "never-runs TEXT [SCOPE]"),
    ("no-whole-context", "no-whole-context [SCOPE]"),
    ("secrets-only", "secrets-only [ID...] [SCOPE]"),
    ("no-secrets-in-environment", "no-secrets-in-environment"),
    ("at-most-layers", "at-most-layers NUMBER"),
    ("image-user-not-root", "image-user-not-root"),
    ("image-user", "image-user USER"),
    ("command-set", "command-set"),
    ("healthcheck-set", "healthcheck-set"),
    ("label", "label KEY[=VALUE]"),
    ("env", "env NAME[=VALUE]"),
    ("exposes", "exposes PORT"),
    ("platforms", "platforms OS/ARCH..."),
];

impl Assertion {
    /// Reads `NAME ARGUMENT... [in STAGE | after STAGE]`; what has blanks in it stands in quotes.
    pub fn parse(text: &str) -> Result<Assertion, AssertionError> {
        if text.len() > LIMIT_BYTES {
            return Err(AssertionError::Text {
                text: text.chars().take(40).collect(),
                problem: "is too long",
            });
        }
        let words = words(text).ok_or_else(|| AssertionError::Text {
            text: text.to_owned(),
            problem: "has a quote that is not closed",
        })?;
        let mut words = words.into_iter();
        let name = words.next().map(|(word, _)| word).unwrap_or_default();
        let Some((_, form)) = NAMES.iter().find(|(known, _)| *known == name) else {
            let nearest = closest(&name, NAMES.iter().map(|(name, _)| *name));
            return Err(AssertionError::Unknown { name, nearest });
        };
        let wrong = || AssertionError::Form {
            text: text.to_owned(),
            form,
        };
        let mut rest: Vec<(String, bool)> = words.collect();
        let mut scope = Scope::All;
        if form.ends_with("[SCOPE]")
            && let [.., (word, false), (stage, _)] = rest.as_slice()
        {
            scope = match word.as_str() {
                "in" => Scope::In(stage.clone()),
                "after" => Scope::After(stage.clone()),
                _ => Scope::All,
            };
        }
        if scope != Scope::All {
            rest.truncate(rest.len() - 2);
        }
        let arguments: Vec<String> = rest.into_iter().map(|(word, _)| word).collect();
        let rule = Rule::of(&name, arguments).ok_or_else(wrong)?;
        Ok(Assertion {
            text: text.trim().to_owned(),
            rule,
            scope,
        })
    }
}

impl Rule {
    fn of(name: &str, mut arguments: Vec<String>) -> Option<Rule> {
        let plain = |rule: Rule, arguments: &[String]| arguments.is_empty().then_some(rule);
        let mut one = || match arguments.len() {
            1 => arguments.pop(),
            _ => None,
        };
        let pair = |text: String| match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (text, None),
        };
        match name {
            "never-runs" => one().filter(|text| !text.is_empty()).map(Rule::NeverRuns),
            "at-most-layers" => one()?.parse().ok().map(Rule::AtMostLayers),
            "image-user" => one().map(Rule::ImageUser),
            "exposes" => one().map(|port| match port.contains('/') {
                true => Rule::Exposes(port),
                false => Rule::Exposes(format!("{port}/tcp")),
            }),
            "label" => one().map(pair).map(|(key, value)| Rule::Label(key, value)),
            "env" => one().map(pair).map(|(key, value)| Rule::Env(key, value)),
            "images-from" => (!arguments.is_empty()).then_some(Rule::ImagesFrom(arguments)),
            "platforms" => (!arguments.is_empty()).then_some(Rule::Platforms(arguments)),
            "secrets-only" => Some(Rule::SecretsOnly(arguments)),
            "base-images-pinned" => plain(Rule::BaseImagesPinned, &arguments),
            "downloads-verified" => plain(Rule::DownloadsVerified, &arguments),
            "no-root-runs" => plain(Rule::NoRootRuns, &arguments),
            "no-network" => plain(Rule::NoNetwork, &arguments),
            "no-privileged-runs" => plain(Rule::NoPrivilegedRuns, &arguments),
            "no-runs" => plain(Rule::NoRuns, &arguments),
            "no-whole-context" => plain(Rule::NoWholeContext, &arguments),
            "no-secrets-in-environment" => plain(Rule::NoSecretsInEnvironment, &arguments),
            "image-user-not-root" => plain(Rule::ImageUserNotRoot, &arguments),
            "command-set" => plain(Rule::CommandSet, &arguments),
            "healthcheck-set" => plain(Rule::HealthcheckSet, &arguments),
            _ => None,
        }
    }
}

/// Splits at blanks outside of double quotes, and says of each word whether it was in quotes.
fn words(text: &str) -> Option<Vec<(String, bool)>> {
    let (mut words, mut word, mut open, mut quoted) = (Vec::new(), String::new(), false, false);
    for character in text.chars() {
        match character {
            '"' => {
                open = !open;
                quoted = true;
            }
            blank if blank.is_whitespace() && !open => {
                if !word.is_empty() || quoted {
                    words.push((std::mem::take(&mut word), std::mem::take(&mut quoted)));
                }
            }
            character => word.push(character),
        }
    }
    if !word.is_empty() || quoted {
        words.push((word, quoted));
    }
    (!open).then_some(words)
}
