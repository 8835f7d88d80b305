//! Every lint rule: where it fires, with its words and its place, and where it does not.
//!
//! A finding is written `LINES LINE:COLUMN TEXT MESSAGE`: the lines that tools are told, then where
//! the caret stands and what it marks.

#![allow(missing_docs, clippy::unwrap_used)]

use kiln_frontend::diagnostic::Diagnostic;
use kiln_frontend::dockerfile;
use kiln_frontend::dockerfile::lint::{self, Rule};
use kiln_frontend::dockerfile::span::LineIndex;
use kiln_frontend::lower::{Answers, ImageAnswer, LowerInput, Lowering, lower};
use kiln_ir::{ImageConfig, Platform};

/// What a check is told beside the text.
#[derive(Clone, Copy, Default)]
struct Given<'g> {
    /// `NAME=VALUE`
    build_args: &'g [&'g str],
    ignore: &'g [&'g str],
    target: Option<&'g str>,
    /// Only what the target needs, as in a build.
    building: bool,
    /// The config of every base image.
    base: &'g str,
}

const PLAIN: &str = r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]}}"#;

impl Given<'_> {
    fn input(&self, text: &str) -> LowerInput {
        let arg = |pair: &&str| {
            let (name, value) = pair.split_once('=').unwrap();
            (name.to_owned(), Some(value.to_owned()))
        };
        LowerInput {
            text: text.into(),
            file_name: "Dockerfile".to_owned(),
            build_args: self.build_args.iter().map(arg).collect(),
            ignore: self.ignore.iter().map(|&line| line.to_owned()).collect(),
            target: self.target.map(str::to_owned),
            every_stage: !self.building && self.target.is_none(),
            build_platform: Platform::linux("amd64"),
            ..LowerInput::default()
        }
    }

    fn findings(&self, text: &str) -> Vec<Diagnostic> {
        let input = self.input(text);
        let mut answers = Answers::default();
        loop {
            match lower(&input, &answers) {
                Lowering::Lowered(lowered) => return lowered.diagnostics,
                Lowering::Failed(diagnostics) => return diagnostics,
                Lowering::Needs(questions) => {
                    for question in questions {
                        let json = if self.base.is_empty() {
                            PLAIN
                        } else {
                            self.base
                        };
                        let config = ImageConfig::from_json(json.as_bytes()).unwrap();
                        let answer = ImageAnswer::Resolved {
                            config: Box::new(config),
                            digest: format!("sha256:{}", "0".repeat(64)),
                        };
                        answers.image(question, answer);
                    }
                }
            }
        }
    }

    #[track_caller]
    fn check(&self, rule: Rule, text: &str, expected: &[&str]) {
        let parsed = dockerfile::parse(text);
        let index = LineIndex::new(text);
        let findings = self.findings(text);
        let found: Vec<String> = findings
            .iter()
            .filter(|finding| finding.code == rule.name())
            .map(|finding| {
                assert!(!finding.is_error());
                assert_eq!(finding.url, rule.url());
                assert!(finding.help.is_some(), "{rule:?} has no way out");
                let lines = lint::lines(finding, &parsed.dockerfile, text, &index);
                let lines = match lines.first == lines.last {
                    true => lines.first.to_string(),
                    false => format!("{}-{}", lines.first, lines.last),
                };
                let place = index.position(text, finding.span.start);
                format!(
                    "{lines} {}:{} {:?} {}",
                    place.line,
                    place.column,
                    finding.span.of(text),
                    finding.message
                )
            })
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    fn codes(&self, text: &str) -> String {
        let findings = self.findings(text);
        let codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
        codes.join(" ")
    }
}

#[track_caller]
fn check(rule: Rule, text: &str, expected: &[&str]) {
    Given::default().check(rule, text, expected);
}

#[test]
fn stage_name_casing() {
    let rule = Rule::StageNameCasing;
    check(
        rule,
        "FROM a AS Base\n",
        &["1 1:11 \"Base\" Stage name 'Base' should be lowercase"],
    );
    check(
        rule,
        "FROM a \\\n AS X\n",
        &["1-2 2:5 \"X\" Stage name 'X' should be lowercase"],
    );
    check(rule, "FROM a AS base-1_2.3\nFROM A.b/c\n", &[]);
}

