//! `kiln push`: what is sent, what is not, and what is said of it.

use kiln_test_registry::{Auth, Fault, Registry, digest_of};
use serde_json::Value;

use super::access::{PASSWORD, USER, log_in};
use super::server::{base_layer, hide_port, told, with_base};
use crate::support::{Capability::*, Case, Ran, World, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("push_and_back", &[Containers], push_and_back),
        case("push_is_known", &[Containers], push_is_known),
        case(
            "push_prints_what_is_found",
            &[Containers],
            push_prints_what_is_found,
        ),
        case("push_of_nothing_new", &[Containers], push_of_nothing_new),
        case("push_mounts", &[Containers], push_mounts),
        case(
            "push_knows_a_moved_name",
            &[Containers],
            push_knows_a_moved_name,
        ),
        case(
            "push_of_stale_knowledge",
            &[Containers],
            push_of_stale_knowledge,
        ),
        case(
            "push_verifies_if_asked",
            &[Containers],
            push_verifies_if_asked,
        ),
        case("push_of_an_index", &[Containers], push_of_an_index),
        case("push_all_tags", &[Containers], push_all_tags),
        case("push_fails_in_part", &[Containers], push_fails_in_part),
        case(
            "push_packed_otherwise",
            &[Containers],
            push_packed_otherwise,
        ),
        case("push_packed_by_force", &[Containers], push_packed_by_force),
        case("push_annotated", &[Containers], push_annotated),
        case("push_annotated_index", &[Containers], push_annotated_index),
        case("push_by_each_name", &[Containers], push_by_each_name),
        case("push_of_members", &[Containers], push_of_members),
        case("push_said_wrong", &[Containers], push_said_wrong),
        case("push_after_prune", &[Containers], push_after_prune),
        case("push_refused", &[Containers], push_refused),
        case("push_of_no_image", &[Containers], push_of_no_image),
    ]
}

/// Builds `app` on the imported base.
fn built(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN echo made > /made\nCMD [\"cat\", \"/made\"]\n");
    world.build();
}

fn push(world: &World, arguments: &[&str]) -> Ran {
    world.kiln(&["push"]).args(arguments).ok()
}

/// The manifest that a name of a registry means.
fn manifest(registry: &Registry, repository: &str, name: &str) -> (String, Value) {
    let (_, bytes) = registry
        .manifest(repository, name)
        .unwrap_or_else(|| panic!("no {repository}:{name}: {:?}", registry.log()));
    (digest_of(&bytes), serde_json::from_slice(&bytes).unwrap())
}

fn digests(manifest: &Value) -> Vec<String> {
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers
        .map(|layer| layer["digest"].as_str().unwrap().to_owned())
        .collect()
}

fn uploads(registry: &Registry) -> usize {
    registry.count("PUT", "/blobs/uploads/")
}

fn push_and_back(world: &World) {
    built(world);
    let registry = Registry::start();
    let name = format!("{}/team/app:1", registry.host());
    let ran = push(world, &["app", &name]);
    let (digest, pushed) = manifest(&registry, "team/app", "1");
    assert_eq!(ran.stdout, format!("{name}@{digest}\n"));
    assert_eq!(digests(&pushed).len(), 2);
    // Two layers and the config, nothing twice.
    assert_eq!(uploads(&registry), 3);
    let id = world.inspect("app")["id"].clone();
    assert_eq!(pushed["config"]["digest"], id);
    // Elsewhere it is what it was.
    world.forget();
    let ran = world.kiln(&["run", &name]).ok();
    assert_eq!(ran.stdout, "made\n");
}

