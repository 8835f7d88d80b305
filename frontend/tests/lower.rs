//! Lowering, case by case: `cases/lower/NAME.Dockerfile` with the options in `NAME.options` gives
//! the plan, the image and the findings in `NAME.snap`.
//!
//! An options file has one option a line: `build-arg K=V`, `build-arg K`, `label K=V`, `target S`,
//! `platform P`, `ignore PATTERN`, `no-cache` or `no-cache STAGE`, `network none|host`,
//! `context NAME=docker-image://REF|oci-layout:NAME|local:NAME|URL`, `image REF JSON`, `unavailable REF REASON[; help: HELP]`,
//! `epoch N`, `hostname H`, `add-host NAME=IP`, `ulimit NAME=SOFT:HARD`, `shm-size N`,
//! `proxy-http URL`, `cache-ns NS`. Images without an answer are assumed.

#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "lower/scopes.rs"]
mod scopes;
#[path = "lower/stages.rs"]
mod stages;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use kiln_frontend::diagnostic::Diagnostic;
use kiln_frontend::dockerfile::span::LineIndex;
use kiln_frontend::lower::{
    Answers, ImageAnswer, LowerInput, Lowered, Lowering, NamedContext, NoCache, Question,
    TimeAnswer, lower,
};
use kiln_ir::{HostIp, ImageConfig, NetworkMode, NodeDigest, Platform, PrintOptions, Ulimit};
use proptest::prelude::*;

/// A plan, or what is wrong.
type Outcome = Result<Box<Lowered>, Vec<Diagnostic>>;

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
                text: text.into(),
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
                } else if let Some(layout) = rest.strip_prefix("oci-layout:") {
                    NamedContext::OciLayout(layout.to_owned())
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
                let (reason, help) = match reason.split_once("; help: ") {
                    Some((reason, help)) => (reason, Some(help.to_owned())),
                    None => (reason, None),
                };
                let reason = reason.to_owned();
                let answer = ImageAnswer::Unavailable { reason, help };
                self.images.push((reference.to_owned(), answer));
            }
            "epoch" => input.source_date_epoch = Some(value.parse().unwrap()),
            "hostname" => input.hostname = value.to_owned(),
            "add-host" => input.add_hosts.push(HostIp {
                host: key,
                ip: rest,
            }),
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
    fn lower(&self) -> (Vec<Vec<Question>>, Outcome) {
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
                if matches!(question, Question::SourceTime { .. }) {
                    let asked = rounds.iter().flatten().any(|asked| asked == question);
                    assert!(!asked, "asked again: {question:?}");
                    answers.time(question.clone(), TimeAnswer::Known(1_600_000_000));
                    continue;
                }
                assert!(answers.get(question).is_none(), "asked again: {question:?}");
                let known = |(name, _): &&(String, _)| name == question.reference();
                let known = self.images.iter().find(known);
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
            for question in questions {
                let layout = match question {
                    Question::ImageConfig { .. } => "",
                    Question::LayoutConfig { .. } => "layout ",
                    Question::SourceTime { url } => {
                        let of = url.as_deref().unwrap_or("the context");
                        writeln!(out, "round {}: time of {of}", number + 1).unwrap();
                        continue;
                    }
                };
                let (reference, platform) = (question.reference(), question.platform());
                writeln!(out, "round {}: {layout}{reference} {platform}", number + 1).unwrap();
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
        writeln!(
            out,
            "unused build args: {}",
            lowered.unused_build_args.join(" ")
        )
        .unwrap();
    }
}

#[test]
fn assumed_images_are_named() {
    let text = "FROM golang AS a\nFROM me/known\nCOPY --from=a /x /y\n";
    let mut case = Case::new(text, "");
    case.option("image", "docker.io/me/known:latest {}");
    let lowered = case.lower().1.unwrap();
    let plan = &lowered.plan;
    let names: Vec<&str> = lowered
        .assumed
        .iter()
        .map(|node| plan.display[node].name.as_str())
        .collect();
    assert_eq!(names, ["FROM golang"]);
    assert_eq!(plan.pins.len(), 1);
}