#[test]
fn from_as_casing() {
    let rule = Rule::FromAsCasing;
    check(
        rule,
        "FROM a as b\n",
        &["1 1:8 \"as\" 'as' and 'FROM' keywords' casing do not match"],
    );
    check(
        rule,
        "from a AS b\n",
        &["1 1:8 \"AS\" 'AS' and 'from' keywords' casing do not match"],
    );
    check(
        rule,
        "FROM a As b\n",
        &["1 1:8 \"As\" 'As' and 'FROM' keywords' casing do not match"],
    );
    check(rule, "FROM a AS b\nfrom a as c\n", &[]);
    // The casing of FROM itself is another rule's.
    check(rule, "From a as b\nFrom a AS c\n", &[]);
}

#[test]
fn no_empty_continuation() {
    let rule = Rule::NoEmptyContinuation;
    // Told where the instruction ends, marked where the line is.
    check(
        rule,
        "FROM a\nCOPY x \\\n\n.\n",
        &["4 3:1 \"\" Empty continuation line"],
    );
    check(
        rule,
        "FROM a\nRUN a \\\n  \\\n\n\n  # c\n b <<E\nbody\nE\n",
        &["7 4:1 \"\" Empty continuation line"],
    );
    check(
        rule,
        "FROM a\nRUN a \\\n\n",
        &["3 3:1 \"\" Empty continuation line"],
    );
    check(rule, "FROM a\nRUN a \\\n# c\n b\n\nRUN c\n", &[]);
}

#[test]
fn consistent_instruction_casing() {
    let rule = Rule::ConsistentInstructionCasing;
    let message = |name: &str, case: &str| {
        format!("Command '{name}' should match the case of the command majority ({case})")
    };
    check(
        rule,
        "FROM a\ncopy x /\nCOPY x /\n",
        &[&format!("2 2:1 \"copy\" {}", message("copy", "uppercase"))],
    );
    check(
        rule,
        "from a\nCOPY x /\ncopy x /\n",
        &[&format!("2 2:1 \"COPY\" {}", message("COPY", "lowercase"))],
    );
    check(
        rule,
        "From a as b\nFROM a AS c\n",
        &[&format!("1 1:1 \"From\" {}", message("From", "uppercase"))],
    );
    // A draw goes to upper case.
    check(
        rule,
        "FROM a\nrun x\n",
        &[&format!("2 2:1 \"run\" {}", message("run", "uppercase"))],
    );
    check(rule, "from a\nrun x\n", &[]);
    // Arguments before the first FROM are not counted.
    check(rule, "arg x\nFROM a\nRUN x\n", &[]);
    check(rule, "FROM a\nRUN <<E\nrun run\nE\n", &[]);
}

#[test]
fn duplicate_stage_name() {
    let rule = Rule::DuplicateStageName;
    check(
        rule,
        "FROM a AS b\nFROM a AS B\n",
        &["2 2:11 \"B\" Duplicate stage name \"b\", stage names should be unique"],
    );
    check(
        rule,
        "FROM a AS b\nFROM a AS b\nFROM a AS b\n",
        &[
            "2 2:11 \"b\" Duplicate stage name \"b\", stage names should be unique",
            "3 3:11 \"b\" Duplicate stage name \"b\", stage names should be unique",
        ],
    );
    check(rule, "FROM a AS b1\nFROM a AS b2\nFROM a\nFROM a\n", &[]);
}

#[test]
fn reserved_stage_name() {
    let rule = Rule::ReservedStageName;
    check(
        rule,
        "FROM scratch AS scratch\nFROM scratch AS Context\n",
        &[
            "1 1:17 \"scratch\" Stage name should not use the same name as reserved stage \"scratch\"",
            "2 2:17 \"Context\" Stage name should not use the same name as reserved stage \"context\"",
        ],
    );
    check(rule, "FROM scratch\nFROM scratch AS a\n", &[]);
}