/// The line that a push prints is a name: beside a digest, a tag says nothing.
fn push_prints_what_is_found(world: &World) {
    built(world);
    let registry = Registry::start();
    let name = format!("{}/team/app:1", registry.host());
    let printed = push(world, &["-q", "app", &name]).stdout;
    let printed = printed.trim();
    let id = world.inspect("app")["id"].clone();
    assert_eq!(world.inspect(printed)["id"], id);
    let (_, digest) = printed.split_once('@').unwrap();
    let by_digest = format!("{}/team/app@{digest}", registry.host());
    let found_by = |arguments: &[&str]| world.kiln(arguments).ok().stdout;
    let named = |name: &str| {
        assert!(found_by(&["history", name]).contains("made > /made"));
        found_by(&["tag", name, "other"]);
        found_by(&["save", "-o", "app.tar", name]);
        found_by(&["manifest", "create", "list", name]);
        found_by(&["rmi", "list", "other"]);
    };
    let built_on = |name: &str| {
        assert_eq!(found_by(&["run", name]), "made\n");
        let base = format!("FROM {name} AS it\nFROM scratch\nCOPY --from={name} /made /\n");
        world.dockerfile(&format!("{base}FROM {name}\nCOPY --from=0 /made /again\n"));
        found_by(&["build", "-q", "--offline", "-t", "next", "ctx"]);
    };
    let asked = registry.log().len();
    for name in [printed, &printed.replace(":1@", ":no-such-tag@")] {
        named(name);
        built_on(name);
    }
    assert_eq!(registry.log().len(), asked);
    push(
        world,
        &[printed, &format!("{}/team/other:1", registry.host())],
    );
    // As in docker, the name by digest is what such a name removes.
    let removed = world.kiln(&["rmi", printed]).ok().stdout;
    assert_eq!(removed, format!("untagged {by_digest}\n"));
    world.kiln(&["inspect", printed]).exits(1);
    assert_eq!(world.inspect("app")["id"], id);

    // A pull by tag and digest keeps what a pull by digest does.
    world.forget();
    world.kiln(&["pull", printed]).ok();
    assert_eq!(
        world.inspect(printed)["digests"],
        serde_json::json!([by_digest])
    );
    let asked = registry.log().len();
    built_on(&by_digest);
    built_on(printed);
    assert_eq!(registry.log().len(), asked);
}

/// What a registry knows an image by is shown, and goes with the image's last tag.
fn push_is_known(world: &World) {
    built(world);
    let id = world.inspect("app")["id"].clone();
    assert_eq!(world.inspect("app")["digests"], serde_json::json!([]));
    let registry = Registry::start();
    let name = format!("{}/team/app", registry.host());
    push(world, &["app", &format!("{name}:1")]);
    let (digest, pushed) = manifest(&registry, "team/app", "1");
    let known = format!("{name}@{digest}");
    let shown = world.inspect("app");
    assert_eq!(shown["names"], serde_json::json!(["app:latest"]));
    assert_eq!(shown["digests"], serde_json::json!([known]));
    assert_eq!(shown["pushed"][&known], pushed);
    assert_ne!(shown["manifest"], pushed);
    let by_digest = world.inspect(&known);
    assert_eq!((&by_digest["id"], &by_digest["manifest"]), (&id, &pushed));
    // One line for a name, unless digests are asked for.
    let listed = world.kiln(&["images"]).ok().stdout;
    assert_eq!(listed.matches("app").count(), 1, "{listed}");
    let listed = world.kiln(&["images", "--digests"]).ok().stdout;
    let line = listed.lines().find(|line| line.starts_with(&name)).unwrap();
    assert_eq!(line.split_whitespace().nth(1), Some(&*digest), "{listed}");
    world.kiln(&["tag", "app", &format!("{name}:2")]).ok();
    let listed = world.kiln(&["images", "--digests"]).ok().stdout;
    assert_eq!(listed.matches(&digest).count(), 1, "{listed}");
    world.kiln(&["tag", "app", &format!("{name}:4")]).ok();
    let listed = world.kiln(&["images", "--digests"]).ok().stdout;
    assert_eq!(listed.matches(&digest).count(), 2, "{listed}");
    world.kiln(&["rmi", &format!("{name}:4")]).ok();
    // A digest keeps no image for which there is no name.
    world.kiln(&["rmi", &format!("{name}:2")]).ok();
    assert_eq!(world.inspect("app")["digests"], serde_json::json!([known]));
    world.dockerfile("FROM demo/base\nCMD [\"other\"]\n");
    world.build();
    let listed = world.kiln(&["images", "--digests"]).ok().stdout;
    assert!(!listed.contains(&digest), "{listed}");
    push(world, &["app", &format!("{name}:1")]);
    let removed = world.kiln(&["rmi", "app"]).ok().stdout;
    assert!(removed.contains("removed sha256:"), "{removed}");
    // So it is after a build that pushes, and after a pull.
    let output = format!("type=image,name={name}:3,push=true,store=true");
    world.kiln(&["build", "-o", &output, "ctx"]).ok();
    let (digest, _) = manifest(&registry, "team/app", "3");
    let known = serde_json::json!([format!("{name}@{digest}")]);
    assert_eq!(world.inspect(&format!("{name}:3"))["digests"], known);
    world.forget();
    world.kiln(&["pull", &format!("{name}:3")]).ok();
    let shown = world.inspect(&format!("{name}:3"));
    assert_eq!(
        (&shown["digests"], &shown["pushed"]),
        (&known, &Value::Null)
    );
}

