//! Plans held against snapshots and assertions: `kiln plan --check`, `--accept` and `test`.

use crate::support::Capability::{Containers, Git};
use crate::support::{Case, Ran, World, case, dedent};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("check_and_accept", &[], check_and_accept),
        case(
            "names_alone_are_no_difference",
            &[],
            names_alone_are_no_difference,
        ),
        case("arguments_are_recorded", &[], arguments_are_recorded),
        case("beside_another_dockerfile", &[], beside_another_dockerfile),
        case("no_snapshot", &[], no_snapshot),
        case("suite", &[], suite),
        case("suite_of_wrong_cases", &[], suite_of_wrong_cases),
        case("suite_accepts", &[], suite_accepts),
        case("suite_for_machines", &[], suite_for_machines),
        case("no_suite", &[], no_suite),
        case("examples", &[], examples),
        case("help", &[], help),
        case("diff_of_files", &[], diff_of_files),
        case("diff_as_json", &[], diff_as_json),
        case("diff_of_revisions", &[Git], diff_of_revisions),
        case(
            "diff_of_what_is_not_there",
            &[Git],
            diff_of_what_is_not_there,
        ),
        case("hostile_repository", &[Git], hostile_repository),
        case("diff_of_images", &[Containers], diff_of_images),
    ]
}

const DOCKERFILE: &str = r#"
    FROM demo/base AS build
    ARG VERSION=1
    COPY . /src
    RUN make VERSION=$VERSION

    FROM demo/base
    LABEL version=$VERSION
    COPY --from=build /src/app /app
    USER app
    CMD ["/app"]
"#;

fn plan(world: &World, arguments: &[&str]) -> Ran {
    let arguments = ["plan"].iter().chain(arguments).copied();
    world.kiln(&arguments.collect::<Vec<_>>()).run()
}

fn accepted(world: &World) {
    world.dockerfile(DOCKERFILE);
    let written = plan(world, &["--accept", "--platform", "linux/amd64", "ctx"]);
    assert!(written.status.success(), "{}", written.whole());
}

