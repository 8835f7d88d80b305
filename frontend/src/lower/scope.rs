//! Variables: which names an expansion sees, and what they are worth.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use kiln_ir::Platform;

use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Arg, Instruction};
use crate::dockerfile::expand::{Environment, Expander};

/// The argument that asks for an SBOM of the context.
pub(super) const SCAN_CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";

/// The argument that asks for SBOMs of stages.
pub(super) const SCAN_STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";

/// Arguments that steer the builder and are never variables of a process.
const NOT_IN_ENVIRONMENT: &[&str] = &[SCAN_CONTEXT, SCAN_STAGE];

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
            let name = declaration.name.text.as_str();
            let value = match (build_args.get(name), &declaration.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(expand(default, self)?),
                (None, None) => None,
            };
            if let Some(value) = value {
                self.values.insert(name.to_owned(), value);
            }
            self.declared.insert(name.to_owned());
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
    list: Vec<Argument>,
    places: BTreeMap<String, usize>,
}

#[derive(Clone, Debug)]
struct Argument {
    name: String,
    value: Option<String>,
    /// No ENV set the name since it was declared with a value.
    beats_env: bool,
}

impl Arguments {
    /// Declares an argument; without a value it keeps the one it has.
    pub(super) fn declare(&mut self, name: &str, value: Option<String>) {
        let place = *self.places.entry(name.to_owned()).or_insert_with(|| {
            self.list.push(Argument {
                name: name.to_owned(),
                value: None,
                beats_env: false,
            });
            self.list.len() - 1
        });
        let argument = &mut self.list[place];
        if value.is_some() {
            argument.value = value;
            argument.beats_env = true;
        }
    }

    /// Takes in that ENV set a variable, which hides the argument of that name.
    pub(super) fn hide(&mut self, name: &str) {
        if let Some(place) = self.places.get(name) {
            self.list[*place].beats_env = false;
        }
    }

    /// Takes in that a stage begins with these arguments of its base: they have their values, but
    /// the image's environment hides them.
    pub(super) fn inherit(&mut self) {
        for argument in &mut self.list {
            argument.beats_env = false;
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
            .map(|argument| (argument.name.as_str(), argument.value.as_deref()))
    }

    fn get(&self, name: &str) -> Option<&Argument> {
        let place = self.places.get(name)?;
        (!is_internal(name)).then(|| &self.list[*place])
    }
}

/// What an instruction of a stage sees: the image's environment and the stage's arguments, of equal
/// names the one that was set last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'s> {
    /// `NAME=value`, as in the image's config.
    pub(super) env: &'s [String],
    /// Where each variable of it is.
    pub(super) places: &'s EnvPlaces,
    /// The stage's arguments.
    pub(super) args: &'s Arguments,
}

impl Environment for Scope<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.value(name).map(Cow::Borrowed)
    }
}

impl<'s> Scope<'s> {
    fn value(&self, name: &str) -> Option<&'s str> {
        let argument = self.args.get(name);
        let value = argument.and_then(|argument| argument.value.as_deref());
        if argument.is_some_and(|argument| argument.beats_env) {
            return value;
        }
        self.places.value(self.env, name).or(value)
    }

    /// Returns the environment of a process: the image's, with the arguments that it does not hide.
    pub(super) fn process_env(&self) -> Vec<String> {
        let mut hidden: BTreeSet<&str> = BTreeSet::new();
        let mut env = Vec::with_capacity(self.env.len());
        for pair in self.env {
            let name = split(pair).0;
            hidden.insert(name);
            match self.args.get(name).filter(|argument| argument.beats_env) {
                Some(argument) => {
                    let value = argument.value.as_deref().unwrap_or_default();
                    env.push(format!("{name}={value}"));
                }
                None => env.push(pair.clone()),
            }
        }
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

    /// Returns `|N name=value…`, which a RUN's history begins with; nothing if neither this stage nor
    /// those below it declare an argument.
    pub(super) fn history_args(&self) -> Option<String> {
        let args = &self.args.list;
        let mut text = format!("|{}", args.len());
        for argument in args {
            let value = argument.value.as_deref();
            let value = self.value(&argument.name).or(value).unwrap_or("");
            text.push_str(&format!(" {}={value}", argument.name));
        }
        (!args.is_empty()).then_some(text)
    }

    /// Returns the platform that things are made for, as far as the stage declares arguments that say
    /// so.
    pub(super) fn target_platform(&self) -> Option<Platform> {
        let whole = self.value("TARGETPLATFORM");
        if let Some(platform) = whole.and_then(|text| Platform::parse(text).ok()) {
            return Some(platform);
        }
        let [os, architecture, variant] =
            ["TARGETOS", "TARGETARCH", "TARGETVARIANT"].map(|name| self.value(name));
        os.or(architecture)?;
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Some(Platform {
            os: text(os),
            architecture: text(architecture),
            variant: text(variant),
            ..Platform::default()
        })
    }

    /// Returns all names that have a value.
    pub(super) fn names(&self) -> impl Iterator<Item = &'s str> {
        let args = self
            .args
            .iter()
            .filter(|(name, value)| value.is_some() && !is_internal(name))
            .map(|(name, _)| name);
        self.env.iter().map(|pair| split(pair).0).chain(args)
    }
}

/// Where the variables of a `NAME=value` list are, so that long lists are not searched.
#[derive(Clone, Debug, Default)]
pub(super) struct EnvPlaces {
    by_name: HashMap<String, EnvPlace>,
}

#[derive(Clone, Copy, Debug)]
struct EnvPlace {
    /// The first of the name, which is replaced.
    first: usize,
    /// The one that counts: the last, as for a process, until one is set.
    counts: usize,
}

impl EnvPlaces {
    /// Finds the variables of a list.
    pub(super) fn of(env: &[String]) -> EnvPlaces {
        let mut places = EnvPlaces::default();
        for (index, pair) in env.iter().enumerate() {
            let new = EnvPlace {
                first: index,
                counts: index,
            };
            let name = split(pair).0.to_owned();
            places.by_name.entry(name).or_insert(new).counts = index;
        }
        places
    }

    /// Returns the value of a variable.
    pub(super) fn value<'e>(&self, env: &'e [String], name: &str) -> Option<&'e str> {
        let place = self.by_name.get(name)?;
        Some(split(&env[place.counts]).1)
    }

    /// Sets a variable where it stands, or appends it.
    pub(super) fn set(&mut self, env: &mut Vec<String>, name: &str, value: &str) {
        let pair = format!("{name}={value}");
        match self.by_name.get_mut(name) {
            Some(place) => {
                place.counts = place.first;
                env[place.first] = pair;
            }
            None => {
                let place = EnvPlace {
                    first: env.len(),
                    counts: env.len(),
                };
                self.by_name.insert(name.to_owned(), place);
                env.push(pair);
            }
        }
    }
}

fn split(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}
