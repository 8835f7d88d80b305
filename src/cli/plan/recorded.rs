//! The flags that a plan depends on, as snapshots record them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::args::PlanArgs;
use crate::cli::spec::{self, SpecError};

/// What a snapshot says of how its plan was made.
pub(super) type Recorded = Vec<(String, String)>;

/// A flag's value, to be read and to be set.
enum Flag<'a> {
    Text(&'a mut Option<String>),
    File(&'a mut Option<PathBuf>),
    List(&'a mut Vec<String>),
    /// `KEY=VALUE`, each key once.
    Map(&'a mut Vec<String>),
    Switch(&'a mut bool),
}

/// All flags that change what a plan means, by the names that they have on the command line.
fn flags(args: &mut PlanArgs) -> Vec<(&'static str, Flag<'_>)> {
    let source = &mut args.source;
    vec![
        ("target", Flag::Text(&mut source.target)),
        ("platform", Flag::List(&mut source.platform)),
        ("build-platform", Flag::Text(&mut args.build_platform)),
        ("build-arg", Flag::Map(&mut source.build_arg)),
        ("build-context", Flag::Map(&mut source.build_context)),
        ("label", Flag::Map(&mut source.label)),
        ("network", Flag::Text(&mut source.network)),
        ("add-host", Flag::List(&mut source.add_host)),
        ("ulimit", Flag::List(&mut source.ulimit)),
        ("shm-size", Flag::Text(&mut source.shm_size)),
        ("pull", Flag::Switch(&mut source.pull)),
        ("lock-file", Flag::File(&mut source.lock_file)),
    ]
}

impl Flag<'_> {
    fn values(&self) -> Vec<String> {
        match self {
            Flag::Text(value) => value.iter().cloned().collect(),
            Flag::File(value) => value
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
            Flag::List(values) | Flag::Map(values) => (*values).clone(),
            Flag::Switch(false) => Vec::new(),
            Flag::Switch(true) => vec!["true".to_owned()],
        }
    }

    fn set(&mut self, mut values: Vec<String>) {
        match self {
            Flag::Text(value) => **value = values.pop(),
            Flag::File(value) => **value = values.pop().map(PathBuf::from),
            Flag::List(list) | Flag::Map(list) => **list = values,
            Flag::Switch(on) => **on = values.iter().any(|value| value == "true"),
        }
    }
}

/// Makes flags say by themselves what they say here: no variables of this host, one platform each.
fn settle(args: &mut PlanArgs) {
    let source = &mut args.source;
    source.build_arg = std::mem::take(&mut source.build_arg)
        .into_iter()
        .filter_map(|spec| match spec.contains('=') {
            true => Some(spec),
            false => {
                let (name, value) = spec::build_args(&[spec]).pop_first()?;
                Some(format!("{name}={}", value?))
            }
        })
        .collect();
    source.platform = std::mem::take(&mut source.platform)
        .iter()
        .flat_map(|spec| spec.split(',').map(|platform| platform.trim().to_owned()))
        .filter(|platform| !platform.is_empty())
        .collect();
}

/// Returns what the flags say.
pub(super) fn record(args: &mut PlanArgs) -> Recorded {
    settle(args);
    let flags = flags(args).into_iter();
    flags
        .flat_map(|(name, flag)| {
            let values = flag.values().into_iter();
            values.map(move |value| (name.to_owned(), value))
        })
        .collect()
}

/// Sets flags as a snapshot recorded them; one that was given and says something else is an error.
pub(super) fn recall(args: &mut PlanArgs, recorded: &Recorded) -> Result<(), SpecError> {
    settle(args);
    let mut recorded = by_name(recorded);
    for (name, mut flag) in flags(args) {
        let values = recorded.remove(name).unwrap_or_default();
        let given = flag.values();
        let other = match flag {
            Flag::Map(_) => given.iter().find(|value| !values.contains(value)),
            _ if given.is_empty() || given == values => None,
            _ => given.first(),
        };
        if let Some(other) = other {
            let was = values.join("` and `");
            let was = match values.as_slice() {
                [] => format!("was made without `--{name}`"),
                _ => format!("was made with `{was}`"),
            };
            return spec::refuse(
                format!("`--{name} {other}` contradicts the snapshot, which {was}"),
                "leave it out, or record it with `kiln plan --accept`",
            );
        }
        flag.set(values);
    }
    unknown(&recorded)
}

/// Sets flags that were not given as a snapshot recorded them.
pub(super) fn inherit(args: &mut PlanArgs, recorded: &Recorded) -> Result<(), SpecError> {
    settle(args);
    let mut recorded = by_name(recorded);
    for (name, mut flag) in flags(args) {
        let mut values = recorded.remove(name).unwrap_or_default();
        let given = flag.values();
        if let Flag::Map(_) = flag {
            let key = |spec: &String| spec.split('=').next().map(str::to_owned);
            values.retain(|value| !given.iter().any(|given| key(given) == key(value)));
            values.extend(given);
        } else if !given.is_empty() {
            values = given;
        }
        flag.set(values);
    }
    unknown(&recorded)
}

fn by_name(recorded: &Recorded) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in recorded {
        names.entry(name.clone()).or_default().push(value.clone());
    }
    names
}

fn unknown(left: &BTreeMap<String, Vec<String>>) -> Result<(), SpecError> {
    match left.keys().next() {
        None => Ok(()),
        Some(name) => spec::refuse(
            format!("the snapshot records `{name}`, which is no flag that plans depend on"),
            "correct its header, or write it anew with `kiln plan --accept`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn args(words: &str) -> PlanArgs {
        let words = ["kiln", "plan"].into_iter().chain(words.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Plan(args) => *args,
            _ => unreachable!(),
        }
    }

    fn words(recorded: &Recorded) -> String {
        let words: Vec<String> = recorded
            .iter()
            .map(|(name, value)| format!("{name}:{value}"))
            .collect();
        words.join(" ")
    }

    fn recalled(given: &str, recorded: &str) -> String {
        let mut given = args(given);
        match recall(&mut given, &record(&mut args(recorded))) {
            Ok(()) => words(&record(&mut given)),
            Err(error) => error.message,
        }
    }

    fn inherited(given: &str, recorded: &str) -> String {
        let mut given = args(given);
        inherit(&mut given, &record(&mut args(recorded))).unwrap();
        words(&record(&mut given))
    }

    #[test]
    fn what_counts_is_recorded() {
        let all = "--target a --platform linux/arm64,linux/amd64 --build-platform linux/s390x --build-arg A=1=2 \
                   --build-arg KILN_IS_NOT_SET --build-context c=d --label l=m --network none --add-host h:1.2.3.4 \
                   --ulimit nofile=1 --shm-size 1m --pull --lock-file l --no-cache -f x .";
        let recorded = "target:a platform:linux/arm64 platform:linux/amd64 build-platform:linux/s390x \
                        build-arg:A=1=2 build-context:c=d label:l=m network:none add-host:h:1.2.3.4 \
                        ulimit:nofile=1 shm-size:1m pull:true lock-file:l";
        assert_eq!(words(&record(&mut args(all))), recorded);
        assert_eq!(recalled(".", all), recorded);
        assert_eq!(recalled(all, all), recorded);
    }

    #[test]
    fn contradictions() {
        assert_eq!(
            recalled("--build-arg A=1 .", "--build-arg A=1 --build-arg B=2 ."),
            "build-arg:A=1 build-arg:B=2"
        );
        assert_eq!(
            recalled("--build-arg A=2 .", "--build-arg A=1 --build-arg B=2 ."),
            "`--build-arg A=2` contradicts the snapshot, which was made with `A=1` and `B=2`"
        );
        assert_eq!(
            recalled("--target x .", "."),
            "`--target x` contradicts the snapshot, which was made without `--target`"
        );
        assert_eq!(
            recalled("--platform linux/arm64 .", "--platform linux/amd64 ."),
            "`--platform linux/arm64` contradicts the snapshot, which was made with `linux/amd64`"
        );
    }

    #[test]
    fn what_is_given_anew_replaces_what_was() {
        assert_eq!(
            inherited(
                "--build-arg A=2 --target t .",
                "--target s --build-arg A=1 --build-arg B=1 --pull ."
            ),
            "target:t build-arg:B=1 build-arg:A=2 pull:true"
        );
    }

    #[test]
    fn unknown_names() {
        let recorded = vec![("colour".to_owned(), "red".to_owned())];
        let error = recall(&mut args("."), &recorded).unwrap_err();
        assert_eq!(
            error.message,
            "the snapshot records `colour`, which is no flag that plans depend on"
        );
    }
}