/// An image that the registry has takes one question, and with a token server one for the token.
fn push_of_nothing_new(world: &World) {
    built(world);
    let user = || (USER.to_owned(), PASSWORD.to_owned());
    let basic = Auth::Basic {
        user: user().0,
        password: user().1,
    };
    let token = Auth::Token { user: Some(user()) };
    for (auth, requests) in [
        (Auth::None, &["HEAD"][..]),
        (basic, &["HEAD"]),
        (token, &["GET /token", "HEAD"]),
    ] {
        let registry = Registry::builder().auth(auth).start();
        log_in(world, &registry.host(), PASSWORD);
        let name = format!("{}/app:1", registry.host());
        let first = push(world, &["app", &name]);
        registry.clear_log();
        let second = push(world, &["app", &name]);
        assert_eq!(first.stdout, second.stdout);
        assert!(
            second.stderr.contains("app:1 is up to date"),
            "{}",
            second.stderr
        );
        let log = registry.log();
        let asked: Vec<String> = log
            .iter()
            .map(|request| match request.path.starts_with("/token") {
                true => format!("{} /token", request.method),
                false => request.method.clone(),
            })
            .collect();
        assert_eq!(asked, requests, "{log:?}");
    }
}

fn push_mounts(world: &World) {
    let registry = with_base();
    let host = registry.host();
    world.dockerfile(&format!("FROM {host}/base\nRUN echo made > /made\n"));
    world.build();
    push(world, &["app", &format!("{host}/one:1")]);
    let layer = base_layer().digest();
    let (_, one) = manifest(&registry, "one", "1");
    assert_eq!(digests(&one)[0], layer, "it leaves as it came");
    // The base came from a repository of the same registry: only the layer and the config were sent.
    assert_eq!(uploads(&registry), 2, "{:?}", registry.log());
    assert_eq!(registry.count("POST", &format!("mount={layer}")), 1);
    // And from the first to the second everything is shared.
    let ran = push(world, &["app", &format!("{host}/two:1")]);
    assert_eq!(uploads(&registry), 2, "{:?}", registry.log());
    assert!(
        ran.stderr.contains("taken from another repository"),
        "{}",
        ran.stderr
    );
    // A registry that will not share is sent what it lacks.
    let other = Registry::builder().refuse_mounts().start();
    push(world, &["app", &format!("{}/one", other.host())]);
    push(world, &["app", &format!("{}/two", other.host())]);
    assert_eq!(uploads(&other), 6, "{:?}", other.log());
    // So is one that says that it shares, and does not.
    let liar = Registry::builder().only_claim_mounts().start();
    push(world, &["app", &format!("{}/one:1", liar.host())]);
    push(world, &["app", &format!("{}/two:1", liar.host())]);
    let (_, two) = manifest(&liar, "two", "1");
    assert!(
        digests(&two)
            .iter()
            .all(|layer| liar.blob("two", layer).is_some())
    );
}

fn push_knows_a_moved_name(world: &World) {
    built(world);
    let registry = Registry::start();
    let name = |tag: &str| format!("{}/app:{tag}", registry.host());
    push(world, &["app", &name("1")]);
    registry.clear_log();
    let ran = push(world, &["app", &name("2"), &name("1"), &name("3")]);
    let (digest, _) = manifest(&registry, "app", "3");
    let lines = ["2", "1", "3"].map(|tag| format!("{}@{digest}\n", name(tag)));
    assert_eq!(ran.stdout, lines.concat());
    // No blob is asked for: the manifest is there, and so is what it names.
    assert_eq!(registry.count("", "/blobs/"), 0, "{:?}", registry.log());
    assert_eq!(registry.count("PUT", "/manifests/"), 2);
}

