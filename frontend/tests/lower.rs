//! Lowering, case by case: `cases/lower/NAME.Dockerfile` with the options in `NAME.options` gives
//! the plan, the image and the findings in `NAME.snap`.
//!
//! An options file has one option a line: `build-arg K=V`, `build-arg K`, `label K=V`, `target S`,
//! `platform P`, `ignore PATTERN`, `no-cache` or `no-cache STAGE`, `network none|host`,
//! `context NAME=docker-image://REF|local:NAME|URL`, `image REF JSON`, `unavailable REF REASON`,
//! `epoch N`, `hostname H`, `add-host NAME=IP`, `ulimit NAME=SOFT:HARD`, `shm-size N`,
//! `proxy-http URL`, `cache-ns NS`. Images without an answer are assumed.

#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use kiln_frontend::diagnostic::Diagnostic;
use kiln_frontend::dockerfile::span::LineIndex;
use kiln_frontend::lower::{
    Answers, ImageAnswer, LowerInput, Lowered, Lowering, NamedContext, NoCache, Question, lower,
};
use kiln_ir::{HostIp, ImageConfig, NetworkMode, Platform, PrintOptions, Ulimit};

/// The options of a case, and what registries would say.
#[derive(Default)]
struct Case {
    input: LowerInput,
    images: Vec<(String, ImageAnswer)>,
}

impl Case {
    fn new(text: &str, options: &str) -> Case {
        let mut case = Case {
            input: LowerInput {
                text: text.to_owned(),
                file_name: "Dockerfile".to_owned(),
                build_platform: Platform::linux("amd64"),
                ..LowerInput::default()
            },
            images: Vec::new(),
        };
        for line in options.lines().filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            case.option(name, value);
        }
        case
    }

    fn option(&mut self, name: &str, value: &str) {
        let input = &mut self.input;
        let (key, rest) = value.split_once('=').unwrap_or((value, ""));
        let (key, rest) = (key.to_owned(), rest.to_owned());
        match name {
            "build-arg" => {
                let given = value.contains('=').then_some(rest);
                input.build_args.insert(key, given);
            }
            "label" => {
                input.labels.insert(key, rest);
            }
            "target" => input.target = Some(value.to_owned()),
            "platform" => input.platforms.push(value.parse().unwrap()),
            "ignore" => input.ignore.push(value.to_owned()),
            "no-cache" if value.is_empty() => input.no_cache = NoCache::All,
            "no-cache" => input.no_cache = NoCache::Stages(BTreeSet::from([value.to_owned()])),
            "network" if value == "host" => input.network = NetworkMode::Host,
            "network" => input.network = NetworkMode::None,
            "context" => {
                let context = if let Some(image) = rest.strip_prefix("docker-image://") {
                    NamedContext::Image(image.to_owned())
                } else if let Some(source) = rest.strip_prefix("local:") {
                    NamedContext::Local {
                        source: source.to_owned(),
                        ignore: vec!["*.tmp".to_owned()],
                    }
                } else {
                    NamedContext::Url(rest)
                };
                input.contexts.insert(key, context);
            }
            "image" => {
                let (reference, json) = value.split_once(' ').unwrap();
                let config = ImageConfig::from_json(json.as_bytes()).unwrap();
                self.images.push((
                    reference.to_owned(),
                    ImageAnswer::Resolved {
                        config: Box::new(config),
                        digest: format!("sha256:{}", "0123456789abcdef".repeat(4)),
                    },
                ));
            }
            "unavailable" => {
                let (reference, reason) = value.split_once(' ').unwrap();
                let answer = ImageAnswer::Unavailable(reason.to_owned());
                self.images.push((reference.to_owned(), answer));
            }
            "epoch" => input.source_date_epoch = Some(value.parse().unwrap()),
            "hostname" => input.hostname = value.to_owned(),
            "add-host" => input.add_hosts.push(HostIp { host: key, ip: rest }),
            "ulimit" => {
                let (soft, hard) = rest.split_once(':').unwrap();
                input.ulimits.push(Ulimit {
                    name: key,
                    soft: soft.parse().unwrap(),
                    hard: hard.parse().unwrap(),
                });
            }
            "shm-size" => input.shm_size_bytes = Some(value.parse().unwrap()),
            "proxy-http" => input.proxy.http = value.to_owned(),
            "cache-ns" => input.cache_mount_ns = value.to_owned(),
            name => panic!("unknown option `{name}`"),
        }
    }

    /// Lowers, answering as registries would; also returns the rounds of questions.
    fn lower(&self) -> (Vec<Vec<Question>>, Result<Box<Lowered>, Vec<Diagnostic>>) {
        let mut answers = Answers::default();
        let mut rounds: Vec<Vec<Question>> = Vec::new();
        loop {
            let questions = match lower(&self.input, &answers) {
                Lowering::Lowered(lowered) => return (rounds, Ok(lowered)),
                Lowering::Failed(diagnostics) => return (rounds, Err(diagnostics)),
                Lowering::Needs(questions) => questions,
            };
            assert!(!questions.is_empty(), "a round asks something");
            for question in &questions {
                assert!(answers.get(question).is_none(), "asked again: {question:?}");
                let Question::ImageConfig { reference, .. } = question;
                let known = self.images.iter().find(|(name, _)| name == reference);
                let answer = known.map_or(ImageAnswer::Assumed, |(_, answer)| answer.clone());
                answers.image(question.clone(), answer);
            }
            rounds.push(questions);
        }
    }

    fn render(&self) -> String {
        let (rounds, outcome) = self.lower();
        let mut out = String::new();
        for (number, questions) in rounds.iter().enumerate() {
            for Question::ImageConfig { reference, platform } in questions {
                writeln!(out, "round {}: {reference} {platform}", number + 1).unwrap();
            }
        }
        match outcome {
            Err(diagnostics) => {
                out.push_str("failed\n");
                render_diagnostics(&mut out, &self.input.text, &diagnostics);
            }
            Ok(lowered) => {
                render_lowered(&mut out, &lowered);
                render_diagnostics(&mut out, &self.input.text, &lowered.diagnostics);
            }
        }
        out
    }
}