#[test]
fn json_args_recommended() {
    let rule = Rule::JSONArgsRecommended;
    let message =
        "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals";
    check(
        rule,
        "FROM scratch\nCMD run it\n",
        &[&format!("2 2:1 \"CMD run it\" {message}")],
    );
    check(
        rule,
        "FROM scratch\nENTRYPOINT run \\\n it\n",
        &[&format!(
            "2-3 2:1 \"ENTRYPOINT run \\\\\\n it\" {}",
            message.replace("CMD", "ENTRYPOINT")
        )],
    );
    check(
        rule,
        "FROM scratch\nCMD [\"run\"]\nENTRYPOINT [\"it\"]\n",
        &[],
    );
    check(rule, "FROM scratch\nSHELL [\"x\"]\nCMD run\n", &[]);
    check(
        rule,
        "FROM scratch AS a\nSHELL [\"x\"]\nFROM a\nENTRYPOINT run\n",
        &[],
    );
    let given = Given {
        base: r#"{"architecture":"amd64","os":"linux","config":{"Shell":["/bin/bash","-c"]}}"#,
        ..Given::default()
    };
    given.check(rule, "FROM a\nCMD run\n", &[]);
}

#[test]
fn maintainer_deprecated() {
    let rule = Rule::MaintainerDeprecated;
    check(
        rule,
        "FROM a\nMAINTAINER me\n",
        &["2 2:1 \"MAINTAINER me\" Maintainer instruction is deprecated in favor of using label"],
    );
    check(rule, "FROM a\nLABEL maintainer=me\n", &[]);
}

#[test]
fn undefined_arg_in_from() {
    let rule = Rule::UndefinedArgInFrom;
    check(
        rule,
        "FROM --platform=$BULIDPLATFORM scratch\n",
        &[
            "1 1:17 \"$BULIDPLATFORM\" FROM argument 'BULIDPLATFORM' is not declared (did you mean BUILDPLATFORM?)",
        ],
    );
    check(
        rule,
        "ARG tag=latest\nFROM busybox:${tag}${version} AS b\n",
        &["2 2:20 \"${version}\" FROM argument 'version' is not declared"],
    );
    check(rule, "ARG base=scratch\nFROM $base\n", &[]);
    check(rule, "FROM --platform=$BUILDPLATFORM scratch\n", &[]);
    check(rule, "ARG DEBUG\nFROM scratch${DEBUG}\n", &[]);
    check(rule, "ARG DEBUG\nFROM scra${DEBUG:-tch}\n", &[]);
    check(rule, "ARG DEBUG=\"\"\nFROM scratch${DEBUG-@bogus}\n", &[]);
}

#[test]
fn workdir_relative_path() {
    let rule = Rule::WorkdirRelativePath;
    check(
        rule,
        "FROM scratch\nWORKDIR app/\n",
        &[
            "2 2:9 \"app/\" Relative workdir \"app/\" can have unexpected results if the base image changes",
        ],
    );
    check(rule, "FROM scratch\nWORKDIR /app\nWORKDIR sub\n", &[]);
    check(
        rule,
        "FROM scratch AS a\nWORKDIR /app\nFROM a\nWORKDIR sub\n",
        &[],
    );
}

#[test]
fn undefined_var() {
    let rule = Rule::UndefinedVar;
    check(
        rule,
        "FROM a\nCOPY $foo .\nARG foo=bar\nRUN echo $foo\n",
        &["2 2:6 \"$foo\" Usage of undefined variable '$foo'"],
    );
    check(
        rule,
        "FROM a\nARG DIR_ASSETS=a\nCOPY x${DIR_ASSET}y \\\n .\n",
        &[
            "3-4 3:7 \"${DIR_ASSET}\" Usage of undefined variable '$DIR_ASSET' (did you mean $DIR_ASSETS?)",
        ],
    );
    check(
        rule,
        "FROM a\nENV PATH=$PAHT:/tmp/bin\n",
        &["2 2:10 \"$PAHT\" Usage of undefined variable '$PAHT' (did you mean $PATH?)"],
    );
    check(
        rule,
        "FROM a\nCOPY <<E /x\nline\n$nope\nE\n",
        &["2-5 4:1 \"$nope\" Usage of undefined variable '$nope'"],
    );
    check(rule, "FROM a\nARG foo\nCOPY x${foo} .\n", &[]);
    check(rule, "FROM a AS b\nARG foo=x\nFROM b\nCOPY $foo .\n", &[]);
    check(rule, "FROM a\nRUN echo $nope $PATH\n", &[]);
    check(rule, "FROM a\nENV P=$PATH:x\n", &[]);
    check(rule, "FROM a\nCOPY <<'E' /x\n$nope\nE\n", &[]);
    check(rule, "FROM a\nCOPY '$nope' \\$nope .\n", &[]);
    check(
        rule,
        "ARG foo=1\nFROM a\nCOPY $foo .\n",
        &["3 3:6 \"$foo\" Usage of undefined variable '$foo'"],
    );
}