fn push_of_stale_knowledge(world: &World) {
    built(world);
    let registry = Registry::start();
    push(world, &["app", &format!("{}/app:1", registry.host())]);
    let (_, pushed) = manifest(&registry, "app", "1");
    let lost = &digests(&pushed)[1];
    registry.forget_blob("app", lost);
    push(world, &["app", &format!("{}/app:2", registry.host())]);
    assert!(registry.blob("app", lost).is_some());
    manifest(&registry, "app", "2");
}

/// A registry that lost a layer says no word of it, until everything is asked for.
fn push_verifies_if_asked(world: &World) {
    built(world);
    let registry = Registry::start();
    let name = format!("{}/app:1", registry.host());
    push(world, &["app", &name]);
    let (digest, pushed) = manifest(&registry, "app", "1");
    let up_to_date = format!("{name} is up to date\n");
    let whole = push(world, &["--verify", "app", &name]);
    assert!(whole.stderr.contains(&up_to_date), "{}", whole.stderr);
    let lost = &digests(&pushed)[0];
    registry.forget_blob("app", lost);
    let believed = push(world, &["app", &name]);
    assert!(believed.stderr.contains(&up_to_date), "{}", believed.stderr);
    let elsewhere = world.path("elsewhere");
    let pull = || {
        let pull = world.kiln(&["pull", &name]);
        pull.env("KILN_ROOT", elsewhere.to_str().unwrap())
    };
    let lacks = pull().exits(1).stderr;
    assert!(
        lacks.contains("`kiln push --verify` sends it again"),
        "{lacks}"
    );
    let sent = push(world, &["--verify", "app", &name]);
    assert_eq!(sent.stdout, format!("{name}@{digest}\n"));
    assert!(!sent.stderr.contains("up to date"), "{}", sent.stderr);
    assert!(registry.blob("app", lost).is_some());
    pull().ok();

    // So it is with the members of an index, and another name of it.
    let index = format!("{}/index:1", registry.host());
    world.kiln(&["manifest", "create", "list", "app"]).ok();
    push(world, &["list", &index]);
    registry.forget_blob("index", lost);
    let again = format!("{}/index:2", registry.host());
    push(world, &["--verify", "list", &again]);
    assert!(registry.blob("index", lost).is_some());
}

fn push_of_an_index(world: &World) {
    world.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY . /$TARGETARCH/\n");
    world
        .kiln(&[
            "build",
            "-t",
            "app",
            "--platform",
            "linux/amd64,linux/arm64",
            "ctx",
        ])
        .ok();
    let registry = Registry::start();
    let name = format!("{}/app:1", registry.host());
    let ran = push(world, &["app", &name]);
    let (digest, index) = manifest(&registry, "app", "1");
    assert_eq!(ran.stdout, format!("{name}@{digest}\n"));
    let entries = index["manifests"].as_array().unwrap();
    let architectures: Vec<&str> = entries
        .iter()
        .map(|entry| {
            manifest(&registry, "app", entry["digest"].as_str().unwrap());
            entry["platform"]["architecture"].as_str().unwrap()
        })
        .collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
    let one = format!("{}/app:arm", registry.host());
    push(world, &["--platform", "linux/arm64", "app", &one]);
    let (digest, _) = manifest(&registry, "app", "arm");
    assert_eq!(entries[1]["digest"], digest.as_str());
}

fn push_fails_in_part(world: &World) {
    built(world);
    let registry = Registry::start();
    let there = format!("{}/app:1", registry.host());
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("{}/app:1", nobody.local_addr().unwrap());
    drop(nobody);
    let ran = world.kiln(&["push", "app", &there, &nowhere]).exits(1);
    let (digest, _) = manifest(&registry, "app", "1");
    assert_eq!(ran.stdout, format!("{there}@{digest}\n"));
    assert!(ran.stderr.contains("no answer"), "{}", ran.stderr);
}

fn push_all_tags(world: &World) {
    built(world);
    let registry = Registry::start();
    let repository = format!("{}/app", registry.host());
    for tag in ["1", "1.2", "latest"] {
        world
            .kiln(&["tag", "app", &format!("{repository}:{tag}")])
            .ok();
    }
    let ran = push(world, &["-a", &repository]);
    assert_eq!(ran.stdout.lines().count(), 3, "{}", ran.stdout);
    for tag in ["1", "1.2", "latest"] {
        manifest(&registry, "app", tag);
    }
    assert_eq!(uploads(&registry), 3);
}

