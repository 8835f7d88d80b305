//! Caches in directories, what min and max hold, and two builders at once.

use super::{Machine, check_all_found, dockerfile, ran, says, single};
use crate::support::{Capability::*, Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("another_machine", &[Containers], another_machine),
        case("only_the_results", &[Containers], only_the_results),
        case("changed_since", &[Containers], changed_since),
        case("directories_merge", &[Containers], directories_merge),
        case("builders_at_once", &[Containers], builders_at_once),
        case("nothing_there", &[Containers], nothing_there),
        case("damaged_directory", &[Containers], damaged_directory),
        case("altered_layer", &[Containers], altered_layer),
        case("times_are_kept", &[Containers], times_are_kept),
        case("export_fails", &[Containers], export_fails),
        case("exported_later", &[Containers], exported_later),
        case(
            "exported_after_another",
            &[Containers],
            exported_after_another,
        ),
        case("cache_in_the_context", &[Containers], cache_in_the_context),
        case("refused_by_name", &[], refused_by_name),
    ]
}

const TO: &str = "type=local,dest=cache,mode=max";
const FROM: &str = "type=local,src=cache";

fn another_machine(world: &World) {
    dockerfile(world);
    let (one, two) = (Machine::new(world, "one"), Machine::new(world, "two"));
    let first = one.build(&["--cache-to", TO]);
    assert_eq!(ran(&first), 5, "{}", first.stderr);
    world.snapshot_of("first", &first.table());
    let second = two.build(&["--cache-from", FROM]);
    world.snapshot_of("second", &second.table());
    assert_eq!(first.id(), second.id());
    assert_eq!(two.sh("cat /own /bin/program"), "own\nprogram");
    world.snapshot_of("why", &two.kiln(&["why"]).ok().whole());
    // What came along is here from now on, without the cache.
    let third = two.build(&[]);
    assert_eq!(ran(&third), 0, "{}", third.stderr);
    // Nothing changes what is there already.
    let index = std::fs::read(world.path("cache/index.json")).unwrap();
    let again = one.build(&["--cache-to", TO]);
    assert!(
        says(&again, "has all 5 results already"),
        "{}",
        again.stderr
    );
    assert_eq!(
        std::fs::read(world.path("cache/index.json")).unwrap(),
        index
    );
}

fn only_the_results(world: &World) {
    dockerfile(world);
    let one = Machine::new(world, "one");
    one.build(&["--cache-to", "type=local,dest=cache"]);
    let two = Machine::new(world, "two");
    let second = two.build(&["--cache-from", FROM]);
    assert_eq!(ran(&second), 0, "{}", second.stderr);
    // Steps of which nothing but a file was taken are not there.
    world.write("ctx/source", "other program");
    let changed = two.build(&["--cache-from", FROM]);
    world.snapshot(&changed.table());
    // The step of the last stage came along.
    assert_eq!(ran(&changed), 4, "{}", changed.stderr);
}

fn changed_since(world: &World) {
    dockerfile(world);
    let one = Machine::new(world, "one");
    one.build(&["--cache-to", TO]);
    world.write("ctx/source", "other program");
    let two = Machine::new(world, "two");
    let changed = two.build(&["--cache-from", FROM]);
    world.snapshot(&changed.table());
    // Nothing but what the file reaches.
    assert_eq!(ran(&changed), 3, "{}", changed.stderr);
    assert_eq!(
        two.sh("cat /opt/tools/cc /own /bin/program 2>&1; true")
            .lines()
            .count(),
        3
    );
}

/// Exports a build of its own from a machine.
fn export_one(world: &World, machine: Machine<'_>, text: &str) {
    single(world, text);
    machine
        .kiln(&["build", "-t", text, "--cache-to", TO, text])
        .ok();
}