#[test]
fn multiple_instructions_disallowed() {
    let rule = Rule::MultipleInstructionsDisallowed;
    let message = |name: &str| {
        format!(
            "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
        )
    };
    check(
        rule,
        "FROM scratch\nENTRYPOINT [\"a\"]\nENTRYPOINT [\"b\"]\nCMD [\"a\"]\nHEALTHCHECK NONE\nCMD [\"b\"]\nHEALTHCHECK CMD a\n",
        &[
            &format!("2 2:1 \"ENTRYPOINT [\\\"a\\\"]\" {}", message("ENTRYPOINT")),
            &format!("4 4:1 \"CMD [\\\"a\\\"]\" {}", message("CMD")),
            &format!("5 5:1 \"HEALTHCHECK NONE\" {}", message("HEALTHCHECK")),
        ],
    );
    check(
        rule,
        "FROM scratch AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]\n",
        &[],
    );
}

#[test]
fn legacy_key_value_format() {
    let rule = Rule::LegacyKeyValueFormat;
    check(
        rule,
        "FROM a\nENV k v w\nLABEL k v\n",
        &[
            "2 2:1 \"ENV k v w\" \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            "3 3:1 \"LABEL k v\" \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format",
        ],
    );
    check(rule, "FROM a\nENV k=v w=x\nLABEL k=\"v w\"\n", &[]);
    // Stages that a build does not need are checked only where everything is.
    let text = "FROM scratch AS a\nFROM a AS b\nENV k v\nFROM a AS c\n";
    let building = Given {
        building: true,
        ..Given::default()
    };
    building.check(rule, text, &[]);
    check(
        rule,
        text,
        &[
            "3 3:1 \"ENV k v\" \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
        ],
    );
}

#[test]
fn redundant_target_platform() {
    let rule = Rule::RedundantTargetPlatform;
    for variable in ["$TARGETPLATFORM", "${TARGETPLATFORM}"] {
        check(
            rule,
            &format!("FROM --platform={variable} scratch\n"),
            &[&format!(
                "1 1:17 \"{variable}\" Setting platform to predefined {variable} in FROM is redundant as this is the default behavior"
            )],
        );
    }
    check(rule, "FROM --platform=$BUILDPLATFORM scratch\n", &[]);
    check(rule, "FROM --platform=linux/$TARGETARCH scratch\n", &[]);
}

#[test]
fn secrets_used_in_arg_or_env() {
    let rule = Rule::SecretsUsedInArgOrEnv;
    let message = |instruction: &str, name: &str| {
        format!("Do not use ARG or ENV instructions for sensitive data ({instruction} \"{name}\")")
    };
    check(
        rule,
        "FROM scratch\nARG SECRET_PASSPHRASE\nENV SUPER_Secret=foo\nENV password=bar secret=baz\nENV git_key=\n",
        &[
            &format!(
                "2 2:5 \"SECRET_PASSPHRASE\" {}",
                message("ARG", "SECRET_PASSPHRASE")
            ),
            &format!("3 3:5 \"SUPER_Secret\" {}", message("ENV", "SUPER_Secret")),
            &format!("4 4:5 \"password\" {}", message("ENV", "password")),
            &format!("4 4:18 \"secret\" {}", message("ENV", "secret")),
            &format!("5 5:5 \"git_key\" {}", message("ENV", "git_key")),
        ],
    );
    check(
        rule,
        "FROM scratch\nENV PUBLIC_KEY=x KEYBOARD=de TOKEN_FILE=/x KEY_VERSION=1\nARG public_token\n",
        &[],
    );
}