fn push_packed_otherwise(world: &World) {
    built(world);
    let registry = Registry::start();
    for (compression, magic) in [
        ("gzip", &[0x1f, 0x8b][..]),
        ("zstd", &[0x28, 0xb5]),
        ("uncompressed", b"bi"),
    ] {
        let name = format!("{}/app:{compression}", registry.host());
        push(world, &["--compression", compression, "-q", "app", &name]);
        let (_, pushed) = manifest(&registry, "app", compression);
        let layer = &pushed["layers"][1];
        let kind = layer["mediaType"].as_str().unwrap();
        let suffix = match compression {
            "uncompressed" => ".tar".to_owned(),
            other => format!(".tar+{other}"),
        };
        assert!(kind.ends_with(&suffix), "{kind}");
        let bytes = registry
            .blob("app", layer["digest"].as_str().unwrap())
            .unwrap();
        let begins = bytes.starts_with(magic) || compression == "uncompressed";
        assert!(begins, "{compression}: {:?}", &bytes[..4]);
    }
}

/// The digest that a build pushes with this output, and a push with these flags.
fn both_ways(world: &World, registry: &Registry, more: &[&str], output: &str, flags: &[&str]) {
    let name = |tag: &str| format!("{}/app:{tag}", registry.host());
    let output = format!("type=registry{output}");
    let build = ["build", "-q", "-o", &output, "-t", &name("built")];
    world.kiln(&[&build, more, &["ctx"]].concat()).ok();
    push(world, &[flags, &["app", &name("pushed")]].concat());
    let (built, said) = manifest(registry, "app", "built");
    let (pushed, _) = manifest(registry, "app", "pushed");
    assert_eq!(built, pushed, "{said:#}");
}

fn push_packed_by_force(world: &World) {
    let registry = with_base();
    world.dockerfile(&format!(
        "FROM {}/base\nRUN echo made > /made\n",
        registry.host()
    ));
    world.build();
    for (output, flags) in [
        (
            ",compression=zstd,compression-level=19,force-compression=true",
            &[
                "--compression=zstd",
                "--compression-level=19",
                "--force-compression",
            ][..],
        ),
        (
            ",compression=uncompressed,force-compression=true",
            &["--compression=uncompressed", "--force-compression"],
        ),
        (",compression-level=9", &["--compression-level=9"]),
        (
            ",compression=zstd,compression-level=1",
            &["--compression", "zstd", "--compression-level", "1"],
        ),
        // What is packed so already stays as it came.
        (",force-compression=true", &["--force-compression"]),
    ] {
        both_ways(world, &registry, &[], output, flags);
        let (_, pushed) = manifest(&registry, "app", "pushed");
        let layers = pushed["layers"].as_array().unwrap();
        let zstd = layers
            .iter()
            .filter(|layer| layer["mediaType"].as_str().unwrap().ends_with("zstd"))
            .count();
        let expected = match (output.contains("zstd"), output.contains("force")) {
            (true, true) => 2,
            (true, false) => 1,
            _ => 0,
        };
        assert_eq!(zstd, expected, "{pushed:#}");
        if output == ",force-compression=true" {
            assert_eq!(digests(&pushed)[0], base_layer().digest());
        }
    }
    let name = format!("{}/app:pushed", registry.host());
    let flags = ["--compression=zstd", "--force-compression"];
    push(world, &[&flags[..], &["app", &name]].concat());
    world.forget();
    assert_eq!(
        world.kiln(&["run", &name, "cat", "/made"]).ok().stdout,
        "made\n"
    );
}

fn push_annotated(world: &World) {
    built(world);
    let registry = Registry::start();
    let said = [
        "--annotation=org.example.a=1",
        "--annotation=manifest:b=x=y",
    ];
    both_ways(world, &registry, &said, "", &said);
    let (_, pushed) = manifest(&registry, "app", "pushed");
    assert_eq!(pushed["annotations"]["b"], "x=y");
    // What is pulled says it, and its layers leave as they came; what it says is added to.
    let name = |tag: &str| format!("{}/app:{tag}", registry.host());
    world.forget();
    world.kiln(&["pull", &name("pushed")]).ok();
    push(
        world,
        &["--annotation", "c=2", &name("pushed"), &name("more")],
    );
    let (_, more) = manifest(&registry, "app", "more");
    assert_eq!(digests(&more), digests(&pushed));
    for (key, value) in [("org.example.a", "1"), ("b", "x=y"), ("c", "2")] {
        assert_eq!(more["annotations"][key], value);
    }
    // Nothing new is nothing.
    push(
        world,
        &["--annotation", "b=x=y", &name("pushed"), &name("same")],
    );
    let (same, _) = manifest(&registry, "app", "same");
    assert_eq!(same, manifest(&registry, "app", "pushed").0);
}