fn check_and_accept(world: &World) {
    accepted(world);
    world.snapshot_of("snapshot", &world.read("ctx/kiln.plan"));
    let equal = plan(world, &["--check", "ctx"]);
    assert_eq!(
        (equal.status.code(), equal.stdout.as_str()),
        (Some(0), ""),
        "{}",
        equal.whole()
    );
    let changed = DOCKERFILE
        .replace("make VERSION", "make -j8 VERSION")
        .replace("USER app", "EXPOSE 80\n    RUN ldconfig");
    world.dockerfile(&changed);
    let differs = plan(world, &["--check", "ctx"]);
    assert_eq!(differs.status.code(), Some(1));
    world.snapshot_of("differs", &differs.whole());
    let json = plan(world, &["--check", "--format", "json", "ctx"]);
    assert_eq!(json.status.code(), Some(1));
    let document: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(document["equal"], false);
    assert_eq!(document["ops"][0]["fields"][0]["field"], "args[2]");
    let taken = plan(world, &["--accept", "ctx"]);
    assert_eq!(
        (taken.status.code(), &taken.stdout),
        (Some(0), &differs.stdout)
    );
    assert_eq!(plan(world, &["--check", "ctx"]).status.code(), Some(0));
    // What is the same is not written again.
    let before = std::fs::metadata(world.path("ctx/kiln.plan"))
        .unwrap()
        .modified()
        .unwrap();
    let kept = plan(world, &["--accept", "ctx"]);
    assert_eq!(
        (kept.stdout.as_str(), kept.stderr.as_str()),
        ("", "kept `ctx/kiln.plan`: nothing changed\n")
    );
    let after = std::fs::metadata(world.path("ctx/kiln.plan"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(before, after);
}

fn names_alone_are_no_difference(world: &World) {
    accepted(world);
    let other = DOCKERFILE
        .replace("AS build", "AS maker")
        .replace("--from=build", "--from=maker");
    world.dockerfile(&format!("# words\n{other}\n\n"));
    let checked = plan(world, &["--check", "ctx"]);
    assert_eq!(
        (checked.status.code(), checked.stdout.as_str()),
        (Some(0), ""),
        "{}",
        checked.whole()
    );
    let taken = plan(world, &["--accept", "ctx"]);
    assert_eq!(
        taken.stderr,
        "wrote `ctx/kiln.plan`: only names of steps changed\n"
    );
    assert!(world.read("ctx/kiln.plan").contains("# [maker] RUN make"));
}

fn arguments_are_recorded(world: &World) {
    world.dockerfile(DOCKERFILE);
    let flags = [
        "--accept",
        "--platform",
        "linux/arm64",
        "--build-arg",
        "VERSION=2",
        "--target",
        "build",
        "ctx",
    ];
    assert_eq!(plan(world, &flags).stderr, "wrote `ctx/kiln.plan`: 4 ops\n");
    let head = "# kiln plan snapshot 0\n# target: build\n# platform: linux/arm64\n# build-arg: VERSION=2\n#\n";
    assert!(
        world.read("ctx/kiln.plan").starts_with(head),
        "{}",
        world.read("ctx/kiln.plan")
    );
    assert_eq!(plan(world, &["--check", "ctx"]).status.code(), Some(0));
    assert_eq!(
        plan(world, &["--check", "--build-arg", "VERSION=2", "ctx"])
            .status
            .code(),
        Some(0)
    );
    // Neither the host's platform nor its environment counts.
    let elsewhere = world
        .kiln(&["plan", "--check", "ctx"])
        .env("DOCKER_DEFAULT_PLATFORM", "linux/s390x")
        .run();
    assert_eq!(elsewhere.status.code(), Some(0), "{}", elsewhere.whole());
    let other = plan(world, &["--check", "--build-arg", "VERSION=3", "ctx"]);
    assert_eq!(other.status.code(), Some(2));
    world.snapshot(&other.whole());
    // A new argument replaces the one that was recorded, and only that.
    plan(world, &["--accept", "--build-arg", "VERSION=3", "ctx"]);
    assert!(
        world
            .read("ctx/kiln.plan")
            .starts_with(&head.replace("VERSION=2", "VERSION=3"))
    );
}

fn beside_another_dockerfile(world: &World) {
    world.write("ctx/web.Dockerfile", "FROM demo/base\nRUN make\n");
    let written = plan(world, &["--accept", "-f", "ctx/web.Dockerfile", "ctx"]);
    assert_eq!(
        written.stderr,
        "wrote `ctx/web.Dockerfile.kiln.plan`: 2 ops\n"
    );
    assert_eq!(
        plan(world, &["--check", "-f", "ctx/web.Dockerfile", "ctx"])
            .status
            .code(),
        Some(0)
    );
    let named = plan(
        world,
        &["--accept", "-f", "ctx/web.Dockerfile", "-o", "kept", "ctx"],
    );
    assert_eq!(named.stderr, "wrote `kept`: 2 ops\n");
    assert_eq!(
        world.read("kept"),
        world.read("ctx/web.Dockerfile.kiln.plan")
    );
    // A snapshot is a plan.
    assert!(world.read("kept").contains("%1 = exec %0"));
}

fn no_snapshot(world: &World) {
    world.dockerfile(DOCKERFILE);
    let missing = plan(world, &["--check", "ctx"]);
    assert_eq!(missing.status.code(), Some(2));
    let both = plan(world, &["--check", "--format", "svg", "ctx"]);
    world.write("ctx/kiln.plan", "%0 = local context\nresult %0\n");
    let foreign = plan(world, &["--check", "ctx"]);
    assert_eq!(foreign.status.code(), Some(2));
    let nothing = plan(world, &["-o", "x", "ctx"]);
    let all = [missing, foreign, nothing, both].map(|ran| ran.whole());
    world.snapshot(&all.join("\n"));
}

fn write_suite(world: &World) {
    world.write(
        "plans/good/Dockerfile",
        "FROM scratch\nCOPY app /\nUSER 1000\nCMD [\"/app\"]\n",
    );
    world.write(
        "plans/good/case.toml",
        "platform = \"linux/amd64\"\nassert = [\"image-user-not-root\", \"no-runs\", \"at-most-layers 1\"]\n",
    );
    world.write(
        "plans/strict/case.toml",
        "dockerfile = \"../root/Dockerfile\"\ncontext = \"../root\"\nassert = [\n  \"no-root-runs in final\",\n  \"base-images-pinned\",\n  \"no-network\",\n]\n",
    );
    world.write(
        "plans/root/Dockerfile",
        "FROM demo/base\nARG WHAT=all\nRUN make $WHAT\n",
    );
    world.write("plans/root/case.toml", "build-args = { WHAT = \"docs\" }\n");
    world.write(
        "plans/more/wrong.case.toml",
        "error = \"unknown instruction: FORM\"\n",
    );
    world.write("plans/more/wrong.Dockerfile", "FORM x\n");
}

fn suite(world: &World) {
    write_suite(world);
    let accepted = plan(world, &["test", "plans", "root", "--accept"]);
    assert_eq!(accepted.status.code(), Some(0), "{}", accepted.whole());
    assert!(
        world
            .read("plans/root/kiln.plan")
            .contains("build-arg: WHAT=docs")
    );
    world.write(
        "plans/root/Dockerfile",
        "FROM demo/base\nARG WHAT=all\nRUN make -k $WHAT\n",
    );
    let ran = plan(world, &["test", "plans"]);
    assert_eq!(ran.status.code(), Some(1));
    world.snapshot(&timeless(&ran.whole()));
    let filtered = plan(world, &["test", "plans", "good"]);
    assert_eq!(filtered.status.code(), Some(0), "{}", filtered.whole());
}

/// Without how long it took.
fn timeless(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| match line.split_once("finished in ") {
            Some((before, _)) => format!("{before}finished in TIME\n"),
            None => format!("{line}\n"),
        });
    lines.collect()
}

fn suite_of_wrong_cases(world: &World) {
    let dockerfile = "FROM scratch\nCOPY a /\n";
    for (name, case) in [
        (
            "assertion",
            "assert = [\n  \"no-runs\",\n  \"no-root-run\",\n]\n",
        ),
        ("key", "plattform = \"linux/amd64\"\n"),
        ("syntax", "assert = [\n"),
        ("platform", "platform = \"linux/\"\nassert = []\n"),
        ("plan", "plan = \"missing.plan\"\n"),
        ("error", "error = \"no such thing\"\n"),
    ] {
        world.write(&format!("plans/{name}/Dockerfile"), dockerfile);
        world.write(&format!("plans/{name}/case.toml"), case);
    }
    world.write("plans/dockerfile/Dockerfile", "FROM scratch\nCOPY\n");
    world.write("plans/dockerfile/case.toml", "assert = [\"no-runs\"]\n");
    let ran = plan(world, &["test", "plans"]);
    assert_eq!(ran.status.code(), Some(1));
    world.snapshot(&timeless(&ran.whole()));
}

fn suite_accepts(world: &World) {
    write_suite(world);
    let ran = plan(world, &["test", "plans/root", "--accept"]);
    world.snapshot(&timeless(&ran.whole()));
    assert_eq!(plan(world, &["test", "plans/root"]).status.code(), Some(0));
}

fn suite_for_machines(world: &World) {
    write_suite(world);
    let ran = plan(
        world,
        &["test", "plans", "--junit", "out.xml", "--format", "json"],
    );
    assert_eq!(ran.status.code(), Some(1));
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["version"], "kiln.plan-test/0");
    assert_eq!(
        (&document["passed"], &document["failed"]),
        (&2.into(), &2.into())
    );
    assert_eq!(document["cases"][0]["name"], "good");
    assert_eq!(document["cases"][2]["problems"][0]["kind"], "plan");
    let text = world.read("out.xml");
    let xml = roxmltree::Document::parse(&text).unwrap();
    let suite = xml.root_element().first_element_child().unwrap();
    assert_eq!(
        (suite.attribute("tests"), suite.attribute("failures")),
        (Some("4"), Some("2"))
    );
    let failed = xml
        .descendants()
        .filter(|node| node.has_tag_name("failure"));
    let words: Vec<_> = failed
        .map(|node| node.attribute("message").unwrap())
        .collect();
    assert!(
        words[0].starts_with("there is no plan `plans/root/kiln.plan`"),
        "{words:?}"
    );
}