fn render_lowered(out: &mut String, lowered: &Lowered) {
    lowered.plan.validate().unwrap();
    let options = PrintOptions {
        display: true,
        pins: true,
    };
    writeln!(out, "{}", kiln_ir::print(&lowered.plan, options).trim_end()).unwrap();
    for (id, display) in &lowered.plan.display {
        if !display.include.is_empty() {
            let include: Vec<&str> = display.include.iter().map(String::as_str).collect();
            writeln!(out, "reads of {:?}: {}", display.name, include.join(" ")).unwrap();
        }
        if display.ignore_cache {
            writeln!(out, "ignores the cache: {}", display.name).unwrap();
        }
        assert!(lowered.plan.graph.contains(*id));
    }
    for (name, entry) in &lowered.plan.results {
        let Some(config) = &entry.config else {
            continue;
        };
        writeln!(out, "history {name}").unwrap();
        for line in &config.history {
            let mark = if line.empty_layer { '-' } else { '+' };
            let created = line.created.as_deref().unwrap_or("");
            writeln!(out, "  {mark} {:?} {created}", line.created_by).unwrap();
        }
    }
    let skipped: Vec<&str> = lowered
        .stages
        .iter()
        .filter(|stage| !stage.reachable)
        .map(|stage| stage.name.as_str())
        .collect();
    if !skipped.is_empty() {
        writeln!(out, "skipped stages: {}", skipped.join(" ")).unwrap();
    }
    if !lowered.unused_build_args.is_empty() {
        writeln!(out, "unused build args: {}", lowered.unused_build_args.join(" ")).unwrap();
    }
}

fn render_diagnostics(out: &mut String, text: &str, diagnostics: &[Diagnostic]) {
    let index = LineIndex::new(text);
    for diagnostic in diagnostics {
        let place = index.position(text, diagnostic.span.start);
        let severity = if diagnostic.is_error() { "error" } else { "warning" };
        writeln!(
            out,
            "{severity} {} {}:{} {:?}: {}",
            diagnostic.code,
            place.line,
            place.column,
            diagnostic.span.of(text),
            diagnostic.message
        )
        .unwrap();
        for (span, label) in &diagnostic.labels {
            writeln!(out, "  {:?}: {label}", span.of(text)).unwrap();
        }
        if let Some(help) = &diagnostic.help {
            writeln!(out, "  help: {help}").unwrap();
        }
    }
}

#[test]
fn cases() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/lower");
    let mut names: Vec<String> = std::fs::read_dir(&dir)
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".Dockerfile").map(str::to_owned)
        })
        .collect();
    names.sort();
    assert!(names.len() >= 40, "only {} cases", names.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("cases/lower");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for name in names {
            let text = std::fs::read_to_string(dir.join(format!("{name}.Dockerfile"))).unwrap();
            let options = std::fs::read_to_string(dir.join(format!("{name}.options")));
            let case = Case::new(&text, &options.unwrap_or_default());
            insta::assert_snapshot!(name, case.render());
        }
    });
}