/// Images that differ in annotations or in how they are packed share a config: each name keeps its own manifest.
fn push_by_each_name(world: &World) {
    built(world);
    let registry = Registry::start();
    let name = |tag: &str| format!("{}/app:{tag}", registry.host());
    for (tag, more) in [
        ("plain", &[][..]),
        ("blue", &["--annotation", "team=blue"]),
        ("zstd", &["--compression", "zstd", "--force-compression"]),
    ] {
        push(world, &[more, &["app", &name(tag)]].concat());
    }
    let digest = |tag: &str| manifest(&registry, "app", tag).0;
    let tags = ["plain", "blue", "zstd"];
    let digests = tags.map(digest);
    world.forget();
    for tag in tags {
        world.kiln(&["pull", &name(tag)]).ok();
    }
    let first = format!("{}/app@{}", registry.host(), digests[0]);
    world.kiln(&["pull", &first]).ok();
    for tag in tags {
        push(world, &[&name(tag)]);
        push(world, &[&name(tag), &name(&format!("{tag}-again"))]);
        assert_eq!(digest(&format!("{tag}-again")), digest(tag), "{tag}");
    }
    assert_eq!(tags.map(digest), digests);
    push(world, &[&first, &name("first")]);
    assert_eq!(digest("first"), digests[0]);
    let repository = name("").trim_end_matches(':').to_owned();
    push(world, &["-a", &repository]);
    assert_eq!(tags.map(digest), digests);
    // Another name has the manifest of the one that it was given by.
    world.kiln(&["tag", &name("blue"), &name("azure")]).ok();
    push(world, &[&name("azure")]);
    assert_eq!(digest("azure"), digest("blue"));
    // What goes out in an archive without manifests comes back as what it was.
    world
        .kiln(&["save", "-o", "app.tar", &name("plain"), &name("zstd")])
        .ok();
    world.kiln(&["load", "-i", "app.tar"]).ok();
    for tag in tags {
        push(world, &[&name(tag)]);
    }
    assert_eq!(tags.map(digest), digests);
}

/// So does each list, and what it is pulled as.
fn push_of_members(world: &World) {
    built(world);
    let registry = Registry::start();
    let name = |tag: &str| format!("{}/app:{tag}", registry.host());
    let build = |tag: &str, more: &[&str]| {
        let arguments = ["build", "--provenance=true", "-t", tag, "ctx"];
        world.kiln(&[&arguments[..], more].concat()).ok();
    };
    build("app:blue", &["--annotation", "manifest:team=blue"]);
    build("app:plain", &[]);
    for tag in ["blue", "plain"] {
        push(world, &[&format!("app:{tag}"), &name(tag)]);
    }
    let team = |tag: &str| {
        let (_, index) = manifest(&registry, "app", tag);
        let member = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
        manifest(&registry, "app", &member).1["annotations"]["team"].clone()
    };
    assert_eq!(team("blue"), "blue");
    assert_eq!(team("plain"), Value::Null);
}