#[test]
fn invalid_default_arg_in_from() {
    let rule = Rule::InvalidDefaultArgInFrom;
    let given = Given {
        build_args: &["VERSION=latest"],
        ..Given::default()
    };
    given.check(
        rule,
        "ARG VERSION\nFROM busybox:$VERSION\n",
        &["2 2:6 \"busybox:$VERSION\" Default value for ARG busybox:$VERSION results in empty or invalid base image name"],
    );
    let given = Given {
        build_args: &["IMAGE=busybox:latest"],
        ..Given::default()
    };
    given.check(
        rule,
        "ARG IMAGE\nFROM $IMAGE\n",
        &["2 2:6 \"$IMAGE\" Default value for ARG $IMAGE results in empty or invalid base image name"],
    );
    check(rule, "ARG VERSION=latest\nFROM busybox:${VERSION}\n", &[]);
    check(rule, "ARG V\nFROM busybox:stable${V}\n", &[]);
}

#[test]
fn invalid_base_image_platform() {
    let rule = Rule::InvalidBaseImagePlatform;
    let given = Given {
        base: r#"{"architecture":"arm64","os":"linux"}"#,
        ..Given::default()
    };
    given.check(
        rule,
        "FROM busybox\nRUN x\n",
        &["1 1:1 \"FROM busybox\" Base image busybox was pulled with platform \"linux/arm64\", expected \"linux/amd64\" for current build"],
    );
    check(rule, "FROM busybox\n", &[]);
    given.check(rule, "FROM --platform=linux/arm64 busybox\n", &[]);
}

#[test]
fn from_platform_flag_const_disallowed() {
    let rule = Rule::FromPlatformFlagConstDisallowed;
    check(
        rule,
        "FROM --platform=linux/amd64 scratch\n",
        &[
            "1 1:17 \"linux/amd64\" FROM --platform flag should not use constant value \"linux/amd64\"",
        ],
    );
    check(
        rule,
        "FROM --platform=linux/amd64 scratch AS my_amd64_stage\n",
        &[],
    );
    check(rule, "FROM --platform=linux/amd64 scratch AS linux\n", &[]);
    check(rule, "FROM --platform=$BUILDPLATFORM scratch\n", &[]);
}

#[test]
fn copy_ignored_file() {
    let rule = Rule::CopyIgnoredFile;
    let given = Given {
        ignore: &["Dockerfile", "*.log", "dir"],
        ..Given::default()
    };
    given.check(
        rule,
        "FROM scratch\nCOPY Dockerfile .\nADD ./a.log ok /x/\nCOPY dir/below /\n",
        &[
            "2 2:6 \"Dockerfile\" Attempting to Copy file \"Dockerfile\" that is excluded by .dockerignore",
            "3 3:5 \"./a.log\" Attempting to Add file \"a.log\" that is excluded by .dockerignore",
            "4 4:6 \"dir/below\" Attempting to Copy file \"dir/below\" that is excluded by .dockerignore",
        ],
    );
    given.check(
        rule,
        "FROM scratch AS a\nCOPY x <<dir /\ntext\ndir\nFROM scratch\nCOPY --from=a Dockerfile /\n",
        &[],
    );
    // With a `!` line it cannot be told from the patterns alone.
    let given = Given {
        ignore: &["Dockerfile", "!x"],
        ..Given::default()
    };
    given.check(rule, "FROM scratch\nCOPY Dockerfile .\n", &[]);
    check(rule, "FROM scratch\nCOPY Dockerfile .\n", &[]);
}

