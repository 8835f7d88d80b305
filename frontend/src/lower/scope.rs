//! Variables: which names an expansion sees, and what they are worth.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use kiln_ir::Platform;

use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Arg, Instruction};
use crate::dockerfile::expand::{Environment, Expander};

/// Arguments that steer the builder and are never variables of a process.
const NOT_IN_ENVIRONMENT: &[&str] = &["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Says whether an argument never becomes an environment variable.
pub(super) fn is_internal(name: &str) -> bool {
    NOT_IN_ENVIRONMENT.contains(&name)
}

/// What FROM sees: the arguments before the first one, and those that are always there.
#[derive(Clone, Debug, Default)]
pub(super) struct Globals {
    values: BTreeMap<String, String>,
    declared: BTreeSet<String>,
}

impl Environment for Globals {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.values
            .get(name)
            .map(|value| Cow::Borrowed(value.as_str()))
    }
}

impl Globals {
    /// Returns the arguments that are there without declaration; a build argument goes before each.
    pub(super) fn predefined(
        build: &Platform,
        target: &Platform,
        stage: &str,
        build_args: &BTreeMap<String, String>,
    ) -> Globals {
        let mut values = BTreeMap::new();
        for (prefix, platform) in [("BUILD", build), ("TARGET", target)] {
            let parts = [
                ("PLATFORM", platform.format_all()),
                ("OS", platform.os.clone()),
                ("OSVERSION", platform.os_version.clone()),
                ("ARCH", platform.architecture.clone()),
                ("VARIANT", platform.variant.clone()),
            ];
            for (name, value) in parts {
                values.insert(format!("{prefix}{name}"), value);
            }
        }
        values.insert("TARGETSTAGE".to_owned(), stage.to_owned());
        for (name, value) in &mut values {
            if let Some(given) = build_args.get(name) {
                value.clone_from(given);
            }
        }
        Globals {
            values,
            declared: BTreeSet::new(),
        }
    }

    /// Takes in one ARG before the first FROM.
    pub(super) fn declare(
        &mut self,
        arg: &Instruction<Arg>,
        expander: &Expander,
        build_args: &BTreeMap<String, String>,
    ) -> Result<(), Box<Diagnostic>> {
        for declaration in &arg.kind.declarations {
            let expand = |word: &crate::dockerfile::ast::Word, globals: &Globals| {
                expander
                    .expand(&word.text, globals)
                    .map(|expansion| expansion.text)
                    .map_err(|error| {
                        Box::new(Diagnostic::error("expansion", word.span, error.to_string()))
                    })
            };
            let name = expand(&declaration.name, self)?;
            let value = match (build_args.get(&name), &declaration.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(expand(default, self)?),
                (None, None) => None,
            };
            if let Some(value) = value {
                self.values.insert(name.clone(), value);
            }
            self.declared.insert(name);
        }
        Ok(())
    }

    /// Returns the names that a FROM may use.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let undefined = self
            .declared
            .iter()
            .filter(|name| !self.values.contains_key(*name));
        self.values.keys().chain(undefined).map(String::as_str)
    }

    /// Returns a value.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Says whether an ARG before the first FROM declares the name.
    pub(super) fn declares(&self, name: &str) -> bool {
        self.declared.contains(name)
    }
}

/// The arguments of a stage, each once, in the order of their first declaration.
#[derive(Clone, Debug, Default)]
pub(super) struct Arguments {
    list: Vec<(String, Option<String>)>,
    places: BTreeMap<String, usize>,
}

impl Arguments {
    /// Declares an argument; without a value it keeps the one it has.
    pub(super) fn declare(&mut self, name: &str, value: Option<String>) {
        match self.places.get(name) {
            Some(place) => {
                if value.is_some() {
                    self.list[*place].1 = value;
                }
            }
            None => {
                self.places.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
    }

    /// Says whether the name is declared, with or without a value.
    pub(super) fn declares(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Returns names and values in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.list
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    fn value(&self, name: &str) -> Option<&str> {
        if is_internal(name) {
            return None;
        }
        let place = self.places.get(name)?;
        self.list[*place].1.as_deref()
    }
}

/// What an instruction of a stage sees: the image's environment, which always goes first, and the
/// stage's arguments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'s> {
    /// `NAME=value`, as in the image's config.
    pub(super) env: &'s [String],
    /// The stage's arguments.
    pub(super) args: &'s Arguments,
}

impl Environment for Scope<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        env_value(self.env, name)
            .or_else(|| self.args.value(name))
            .map(Cow::Borrowed)
    }
}

impl Scope<'_> {
    /// Returns the environment of a process: the image's, then the arguments that it does not hide.
    pub(super) fn process_env(&self) -> Vec<String> {
        let hidden: BTreeSet<&str> = self.env.iter().map(|pair| split(pair).0).collect();
        let mut env = self.env.to_vec();
        for (name, value) in self.args.iter() {
            if let Some(value) = value
                && !is_internal(name)
                && !hidden.contains(name)
            {
                env.push(format!("{name}={value}"));
            }
        }
        env
    }

    /// Returns `|N name=value…`, which a RUN's history begins with; nothing if no argument is declared.
    pub(super) fn history_args(&self) -> Option<String> {
        let mut parts = vec![format!("|{}", self.args.list.len())];
        for (name, value) in self.args.iter() {
            let value = env_value(self.env, name).or(value).unwrap_or("");
            parts.push(format!("{name}={value}"));
        }
        (parts.len() > 1).then(|| parts.join(" "))
    }

    /// Returns all names that have a value.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let args = self
            .args
            .iter()
            .filter(|(name, value)| value.is_some() && !is_internal(name))
            .map(|(name, _)| name);
        self.env.iter().map(|pair| split(pair).0).chain(args)
    }
}

/// Returns the value of a variable in a `NAME=value` list; the last one counts, as for a process.
pub(super) fn env_value<'e>(env: &'e [String], name: &str) -> Option<&'e str> {
    env.iter()
        .rev()
        .map(|pair| split(pair))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// Sets a variable where it stands, or appends it.
pub(super) fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let pair = format!("{name}={value}");
    match env.iter_mut().find(|pair| split(pair).0 == name) {
        Some(place) => *place = pair,
        None => env.push(pair),
    }
}

fn split(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}