fn push_annotated_index(world: &World) {
    world.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY . /$TARGETARCH/\n");
    let platforms = "--platform=linux/amd64,linux/arm64";
    world.kiln(&["build", "-t", "app", platforms, "ctx"]).ok();
    let registry = Registry::start();
    let said = [
        "--annotation=index:a=1",
        "--annotation=manifest[linux/arm64]:b=2",
        "--annotation=manifest-descriptor:c=3",
    ];
    both_ways(
        world,
        &registry,
        &[&said[..], &[platforms]].concat(),
        "",
        &said,
    );
    let (_, index) = manifest(&registry, "app", "pushed");
    assert_eq!(index["annotations"]["a"], "1");
    let entries = index["manifests"].as_array().unwrap();
    for (entry, b) in entries.iter().zip([Value::Null, "2".into()]) {
        assert_eq!(entry["annotations"]["c"], "3");
        let (_, member) = manifest(&registry, "app", entry["digest"].as_str().unwrap());
        assert_eq!(member["annotations"]["b"], b);
    }
    // From elsewhere, too, where each document is as it came.
    let name = |tag: &str| format!("{}/app:{tag}", registry.host());
    world.forget();
    world
        .kiln(&["pull", "--all-platforms", &name("pushed")])
        .ok();
    let more = [
        "--annotation=index:d=4",
        "--compression=zstd",
        "--force-compression",
    ];
    push(
        world,
        &[&more[..], &[&name("pushed"), &name("more")]].concat(),
    );
    let (_, index) = manifest(&registry, "app", "more");
    assert_eq!(
        index["annotations"],
        serde_json::json!({ "a": "1", "d": "4" })
    );
    for entry in index["manifests"].as_array().unwrap() {
        assert_eq!(entry["annotations"]["c"], "3");
        let (_, member) = manifest(&registry, "app", entry["digest"].as_str().unwrap());
        let kind = member["layers"][0]["mediaType"].as_str().unwrap();
        assert!(kind.ends_with("tar+zstd"), "{kind}");
    }
}

fn push_said_wrong(world: &World) {
    built(world);
    let mut text = String::new();
    for flags in [
        &["--compression-level", "10"][..],
        &["--compression-level=x", "--compression=zstd"],
        &["--compression-level=1", "--compression=uncompressed"],
        &["--platform", "linux/s390x"],
        &["--annotation", "nonsense"],
        &["--annotation", "nowhere:a=b"],
        &["--annotation", "index:a=b"],
        &["--annotation", "manifest[linux/s390x]:a=b"],
        &["--cache=registry.example/cache", "--force-compression"],
    ] {
        let arguments = [flags, &["app", "registry.example/app:1"]].concat();
        let ran = world.kiln(&["push"]).args(&arguments).run();
        assert!(!ran.status.success());
        text.push_str(&ran.whole());
    }
    world.snapshot(&text);
}

/// What was packed and went is packed again, to the same bytes; what was pulled stays.
fn push_after_prune(world: &World) {
    let registry = with_base();
    world.dockerfile(&format!(
        "FROM {}/base\nRUN echo made > /made\n",
        registry.host()
    ));
    world.build();
    let one = push(world, &["app", &format!("{}/app:1", registry.host())]);
    world.kiln(&["prune", "--all"]).ok();
    let other = Registry::start();
    registry.clear_log();
    let two = push(world, &["app", &format!("{}/app:1", other.host())]);
    let digest = |ran: &Ran| ran.stdout.trim().rsplit('@').next().unwrap().to_owned();
    assert_eq!(digest(&one), digest(&two));
    assert_eq!(registry.log(), []);
}

fn push_refused(world: &World) {
    built(world);
    let registry = Registry::builder()
        .auth(Auth::Basic {
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
        })
        .start();
    let host = registry.host();
    let name = format!("{host}/app:1");
    let refused = world.kiln(&["push", "app", &name]).exits(1);
    world.snapshot_of("nobody", &told(&refused, &host));
    log_in(world, &host, "wrong");
    let refused = world.kiln(&["push", "app", &name]).exits(1);
    world.snapshot_of("wrong", &told(&refused, &host));
    log_in(world, &host, PASSWORD);
    registry.inject(Fault::Status {
        path: "/blobs/uploads/".to_owned(),
        status: 403,
        retry_after: None,
    });
    let refused = world.kiln(&["push", "-q", "app", &name]).exits(1);
    let words = hide_port(&refused.stderr, &host);
    assert!(words.contains("access denied"), "{words}");
    push(world, &["app", &name]);
}

fn push_of_no_image(world: &World) {
    built(world);
    world.kiln(&["tag", "app", "registry.example/app:1.0"]).ok();
    let mut text = String::new();
    let id = world.inspect("app")["id"].as_str().unwrap()[7..19].to_owned();
    for arguments in [
        &["registry.example/app:2.0"][..],
        &["nothing/of/that/name"],
        &["-a", "registry.example/ap"],
        &["-a", "registry.example/app:1.0"],
        &[&id],
        &[
            "app",
            "registry.example/app@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ],
        &["app", "Registry.example/App"],
    ] {
        let ran = world.kiln(&["push"]).args(arguments).run();
        assert!(!ran.status.success());
        text.push_str(&ran.whole().replace(&id, "[id]"));
    }
    world.snapshot(&text);
}