fn directories_merge(world: &World) {
    let (one, two) = (Machine::new(world, "one"), Machine::new(world, "two"));
    export_one(world, one, "first");
    export_one(world, two, "second");
    let three = Machine::new(world, "three");
    for text in ["first", "second"] {
        let found = three
            .kiln(&["build", "--cache-from", FROM, "-t", text, text])
            .ok();
        assert_eq!(ran(&found), 0, "{}", found.stderr);
    }
    // Every blob that is there is named by something.
    let blobs = std::fs::read_dir(world.path("cache/blobs/sha256")).unwrap();
    assert_eq!(blobs.count(), 4);
}

fn builders_at_once(world: &World) {
    let names = ["a", "b", "c", "d"];
    let machines = names.map(|name| Machine::new(world, name));
    for machine in machines {
        single(world, machine.name);
    }
    let builds = machines.map(|machine| {
        machine
            .kiln(&["build", "--cache-to", TO, machine.name])
            .spawn()
    });
    for build in builds {
        let build = build.wait();
        assert!(build.status.success(), "{}", build.whole());
    }
    let other = Machine::new(world, "other");
    for name in names {
        let found = other.kiln(&["build", "--cache-from", FROM, name]).ok();
        assert_eq!(ran(&found), 0, "{}", found.stderr);
    }
}

fn nothing_there(world: &World) {
    dockerfile(world);
    let one = Machine::new(world, "one");
    let build = one.build(&["--cache-from", FROM]);
    assert!(
        says(&build, "there is no cache at `cache` yet"),
        "{}",
        build.stderr
    );
    assert_eq!(ran(&build), 5);
}

/// The document of the cache in a directory.
fn document(world: &World) -> std::path::PathBuf {
    let json = |path: &std::path::Path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let blob = |digest: &serde_json::Value| {
        let digest = digest.as_str().unwrap().replace(':', "/");
        world.path("cache/blobs").join(digest)
    };
    let index = json(&world.path("cache/index.json"));
    let manifest = json(&blob(&index["manifests"][0]["digest"]));
    blob(&manifest["config"]["digest"])
}

fn damaged_directory(world: &World) {
    dockerfile(world);
    let (one, two) = (Machine::new(world, "one"), Machine::new(world, "two"));
    one.build(&["--cache-to", TO]);
    let document = document(world);
    let mut bytes = std::fs::read(&document).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&document, bytes).unwrap();
    let build = two.build(&["--cache-from", FROM]);
    assert!(
        says(&build, "the cache `cache` is not used"),
        "{}",
        build.stderr
    );
    assert_eq!(ran(&build), 5);
    // What a power failure makes of a file that was just written names nothing, and is written anew.
    std::fs::write(world.path("cache/index.json"), [0; 512]).unwrap();
    assert!(says(
        &two.build(&["--cache-from", FROM]),
        "there is no cache at `cache` yet"
    ));
    two.build(&["--cache-to", TO]);
    assert_eq!(
        ran(&Machine::new(world, "three").build(&["--cache-from", FROM])),
        0
    );
}

fn altered_layer(world: &World) {
    dockerfile(world);
    let (one, two) = (Machine::new(world, "one"), Machine::new(world, "two"));
    let first = one.build(&["--cache-to", TO]);
    let document = document(world);
    let blobs = std::fs::read_dir(world.path("cache/blobs/sha256")).unwrap();
    for blob in blobs.map(|entry| entry.unwrap().path()) {
        let bytes = std::fs::read(&blob).unwrap();
        // Layers are the ones that are compressed.
        if blob != document && bytes.starts_with(&[0x1f, 0x8b]) {
            let mut bytes = bytes;
            let last = bytes.len() - 9;
            bytes[last] ^= 1;
            std::fs::write(&blob, bytes).unwrap();
        }
    }
    let second = two.build(&["--cache-from", FROM]);
    assert!(
        says(&second, "cannot be used, so that its step runs"),
        "{}",
        second.stderr
    );
    assert_eq!(ran(&second), 5, "{}", second.stderr);
    assert_eq!(
        two.sh("cat /own /bin/program"),
        one.sh("cat /own /bin/program")
    );
    assert!(!first.id().is_empty());
}