#[test]
fn invalid_definition_description() {
    let rule = Rule::InvalidDefinitionDescription;
    let on = "# check=experimental=InvalidDefinitionDescription\n";
    check(
        rule,
        &format!(
            "{on}# bar this is the bar\nARG foo=bar\n# BasE this is the BasE image\nFROM scratch AS base\n# bad\nARG version=latest\n# bad\nARG foo=baz bar=qux\n"
        ),
        &[
            "3 3:5 \"foo\" Comment for ARG should follow the format: `# foo <description>`",
            "5 5:17 \"base\" Comment for FROM should follow the format: `# base <description>`",
            "7 7:5 \"version\" Comment for ARG should follow the format: `# version <description>`",
            "9 9:5 \"foo\" Comment for ARG should follow the format: `# <arg_key> <description>`",
        ],
    );
    check(
        rule,
        &format!(
            "{on}# foo this is the foo\nARG foo=bar\n\n# other\n# base this is it\nFROM scratch AS Base\n# bar is it\nARG foo=baz bar=qux\n#\nARG bit=bat\n# not\n\nARG x\n# for something else\nCOPY x .\n# about no name\nFROM scratch\n"
        ),
        &[],
    );
    check(rule, "# bad\nFROM scratch AS base\n", &[]);
}

#[test]
fn expose_proto_casing() {
    let rule = Rule::ExposeProtoCasing;
    check(
        rule,
        "FROM scratch\nEXPOSE 80/TcP 53/udp\n",
        &["2 2:8 \"80/TcP\" Defined protocol '80/TcP' in EXPOSE instruction should be lowercase"],
    );
    check(
        rule,
        "FROM scratch\nARG P=90/UDP\nEXPOSE $P\n",
        &["3 3:8 \"$P\" Defined protocol '90/UDP' in EXPOSE instruction should be lowercase"],
    );
    check(rule, "FROM scratch\nEXPOSE 80 80/tcp 8000-8002/udp\n", &[]);
}

#[test]
fn expose_invalid_format() {
    let rule = Rule::ExposeInvalidFormat;
    check(
        rule,
        "FROM scratch\nEXPOSE 127.0.0.1:80:80 8080:8080 [::1]:8080:8080\n",
        &[
            "2 2:8 \"127.0.0.1:80:80\" EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'",
            "2 2:24 \"8080:8080\" EXPOSE instruction should not define an IP address or host-port mapping, found '8080:8080'",
            "2 2:34 \"[::1]:8080:8080\" EXPOSE instruction should not define an IP address or host-port mapping, found '[::1]:8080:8080'",
        ],
    );
    check(rule, "FROM scratch\nEXPOSE 80 443/udp\n", &[]);
}

#[track_caller]
fn codes(text: &str, build_args: &[&str], expected: &str) {
    let given = Given {
        build_args,
        ..Given::default()
    };
    assert_eq!(given.codes(text), expected, "{text} with {build_args:?}");
}

/// Two findings, the second of which is about casing too.
const TWO: &str = "FROM scratch as base\ncopy Dockerfile .\n";

#[test]
fn directives() {
    let with = |check: &str| format!("#check={check}\n{TWO}");
    codes(TWO, &[], "FromAsCasing ConsistentInstructionCasing");
    codes(&with("skip=all"), &[], "");
    codes(&with("skip=all;error=true"), &[], "");
    codes(
        &with("skip=ConsistentInstructionCasing,FromAsCasing"),
        &[],
        "",
    );
    codes(
        &with("skip=ConsistentInstructionCasing"),
        &[],
        "FromAsCasing",
    );
    codes(
        &with("skip=ConsistentInstructionCasing;error=true"),
        &[],
        "FromAsCasing lint-violation",
    );
    codes(
        &with("skip=ConsistentInstructionCasing, FromAsCasing;error=true"),
        &[],
        "",
    );
    codes(
        &with("skip=nonsense"),
        &[],
        "FromAsCasing ConsistentInstructionCasing",
    );
    // Skipping does not concern what has to be turned on.
    codes(
        "# check=skip=all;experimental=all\n# odd\nFROM scratch as base\n",
        &[],
        "InvalidDefinitionDescription",
    );
    codes(
        &with("skip"),
        &[],
        "invalid-check FromAsCasing ConsistentInstructionCasing",
    );
}