fn no_suite(world: &World) {
    world.write("plans/readme", "");
    let empty = plan(world, &["test", "plans"]);
    assert_eq!(empty.status.code(), Some(2));
    let missing = plan(world, &["test", "elsewhere"]);
    assert_eq!(missing.status.code(), Some(1));
    world.snapshot(&format!("{}\n{}", empty.whole(), missing.whole()));
}

/// The project's own plans.
fn examples(world: &World) {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let ran = plan(world, &["test", directory]);
    assert_eq!(ran.status.code(), Some(0), "{}", ran.whole());
}

fn help(world: &World) {
    let texts = ["diff", "test"].map(|command| plan(world, &[command, "--help"]).whole());
    world.snapshot(&texts.join("\n"));
}

/// Another version of it: a step changed, one added below the end.
fn newer() -> String {
    DOCKERFILE
        .replace("make VERSION", "make -j8 VERSION")
        .replace("USER app", "RUN ldconfig\n    USER app")
}

fn diff_of_files(world: &World) {
    world.write("old/Dockerfile", dedent(DOCKERFILE));
    world.write("new/Dockerfile", dedent(&newer()));
    let differs = plan(world, &["diff", "old", "new"]);
    assert_eq!(differs.status.code(), Some(1));
    world.snapshot(&differs.whole());
    // A directory, its Dockerfile and its plan are the same.
    let kept = plan(world, &["--accept", "-o", "old/kept.plan", "old"]);
    assert!(kept.status.success(), "{}", kept.whole());
    world.write(
        "old/kept.json",
        plan(world, &["--format", "json", "old"]).stdout,
    );
    for other in ["old", "old/Dockerfile", "old/kept.plan", "old/kept.json"] {
        let equal = plan(world, &["diff", "old", other]);
        assert_eq!(
            (equal.status.code(), equal.stdout.as_str()),
            (Some(0), ""),
            "{}",
            equal.whole()
        );
        let differs_too = plan(world, &["diff", other, "new"]);
        assert_eq!(
            differs_too.stdout.lines().count(),
            differs.stdout.lines().count(),
            "{other}"
        );
    }
    let stage = plan(
        world,
        &[
            "diff",
            "--target",
            "build",
            "--build-arg",
            "VERSION=3",
            "old",
            "new",
        ],
    );
    assert_eq!(stage.status.code(), Some(1));
    assert!(
        stage.stdout.contains("1 of 2 steps would run again"),
        "{}",
        stage.stdout
    );
    let same = plan(world, &["diff", "old", "--", "old"]);
    assert_eq!(same.status.code(), Some(0), "{}", same.whole());
}