/// An image whose files keep their times is the same image where its layers come from a cache, and so is one
/// with the epoch's.
fn times_are_kept(world: &World) {
    dockerfile(world);
    let rewritten = ["-o", "type=image,name=app"];
    let kept = ["-o", "type=image,name=app,rewrite-timestamp=false"];
    let also = ["-o", "type=oci,dest=x.tar,rewrite-timestamp=false"];
    let both = [rewritten, also].concat();
    for (name, outputs) in [("a", &kept[..]), ("b", &rewritten[..]), ("c", &both[..])] {
        let build = |machine: &'static str, more: &str| {
            let place = format!(
                "{more}=type=local,{}={name}-cache",
                match more {
                    "--cache-to" => "mode=max,dest",
                    _ => "src",
                }
            );
            Machine::new(world, machine)
                .kiln(&["build", &place])
                .args(outputs)
                .args(&["ctx"])
                .env("SOURCE_DATE_EPOCH", "1700000000")
                .ok()
        };
        let (one, two) = match name {
            "a" => ("one", "two"),
            "b" => ("three", "four"),
            _ => ("five", "six"),
        };
        let first = build(one, "--cache-to");
        let archive = std::fs::read(world.path("x.tar")).ok();
        check_all_found(&build(two, "--cache-from"), first.id());
        assert!(std::fs::read(world.path("x.tar")).ok() == archive, "{name}");
    }
}

fn export_fails(world: &World) {
    dockerfile(world);
    let one = Machine::new(world, "one");
    world.write("cache", "a file");
    let build = one
        .kiln(&["build", "-t", "app", "--cache-to", TO, "ctx"])
        .exits(1);
    assert!(
        says(&build, "error: the cache to `cache` was not exported"),
        "{}",
        build.stderr
    );
    // The result is there all the same.
    assert!(build.id().starts_with("sha256:"), "{}", build.whole());
    assert_eq!(one.sh("cat /own"), "own\n");
    let ignored = format!("{TO},ignore-error=true");
    let build = one.build(&["--cache-to", &ignored]);
    assert!(
        says(&build, "the cache to cache was not exported"),
        "{}",
        build.stderr
    );
    // Nothing is put among other things, and that is said before any step.
    world.write("home/file", "mine");
    let home = "type=local,dest=home";
    let build = one.kiln(&["build", "--cache-to", home, "ctx"]).exits(1);
    assert!(
        says(&build, "`home` is neither empty nor an OCI image layout"),
        "{}",
        build.stderr
    );
    assert_eq!(build.stdout, "");
    let ignored = format!("{home},ignore-error=true");
    one.build(&["--cache-to", &ignored]);
    assert_eq!(std::fs::read_dir(world.path("home")).unwrap().count(), 1);
    // A directory has caches by tags.
    let tagged = "type=local,dest=tags,tag=v1";
    one.build(&["--cache-to", tagged]);
    let build = one.build(&["--cache-from", "type=local,src=tags"]);
    assert!(
        says(&build, "there is no cache at `tags` yet; its tags are `v1`"),
        "{}",
        build.stderr
    );
    let spec = "type=local,src=tags,timeout=3";
    let refused = one.kiln(&["build", "--cache-from", spec, "ctx"]).exits(2);
    assert!(
        says(
            &refused,
            &format!("`--cache-from {spec}`: `timeout`: `3` is not a duration")
        ),
        "{}",
        refused.stderr
    );
}

