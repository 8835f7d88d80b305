//! The vocabulary of assertions: where each holds and where not, in its words.

#![allow(clippy::unwrap_used)]

use kiln_ir::expect::{Assertion, NAMES, hold};
use kiln_ir::*;

/// A plan of two stages; `build` makes something for the final one, `app`.
const STAGES: &str = "\
# [build] FROM golang
%0 = image docker.io/library/golang:1 linux/amd64
%1 = local context
# [build] COPY . /src
%2 = file %0 { copy %1:/ -> /src }
# [build] RUN make
%3 = exec %2 [\"/bin/sh\", \"-c\", \"make && curl x\"] env=[\"PATH=/bin\", \"API_TOKEN=x\"] { secret -> /run/s id=netrc }
# [app] FROM distroless
%4 = image gcr.io/distroless/static@sha256:0000000000000000000000000000000000000000000000000000000000000000 linux/amd64
# [app] COPY --from=build /out /
%5 = file %4 { copy %3:/out -> / }
# [app] RUN check
%6 = exec %5 [\"/check\"] user=app:app network=none
result %6 { user=app cmd=[\"/app\"] env=[\"A=1\"] labels={version=1} expose=[\"80/tcp\"] os=linux architecture=amd64 }
";

fn plan(text: &str) -> Plan {
    Snapshot::parse(&format!("# kiln plan snapshot 0\n#\n{text}"))
        .unwrap()
        .plan
}

#[track_caller]
fn check(text: &str, assertion: &str, expected: &str) {
    let said = match hold(&plan(text), &[assertion]) {
        Ok(()) => String::new(),
        Err(unmet) => unmet.to_string(),
    };
    let head = format!("`{assertion}` does not hold: ");
    assert_eq!(said.replace(&head, ""), expected, "{assertion}");
}

#[track_caller]
fn stages(assertion: &str, expected: &str) {
    check(STAGES, assertion, expected);
}

#[track_caller]
fn refused(assertion: &str, expected: &str) {
    assert_eq!(
        Assertion::parse(assertion).unwrap_err().to_string(),
        expected
    );
}

#[test]
fn base_images_pinned() {
    stages(
        "base-images-pinned",
        "`FROM golang` is not pinned to a digest",
    );
    stages("base-images-pinned in app", "");
    let pinned = format!("{STAGES}pin %0 = manifest sha256:{}\n", "1".repeat(64));
    check(&pinned, "base-images-pinned", "");
}

#[test]
fn images_from() {
    stages("images-from docker.io/library/* gcr.io/distroless", "");
    stages("images-from gcr.io/**", "`FROM golang` is from elsewhere");
}

#[test]
fn downloads_verified() {
    let http = |more: &str| format!("# ADD x\n%0 = http https://h/x {more}\nresult %0\n");
    check(&http(""), "downloads-verified", "`ADD x` has no checksum");
    let checksum = format!("checksum=sha256:{}", "1".repeat(64));
    check(&http(&checksum), "downloads-verified", "");
    let pinned = format!("{}pin %0 = checksum sha256:{}\n", http(""), "1".repeat(64));
    check(&pinned, "downloads-verified", "");
    let git = |reference: &str| format!("# ADD y\n%0 = git h/y ref={reference}\nresult %0\n");
    check(
        &git("main"),
        "downloads-verified",
        "`ADD y` has no checksum",
    );
    check(&git(&"a".repeat(40)), "downloads-verified", "");
}

#[test]
fn no_root_runs() {
    stages("no-root-runs", "`RUN make` runs as root");
    stages("no-root-runs in build", "`RUN make` runs as root");
    stages("no-root-runs in app", "");
    stages("no-root-runs in final", "");
    stages("no-root-runs after build", "");
    for user in ["0", "root", "00:5", "root:x"] {
        let text = format!("# [final] RUN x\n%0 = exec scratch [x] user=\"{user}\"\nresult %0\n");
        check(&text, "no-root-runs", "`RUN x` runs as root");
    }
}

#[test]
fn no_network() {
    stages("no-network", "`RUN make` may use the network");
    stages("no-network after build", "");
    stages("no-network in final", "");
}

#[test]
fn no_privileged_runs() {
    stages("no-privileged-runs", "");
    let run = |how: &str| format!("# RUN x\n%0 = exec scratch [x] {how}\nresult %0\n");
    check(
        &run("security=insecure"),
        "no-privileged-runs",
        "`RUN x` runs with all privileges",
    );
    check(
        &run("network=host"),
        "no-privileged-runs",
        "`RUN x` uses the host's network",
    );
}

#[test]
fn runs() {
    stages("no-runs in app", "`RUN check` runs a program");
    stages("never-runs curl", "`RUN make` says `curl`");
    stages("never-runs \"curl x\" in app", "");
    stages("never-runs \"in\" in app", "");
}

#[test]
fn no_whole_context() {
    stages("no-whole-context", "`COPY . /src` copies the whole context");
    stages("no-whole-context in app", "");
}

#[test]
fn secrets() {
    stages("secrets-only netrc", "");
    stages("secrets-only", "`RUN make` takes the secret `netrc`");
    stages(
        "no-secrets-in-environment",
        "`RUN make` has `API_TOKEN` in its environment",
    );
    let image = "%0 = local x\nresult %0 { env=[\"DB_PASSWORD=x\", \"AUTH=\"] }\n";
    check(
        image,
        "no-secrets-in-environment",
        "the image has `DB_PASSWORD` in its environment",
    );
}

#[test]
fn layers() {
    stages("at-most-layers 2", "");
    stages("at-most-layers 1", "the image adds 2 layers to its base");
    let merged = "%0 = local x\n%1 = file %0 { mkdir /a }\n%2 = file scratch { mkdir /b }\n\
                  %3 = merge %1 %2\nresult linux/amd64 %3\n";
    check(
        merged,
        "at-most-layers 1",
        "the image for `linux/amd64` adds 2 layers to its base",
    );
}

#[test]
fn configs() {
    stages("image-user-not-root", "");
    stages("image-user app", "");
    stages("image-user web", "the image runs as `app`");
    stages("command-set", "");
    stages("healthcheck-set", "the image has no health check");
    stages("label version", "");
    stages("label version=1", "");
    stages("label version=2", "the image has `label version` as `1`");
    stages("label other", "the image has no `label other`");
    stages("env A=1", "");
    stages("env B", "the image has no `B`");
    stages("exposes 80", "");
    stages("exposes 53/udp", "the image does not expose `53/udp`");
    stages("platforms linux/amd64", "");
    stages("platforms linux/arm64", "the results are for `linux/amd64`");
    let empty = "%0 = local x\nresult %0 {}\n";
    check(empty, "image-user-not-root", "the image runs as root");
    check(empty, "image-user app", "the image names no user");
    check(
        empty,
        "command-set",
        "the image has neither a command nor an entry point",
    );
    check(
        "%0 = local x\nresult %0\n",
        "command-set",
        "no result is an image",
    );
}

#[test]
fn stages_that_are_not_there() {
    stages(
        "no-runs in test",
        "there is no stage `test`: there are `app`, `build`",
    );
    stages(
        "no-network after test",
        "there is no stage `test`: there are `app`, `build`",
    );
    check(
        "%0 = local x\nresult %0\n",
        "no-runs in a",
        "there is no stage `a`: the plan names none",
    );
}

#[test]
fn final_steps_of_a_plan_without_stages() {
    let plan = "# base\n%0 = exec scratch [a]\n# other\n%1 = exec scratch [b]\n\
                # last\n%2 = file %0 { copy %1:/x -> / }\nresult %2\n";
    check(plan, "no-runs in final", "`base` runs a program");
}

#[test]
fn places() {
    let mut plan = plan("# RUN x\n%0 = exec scratch [x]\nresult %0\n");
    plan.sources = vec![("Dockerfile".to_owned(), String::new())];
    let node = plan.goals()[0];
    plan.display_mut(node).ranges = vec![SourceRange {
        source: 0,
        start_line: 7,
        end_line: 8,
    }];
    assert_eq!(
        hold(&plan, &["no-runs"]).unwrap_err().to_string(),
        "`no-runs` does not hold: `RUN x` runs a program (Dockerfile:7)"
    );
}

#[test]
fn words() {
    refused(
        "no-root-run",
        "unknown assertion `no-root-run` (did you mean `no-root-runs`?)",
    );
    refused(
        "at-most-layers many",
        "`at-most-layers many` is not `at-most-layers NUMBER`",
    );
    refused(
        "never-runs",
        "`never-runs` is not `never-runs TEXT [SCOPE]`",
    );
    refused("no-runs here", "`no-runs here` is not `no-runs [SCOPE]`");
    refused(
        "image-user-not-root in app",
        "`image-user-not-root in app` is not `image-user-not-root`",
    );
    refused(
        "never-runs \"x",
        "`never-runs \"x` has a quote that is not closed",
    );
    let unknown = Assertion::parse("elephants").unwrap_err().to_string();
    assert!(unknown.starts_with("unknown assertion `elephants`: there are `base-images-pinned`, "));
    assert!(Assertion::parse("").is_err());
    assert!(Assertion::parse(&"x".repeat(5000)).is_err());
}

/// Every name is understood, and stands in the page that people read.
#[test]
fn every_name_is_documented() {
    let page = include_str!("../../docs/plan-tests.md");
    for (name, form) in NAMES {
        assert!(
            page.contains(&format!("`{form}`")),
            "docs/plan-tests.md lacks `{form}`"
        );
        let words = format!("{name} x");
        let known = [name.to_string(), words, format!("{name} 1")];
        assert!(
            known.iter().any(|text| Assertion::parse(text).is_ok()),
            "{name}"
        );
    }
}