fn diff_as_json(world: &World) {
    world.write("old/Dockerfile", dedent(DOCKERFILE));
    world.write("new/Dockerfile", dedent(&newer()));
    let ran = plan(world, &["diff", "--format", "json", "old", "new"]);
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["equal"], false);
    let again = &document["reruns"][0];
    assert_eq!(
        (&again["steps"], again["again"].as_array().unwrap().len()),
        (&4.into(), 3)
    );
    assert_eq!(again["again"][0]["name"], "RUN make -j8 VERSION=$VERSION");
    let equal = plan(world, &["diff", "--format", "json", "old", "old"]);
    assert_eq!(equal.status.code(), Some(0));
    let document: serde_json::Value = serde_json::from_str(&equal.stdout).unwrap();
    assert_eq!(document["equal"], true);
}

fn git(world: &World, arguments: &str) {
    let identity = "-c user.name=kiln -c user.email=kiln@localhost -c init.defaultBranch=main";
    let script = format!("cd repo && git {identity} {arguments}");
    let ran = world.program("sh", &["-c", &script]).run();
    assert!(ran.status.success(), "{}", ran.whole());
}

fn repository(world: &World) {
    world.write("repo/services/web/Dockerfile", dedent(DOCKERFILE));
    world.write("repo/services/web/.dockerignore", "*.o\n");
    git(world, "init -q .");
    git(world, "add .");
    git(world, "commit -q -m one");
    world.write("repo/services/web/Dockerfile", dedent(&newer()));
    world.write("repo/services/web/.dockerignore", "*.o\n*.tmp\n");
    git(world, "commit -q -a -m two");
}

fn diff_of_revisions(world: &World) {
    repository(world);
    let in_repo = |directory: &str, words: &str| {
        let arguments: Vec<&str> = ["plan", "diff"]
            .into_iter()
            .chain(words.split(' '))
            .collect();
        world.kiln(&arguments).in_directory(directory).run()
    };
    let differs = in_repo("repo", "HEAD~1 HEAD -- services/web");
    assert_eq!(differs.status.code(), Some(1));
    world.snapshot(&differs.whole());
    for (directory, words) in [
        ("repo/services", "HEAD~1 HEAD -- web"),
        ("repo/services/web", "HEAD~1 HEAD"),
        ("repo/services/web", "HEAD~1"),
        ("repo", "HEAD~1:services/web HEAD:services/web/Dockerfile"),
        (
            "repo/services",
            "HEAD~1:./web HEAD:services/../services/web",
        ),
        ("repo", "HEAD~1:services/web services/web"),
    ] {
        let ran = in_repo(directory, words);
        assert_eq!(ran.stdout, differs.stdout, "{words}: {}", ran.whole());
    }
    let equal = in_repo("repo/services/web", "HEAD");
    assert_eq!(
        (equal.status.code(), equal.stdout.as_str()),
        (Some(0), ""),
        "{}",
        equal.whole()
    );
}