fn exported_later(world: &World) {
    dockerfile(world);
    let (one, two) = (Machine::new(world, "one"), Machine::new(world, "two"));
    let none = one.kiln(&["push", "--cache", TO]).exits(2);
    assert!(
        none.stderr.contains("no build that came to its end"),
        "{}",
        none.stderr
    );
    one.build(&[]);
    let pushed = one.kiln(&["push", "--cache", TO]).ok();
    assert_eq!(
        pushed.stdout,
        "cached 5 results in cache, which has 5 now\n"
    );
    let named = one.kiln(&["push", "--cache", TO, "app"]).ok();
    assert_eq!(named.stdout, "the cache cache has all 5 results already\n");
    let unknown = one.kiln(&["push", "--cache", TO, "demo/base"]).exits(2);
    assert!(
        unknown.stderr.contains("no build that came to `demo/base`"),
        "{}",
        unknown.stderr
    );
    let build = two.build(&["--cache-from", FROM]);
    assert_eq!(ran(&build), 0, "{}", build.stderr);
}

/// A later build of the same steps came to something else: that is not of the image.
fn exported_after_another(world: &World) {
    let (one, two) = (Machine::new(world, "one"), Machine::new(world, "two"));
    world.dockerfile(
        "FROM demo/base\nRUN echo same > /same\nRUN head -c 20 /dev/urandom > /random\n",
    );
    one.build(&[]);
    one.kiln(&["build", "--no-cache", "ctx"]).ok();
    for mode in ["min", "max"] {
        let to = format!("type=local,dest=cache,mode={mode}");
        let pushed = one.kiln(&["push", "--cache", &to, "app"]).ok();
        assert!(
            pushed
                .stdout
                .contains("; 1 of the build are gone, since later builds"),
            "{}",
            pushed.stdout
        );
    }
    let build = two.build(&["--cache-from", FROM]);
    assert_eq!(ran(&build), 1, "{}", build.stderr);
}

/// What the runner of a job keeps is beside what is built.
fn cache_in_the_context(world: &World) {
    world.write("ctx/source", "text");
    world.dockerfile("FROM demo/base\nCOPY . /all\n");
    let one = Machine::new(world, "one");
    let to = "type=local,dest=ctx/cache,mode=max";
    one.build(&["--cache-to", to]);
    let warned = one.build(&["--cache-to", to]);
    assert!(
        says(&warned, "the cache in `ctx/cache` is part of the context"),
        "{}",
        warned.stderr
    );
    world.write("ctx/.dockerignore", "cache\n");
    one.build(&["--cache-to", to]);
    let found = one.build(&["--cache-to", to]);
    assert!(!says(&found, "part of the context"), "{}", found.stderr);
    assert_eq!(ran(&found), 0, "{}", found.stderr);
}

fn refused_by_name(world: &World) {
    world.dockerfile("FROM scratch\n");
    let mut text = String::new();
    for (flag, value) in [
        ("--cache-from", "type=gha"),
        ("--cache-to", "type=azblob,name=x,account_url=y"),
        ("--cache-to", "type=inline,mode=max"),
        ("--cache-to", "type=registry,ref=x,compression=estargz"),
        ("--cache-from", "type=local"),
        ("--cache-from", "type=s3,bucket=b,region=r"),
        ("--cache-to", "type=local,dest=x,colour=red"),
    ] {
        text.push_str(&world.kiln(&["build", flag, value, "ctx"]).exits(2).whole());
    }
    let bucket = "type=s3,bucket=b,region=r,access_key_id=account,secret_access_key=hunter2";
    let digest = format!("type=registry,ref=x@sha256:{}", "0".repeat(64));
    let outside = format!("{bucket},name=../..");
    let address = format!("{bucket},endpoint_url=http://127.0.0.1:9000");
    for arguments in [
        &["--cache-to", digest.as_str()][..],
        &["--offline", "--cache-to", "type=registry,ref=x"],
        &["--offline", "--cache-to", bucket],
        &["--cache-to", outside.as_str()],
        &["--cache-from", address.as_str()],
    ] {
        let build = world.kiln(&["build"]).args(arguments).args(&["ctx"]);
        text.push_str(&build.exits(2).whole());
    }
    world.snapshot(&text);
}
