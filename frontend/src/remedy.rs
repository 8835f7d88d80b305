//! Ways out: what to do about a finding whose author names nothing better.

use crate::dockerfile::lint::Rule;

/// Returns what to do about a warning of `rule`.
pub(crate) fn of_rule(rule: Rule) -> &'static str {
    match rule {
        Rule::StageNameCasing => "write the name in lower case; references find it in any case",
        Rule::FromAsCasing => "write both keywords in the same case",
        Rule::NoEmptyContinuation => "remove the line, or make it a comment",
        Rule::ConsistentInstructionCasing => "write all instructions in the same case",
        Rule::DuplicateStageName => "choose another name: references would find the later stage",
        Rule::ReservedStageName => "choose another name",
        Rule::JSONArgsRecommended => {
            "write it as a JSON array, or choose the shell on purpose with SHELL"
        }
        Rule::MaintainerDeprecated => "use `LABEL org.opencontainers.image.authors=...`",
        Rule::UndefinedArgInFrom => "declare it before the first FROM: `ARG NAME=default`",
        Rule::WorkdirRelativePath => "begin with an absolute path, as in `WORKDIR /app`",
        Rule::UndefinedVar => "declare it above: `ARG NAME`",
        Rule::MultipleInstructionsDisallowed => "remove the one that has no effect",
        Rule::LegacyKeyValueFormat => "put `=` between key and value",
        Rule::RedundantTargetPlatform => "leave --platform out",
        Rule::SecretsUsedInArgOrEnv => "mount it: `RUN --mount=type=secret,id=...`",
        Rule::InvalidDefaultArgInFrom => "give the argument a default that makes an image name",
        Rule::InvalidBaseImagePlatform => {
            "choose an image that has the platform, or say --platform where another is meant"
        }
        Rule::FromPlatformFlagConstDisallowed => {
            "leave it to `kiln build --platform`, use $BUILDPLATFORM, or name the stage after it"
        }
        Rule::CopyIgnoredFile => {
            "copy something else, or take the file back in with a `!` line in the ignore file"
        }
        Rule::InvalidDefinitionDescription => {
            "leave an empty line below a comment that describes nothing"
        }
        Rule::ExposeProtoCasing => "write it in lower case",
        Rule::ExposeInvalidFormat => {
            "name the container's port alone: it is published where the container is run"
        }
    }
}

/// Returns what to do about an error of that code, where the message does not say it itself.
pub(crate) fn of_error(code: &str) -> Option<&'static str> {
    Some(match code {
        "blank-base-name" => "give the argument a default, or a value with --build-arg",
        "blank-name" => "write a name before the `=`",
        "circular-dependency" => "take one of these references out, or split a stage in two",
        "duplicate-directive" => "keep one of them",
        "duplicate-flag" => "give the flag once",
        "empty-command" => "write what to run after RUN",
        "empty-volume" | "invalid-volume" => "name a path, as in `VOLUME /data`",
        "expansion" => "write `\\$` where a dollar is meant, and quotes in pairs",
        "forbidden-trigger" => "write the instruction itself in the image that needs it",
        "healthcheck-type" => {
            "as in `HEALTHCHECK CMD curl -f http://localhost/` or `HEALTHCHECK NONE`"
        }
        "heredoc-destination" => "name the destination last, after the heredocs",
        "invalid-chmod" => "as in --chmod=644, or --chmod=u=rwX,go=rX",
        "invalid-check" => "as in `# check=skip=JSONArgsRecommended;error=true`",
        "invalid-device" => "as in --device=vendor.example/class=name,required",
        "invalid-duration" => "as in 30s, 1m30s or 500ms",
        "invalid-escape" => "a backslash or a backtick can be chosen",
        "invalid-ignore-pattern" => {
            "escape `[` and `\\` with a backslash where they are meant themselves"
        }
        "invalid-mount" => "as in --mount=type=cache,target=/root/.cache",
        "invalid-platform" => "as in linux/amd64 or linux/arm64/v8",
        "invalid-port" => "as in `EXPOSE 80`, `EXPOSE 53/udp` or `EXPOSE 8000-8010`",
        "invalid-retries" => "give 0 or more",
        "invalid-signal" => "as in SIGTERM, TERM or 15",
        "invalid-stage-name" => "begin with a letter, go on with letters, digits, `-`, `_` and `.`",
        "json-not-strings" => "put every element in double quotes, or write the command as text",
        "lint-violation" => "mend what is warned of, or leave `error=true` out",
        "missing-equals" => "write NAME=value for every pair, or quote a value with spaces",
        "missing-pair" => "as in `ENV NAME=value`",
        "missing-value" => "write --flag=value, without a space",
        "no-source" => "name a file, or write one in a heredoc",
        "no-stages" => "begin a stage with FROM",
        "not-json" => "as in `SHELL [\"/bin/bash\", \"-c\"]`",
        "not-utf8" => "save the file as UTF-8",
        "plan-too-large" => "look for a value that doubles itself, or split the file",
        "stage-defined-later" => "move the stage that is copied from above this one",
        "too-large" => "keep data in files of the context, and copy them",
        "unknown-target" => "`kiln build --call targets` lists the stages that have a name",
        "unterminated-heredoc" => "end it with its delimiter alone on a line, in the first column",
        "variable-in-from" => "as in `ARG V`, then `FROM image:$V AS name` and `--from=name`",
        _ => return None,
    })
}

/// Returns an instruction as it is meant to be written.
pub(crate) fn usage(instruction: &str) -> Option<&'static str> {
    Some(match instruction {
        "ADD" => "ADD https://example.com/file /opt/",
        "ARG" => "ARG VERSION=1.0",
        "COPY" => "COPY src/ /app/",
        "ENV" => "ENV NAME=value",
        "EXPOSE" => "EXPOSE 80",
        "FROM" => "FROM image AS name",
        "HEALTHCHECK" => "HEALTHCHECK CMD curl -f http://localhost/",
        "LABEL" => "LABEL key=value",
        "MAINTAINER" => "MAINTAINER name",
        "STOPSIGNAL" => "STOPSIGNAL SIGTERM",
        "USER" => "USER name",
        "VOLUME" => "VOLUME /data",
        "WORKDIR" => "WORKDIR /app",
        _ => return None,
    })
}