fn diff_of_what_is_not_there(world: &World) {
    repository(world);
    let mut text = String::new();
    for words in [
        "elsewhere",
        "HEAD~9 HEAD",
        "HEAD~1 HEAD -- nowhere",
        "HEAD:../../etc HEAD",
        "docker-image://a services/web",
        "-- services/web",
    ] {
        let arguments: Vec<&str> = ["plan", "diff"]
            .into_iter()
            .chain(words.split(' '))
            .collect();
        let ran = world.kiln(&arguments).in_directory("repo").run();
        assert_eq!(ran.status.code(), Some(2), "{}", ran.whole());
        text.push_str(&ran.whole());
        text.push('\n');
    }
    world.snapshot(&text);
}

/// Nothing that a repository says of itself is obeyed.
fn hostile_repository(world: &World) {
    repository(world);
    let trap = world.path("trap");
    let trap = trap.display();
    for key in [
        "core.fsmonitor",
        "core.pager",
        "core.sshCommand",
        "diff.external",
        "core.hooksPath",
    ] {
        git(world, &format!("config {key} 'touch {trap}'"));
    }
    git(world, &format!("config alias.rev-parse '!touch {trap}'"));
    git(world, &format!("config filter.x.smudge 'touch {trap}'"));
    world.write("repo/.gitattributes", "* filter=x diff=x\n");
    let ran = world
        .kiln(&["plan", "diff", "HEAD~1", "HEAD", "--", "services/web"])
        .in_directory("repo")
        .run();
    assert_eq!(ran.status.code(), Some(1), "{}", ran.whole());
    let trap = world.path("trap");
    assert!(!trap.exists());
    // A link for a Dockerfile leads nowhere.
    world.remove("repo/services/web/Dockerfile");
    std::os::unix::fs::symlink("/etc/passwd", world.path("repo/services/web/Dockerfile")).unwrap();
    world.remove("repo/.gitattributes");
    git(world, "commit -q -a -m three");
    let ran = world
        .kiln(&["plan", "diff", "HEAD~1", "HEAD", "--", "services/web"])
        .in_directory("repo")
        .run();
    assert_ne!(ran.status.code(), Some(0));
    assert!(
        ran.stderr.contains("it is no regular file"),
        "{}",
        ran.whole()
    );
}

fn diff_of_images(world: &World) {
    world.base();
    let build = |version: &str| {
        world.dockerfile(&format!(
            "FROM demo/base\nENV VERSION={version}\nRUN echo {version} > /version && touch /made-{version}\n"
        ));
        let tag = format!("app:{version}");
        let built = world.kiln(&["build", "-t", &tag, "ctx"]).run();
        assert!(built.status.success(), "{}", built.whole());
    };
    build("1");
    build("2");
    let differs = plan(
        world,
        &["diff", "docker-image://app:1", "docker-image://app:2"],
    );
    assert_eq!(differs.status.code(), Some(1));
    // When they were made differs in every run.
    let lines = differs
        .stdout
        .lines()
        .filter(|line| !line.contains("created:"));
    world.snapshot(&lines.map(|line| format!("{line}\n")).collect::<String>());
    let equal = plan(
        world,
        &["diff", "docker-image://app:1", "docker-image://app:1"],
    );
    assert_eq!((equal.status.code(), equal.stdout.as_str()), (Some(0), ""));
    let json = plan(
        world,
        &[
            "diff",
            "--format",
            "json",
            "docker-image://app:1",
            "docker-image://app:2",
        ],
    );
    let document: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let files = &document["layers"]["differ"][0]["files"];
    assert_eq!(files["added"], serde_json::json!(["/made-2"]));
    assert_eq!(files["changed"], serde_json::json!(["/version"]));
}