#[test]
fn build_argument_goes_before_directive() {
    let argument = "BUILDKIT_DOCKERFILE_CHECK=";
    let args = |value: &str| format!("{argument}{value}");
    let skip_one = args("skip=ConsistentInstructionCasing;error=true");
    let all_off = format!("# check=skip=all\n{TWO}");
    codes(&all_off, &[&skip_one], "FromAsCasing lint-violation");
    let strict = format!("# check=error=true\n{TWO}");
    codes(&strict, &[&args("skip=all")], "");
    // What it does not name stays as the file has it.
    codes(
        &strict,
        &[&args("skip=FromAsCasing")],
        "ConsistentInstructionCasing lint-violation",
    );
    codes(
        &strict,
        &[argument],
        "FromAsCasing ConsistentInstructionCasing lint-violation",
    );
    codes(
        TWO,
        &[&args("never=x")],
        "invalid-build-arg FromAsCasing ConsistentInstructionCasing",
    );
}

#[test]
fn comments_skip_for_one_instruction() {
    codes(
        "FROM a\n# check=skip=all\nENV k v\nENV k v\n",
        &[],
        "LegacyKeyValueFormat",
    );
    codes("FROM a\n# check=skip=UndefinedVar\nCOPY $x $y /\n", &[], "");
    codes("# check=skip=all\n\nFROM a as b\n", &[], "");
    codes(
        "FROM a\n# check=skip=all\n\nENV k v\n",
        &[],
        "LegacyKeyValueFormat",
    );
    codes(
        "FROM a AS x\n# check=skip=DuplicateStageName,StageNameCasing\nFROM a AS X\n",
        &[],
        "",
    );
}

#[test]
fn violations_name_the_first_place() {
    let given = Given::default();
    let text = format!("# check=error=true\n{TWO}");
    let findings = given.findings(&text);
    let error = findings.last().unwrap();
    assert!(error.is_error());
    assert_eq!(
        error.message,
        "lint violation found for rules: ConsistentInstructionCasing, FromAsCasing"
    );
    assert_eq!(error.span.of(&text), "as");
    assert_eq!(error.labels[0].0.of(&text), "error=true");
}

#[test]
fn every_stage_is_checked_without_a_target() {
    let text = "FROM scratch AS first\nCOPY $foo .\nFROM scratch AS second\nCOPY $bar .\n";
    let building = Given {
        building: true,
        ..Given::default()
    };
    assert_eq!(building.codes(text), "UndefinedVar");
    assert_eq!(Given::default().codes(text), "UndefinedVar UndefinedVar");
    let first = Given {
        target: Some("first"),
        ..Given::default()
    };
    first.check(
        Rule::UndefinedVar,
        text,
        &["2 2:6 \"$foo\" Usage of undefined variable '$foo'"],
    );
}

#[test]
fn warnings_come_with_errors() {
    codes(
        "FROM scratch AS Bad\nMAINTAINER me\nBADCMD\n",
        &[],
        "StageNameCasing MaintainerDeprecated unknown-instruction",
    );
}

#[test]
fn two_platforms_warn_once() {
    let mut input = Given::default().input("FROM scratch\nCOPY $foo .\n");
    input.platforms = vec![Platform::linux("amd64"), Platform::linux("arm64")];
    let Lowering::Lowered(lowered) = lower(&input, &Answers::default()) else {
        panic!("nothing is to be asked");
    };
    assert_eq!(lowered.diagnostics.len(), 1);
}

#[test]
fn unknown_bases_may_set_variables() {
    let input = Given::default().input("FROM a\nCOPY $foo .\nFROM scratch\nCOPY $bar .\n");
    let mut answers = Answers::default();
    let lowered = loop {
        match lower(&input, &answers) {
            Lowering::Needs(questions) => answers.assume(questions),
            Lowering::Lowered(lowered) => break lowered,
            Lowering::Failed(findings) => panic!("{findings:?}"),
        }
    };
    let found: Vec<&str> = lowered
        .diagnostics
        .iter()
        .map(|finding| finding.span.of(&input.text))
        .collect();
    assert_eq!(found, ["$bar"]);
}