fn render_diagnostics(out: &mut String, text: &str, diagnostics: &[Diagnostic]) {
    let index = LineIndex::new(text);
    for diagnostic in diagnostics {
        let place = index.position(text, diagnostic.span.start);
        let severity = if diagnostic.is_error() {
            "error"
        } else {
            "warning"
        };
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

/// Returns the plan of a Dockerfile whose bases are assumed.
fn plan(text: &str) -> Box<Lowered> {
    let (_, outcome) = Case::new(text, "").lower();
    outcome.unwrap_or_else(|diagnostics| panic!("{text}: {diagnostics:?}"))
}

/// Returns the digests of all nodes of a plan.
fn digests(text: &str) -> BTreeSet<NodeDigest> {
    let graph = plan(text).plan.graph;
    graph.ids().map(|id| graph.digest(id)).collect()
}

#[track_caller]
fn check_history(instruction: &str, expected: &[&str]) {
    let lowered = plan(&format!("FROM alpine\n{instruction}\n"));
    let config = lowered.plan.results[""].config.clone().unwrap();
    let lines: Vec<String> = config
        .history
        .iter()
        .map(|line| {
            assert_eq!(line.comment, "buildkit.dockerfile.v0");
            let mark = if line.empty_layer { '-' } else { '+' };
            format!("{mark}{}", line.created_by)
        })
        .collect();
    assert_eq!(lines, expected, "{instruction}");
}

#[test]
fn history_of_layers() {
    check_history("RUN make", &["+RUN /bin/sh -c make # buildkit"]);
    check_history("RUN [\"a\", \"b c\"]", &["+RUN a b c # buildkit"]);
    check_history("COPY a b /c/", &["+COPY a b /c/ # buildkit"]);
    check_history("COPY --link a .", &["+COPY a . # buildkit"]);
    check_history(
        "COPY --parents --chmod=644 --chown=1:2 a /b",
        &["+COPY --parents --chown=1:2 --chmod=644 a /b # buildkit"],
    );
    check_history("ADD a.tar /", &["+ADD a.tar / # buildkit"]);
    check_history("COPY <<f /x\nhi\nf", &["+COPY <<f /x # buildkit"]);
    check_history("WORKDIR /a/../b", &["+WORKDIR /a/../b"]);
    check_history("WORKDIR a/../b/", &["+WORKDIR /b"]);
    check_history("WORKDIR /", &["-WORKDIR /"]);
}

#[test]
fn history_of_arguments() {
    check_history(
        "ARG B=2 A\nRUN x",
        &["-ARG B=2 A", "+RUN |2 B=2 A= /bin/sh -c x # buildkit"],
    );
    check_history(
        "ARG A=1\nARG A=2\nRUN x",
        &[
            "-ARG A=1",
            "-ARG A=2",
            "+RUN |1 A=2 /bin/sh -c x # buildkit",
        ],
    );
    check_history(
        "ARG A=1\nENV A=env\nRUN x",
        &[
            "-ARG A=1",
            "-ENV A=env",
            "+RUN |1 A=env /bin/sh -c x # buildkit",
        ],
    );
}

#[test]
fn history_of_config() {
    check_history("ENV A=\"b c\" D=e", &["-ENV A=b c D=e"]);
    check_history("ENV A b c", &["-ENV A=b c"]);
    check_history("LABEL a=b \"c d\"=e", &["-LABEL a=b c d=e"]);
    check_history("CMD [\"a\", \"b\\n\"]", &["-CMD [\"a\" \"b\\n\"]"]);
    check_history("CMD []", &["-CMD []"]);
    check_history("CMD run", &["-CMD [\"/bin/sh\" \"-c\" \"run\"]"]);
    check_history("ENTRYPOINT [\"x\"]", &["-ENTRYPOINT [\"x\"]"]);
    check_history("SHELL [\"a\", \"-c\"]", &["-SHELL [a -c]"]);
    check_history("EXPOSE 80 443/udp", &["-EXPOSE [443/udp 80/tcp]"]);
    check_history("VOLUME /a /b", &["-VOLUME [/a /b]"]);
    check_history("USER app", &["-USER app"]);
    check_history("STOPSIGNAL 9", &["-STOPSIGNAL 9"]);
    check_history("MAINTAINER Ann", &["-MAINTAINER Ann"]);
    check_history("ONBUILD RUN x", &[]);
    check_history(
        "HEALTHCHECK --interval=5s CMD a b",
        &[
            "-HEALTHCHECK {Test:[CMD-SHELL a b] Interval:5s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
        ],
    );
}

#[track_caller]
fn check_syntax(syntax: &str, is_ours: bool) {
    let text = format!("{syntax}\nFROM alpine\n");
    let (_, outcome) = Case::new(&text, "").lower();
    let codes: Vec<&str> = match &outcome {
        Ok(_) => Vec::new(),
        Err(diagnostics) => diagnostics.iter().map(|error| error.code).collect(),
    };
    let expected: &[&str] = match is_ours {
        true => &[],
        false => &["unsupported-syntax"],
    };
    assert_eq!(codes, expected, "{syntax}");
}

#[test]
fn frontends_that_are_built_in() {
    check_syntax("# syntax=docker/dockerfile", true);
    check_syntax("# syntax=docker/dockerfile:1", true);
    check_syntax("# syntax=docker/dockerfile:1.20.0", true);
    check_syntax("# syntax=docker/dockerfile:1.7-labs", true);
    check_syntax("# syntax=docker/dockerfile:experimental", true);
    check_syntax("# syntax=docker/dockerfile:master-labs", true);
    check_syntax("# syntax=docker/dockerfile-upstream:master", true);
    check_syntax("# syntax=docker.io/docker/dockerfile:1", true);
    check_syntax("# syntax = docker.io/docker/dockerfile-upstream:labs", true);
    let digest = "0123456789abcdef".repeat(4);
    check_syntax(&format!("# syntax=docker/dockerfile@sha256:{digest}"), true);
    check_syntax(
        &format!("# syntax=docker.io/docker/dockerfile:1@sha256:{digest}"),
        true,
    );
    check_syntax("#syntax=docker/dockerfile:1 --with words", true);
    check_syntax("#!/usr/bin/env kiln\n# syntax=docker/dockerfile:1", true);
}

#[test]
fn files_for_front_ends_from_outside_are_not_lowered() {
    check_syntax("# syntax=docker/dockerfile2:1", false);
    check_syntax("# syntax=tonistiigi/dockerfile:runmount20180607", false);
    check_syntax("# syntax=ghcr.io/docker/dockerfile:1", false);
    check_syntax("# syntax=r2d4/mockerfile", false);
    check_syntax("# syntax=dockerfile", false);
    check_syntax("# syntax=docker/dockerfile/x", false);
}

#[test]
fn a_copy_at_the_end_changes_no_earlier_node() {
    let before =
        "FROM alpine\nWORKDIR /app\nCOPY go.mod .\nRUN go mod download\nCOPY src src\nRUN make\n";
    let after = format!("{before}COPY docs /docs\nCOPY . /all\n");
    let (before, after) = (digests(before), digests(&after));
    assert!(before.is_subset(&after));
    assert_eq!(after.len(), before.len() + 2);
}

#[test]
fn names_comments_and_space_change_no_node() {
    let one = "FROM alpine AS a\nRUN make\nENV X=1\nFROM a\nCOPY --from=a /x /y\n";
    let two = "# syntax=docker/dockerfile:1\n\n# hello\nfrom   alpine as other\n\nrun    make\n  # aside\nEnv X 1\nFROM other AS last\ncopy --from=0   /x \\\n  # more\n  /y\n";
    assert_eq!(digests(one), digests(two));
}

#[test]
fn the_same_input_gives_the_same_plan() {
    let text = "FROM golang AS a\nRUN make\nFROM alpine\nCOPY --from=a /x /y\nCOPY . .\n";
    assert_eq!(plan(text).plan, plan(text).plan);
}

/// Lowers with every image assumed; whatever comes of it, it comes to an end.
fn survives(text: &str) {
    let case = Case::new(text, "ignore *.log\nbuild-arg A=1\nepoch 1");
    let (rounds, outcome) = case.lower();
    assert!(
        rounds.len() <= 1,
        "assumed images bring no triggers: {text}"
    );
    if let Ok(lowered) = outcome {
        lowered.plan.validate().unwrap();
    }
}

#[test]
fn a_huge_plan_is_refused() {
    let mut text = format!("FROM alpine\nENV A={}\n", "x".repeat(1000));
    text.push_str(&"ENV A=$A$A\n".repeat(8));
    text.push_str(&"RUN true\n".repeat(1000));
    let (_, outcome) = Case::new(&text, "").lower();
    let codes: Vec<&str> = outcome
        .unwrap_err()
        .iter()
        .map(|error| error.code)
        .collect();
    assert_eq!(codes, ["plan-too-large"]);
}

#[test]
fn many_stages_need_no_stack() {
    let mut text = "FROM scratch AS s0\n".to_owned();
    for stage in 1..3000 {
        writeln!(
            text,
            "FROM s{} AS s{stage}\nCOPY --from=s{} a /",
            stage - 1,
            stage / 2
        )
        .unwrap();
    }
    survives(&text);
}

#[test]
fn too_many_triggers_are_refused() {
    let mut text = format!("FROM scratch AS base\n{}", "ONBUILD USER u\n".repeat(700));
    for stage in 0..100 {
        writeln!(text, "FROM base AS s{stage}").unwrap();
    }
    text.push_str("FROM scratch\n");
    for stage in 0..100 {
        writeln!(text, "COPY --from=s{stage} a /").unwrap();
    }
    let (_, outcome) = Case::new(&text, "").lower();
    let codes: Vec<&str> = outcome
        .unwrap_err()
        .iter()
        .map(|error| error.code)
        .collect();
    assert_eq!(codes, ["too-many-triggers"]);
}

/// The text of all cases, one after the other.
fn corpus() -> Vec<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/lower");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "Dockerfile"))
        .collect();
    files.sort();
    files
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn triggers_of_any_kind_never_panic(
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1usize..5), 0..5),
        noise in "[ -~\n]{0,12}",
    ) {
        let corpus = corpus();
        let mut on_build = vec![noise];
        for (file, line, count) in picks {
            let lines: Vec<&str> = corpus[file.index(corpus.len())].split_inclusive('\n').collect();
            let start = line.index(lines.len());
            on_build.push(lines[start..].iter().take(count).copied().collect());
        }
        let mut config = ImageConfig::default();
        config.config.on_build = on_build;
        let mut case = Case::new("FROM alpine AS a\nRUN x\nFROM a AS b\nCOPY --from=a x y\n", "");
        let digest = format!("sha256:{}", "0".repeat(64));
        let answer = ImageAnswer::Resolved { config: Box::new(config), digest };
        case.images.push(("docker.io/library/alpine:latest".to_owned(), answer));
        let (rounds, outcome) = case.lower();
        prop_assert!(rounds.len() <= 2);
        if let Ok(lowered) = outcome {
            lowered.plan.validate().unwrap();
        }
    }

    #[test]
    fn mutated_files_never_panic(
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..12),
        edits in prop::collection::vec((any::<prop::sample::Index>(), "[ -~\n\t]{0,3}", 0usize..4), 0..6),
    ) {
        let corpus = corpus();
        let mut text = String::from("FROM alpine AS a\n");
        for (file, line) in picks {
            let lines: Vec<&str> = corpus[file.index(corpus.len())].split_inclusive('\n').collect();
            let start = line.index(lines.len());
            text.extend(lines[start..].iter().take(6).copied());
        }
        for (place, insert, drop) in edits {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let at = place.index(places.len());
            let end = places.get(at + drop).copied().unwrap_or(text.len());
            text.replace_range(places[at]..end, &insert);
            if text.is_empty() {
                text.push('F');
            }
        }
        survives(&text);
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
