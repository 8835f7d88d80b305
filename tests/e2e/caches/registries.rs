//! Caches in registries: what is brought from there, and registries that fail.

use kiln_test_registry::{Auth, Fault, Registry};

use super::{Machine, check_all_found, dockerfile, layers_asked, ran, says, send, single};
use crate::registries::server::DockerRegistry;
use crate::support::{Capability::*, Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("laziness", &[Containers], laziness),
        case("nobody_exports", &[Containers], nobody_exports),
        case("only_sent", &[Containers], only_sent),
        case("only_sent_lost", &[Containers], only_sent_lost),
        case("only_sent_read", &[Containers], only_sent_read),
        case("nothing_sent_twice", &[Containers], nothing_sent_twice),
        case("lost_comes_back", &[Containers], lost_comes_back),
        case("registries_merge", &[Containers], registries_merge),
        case("hanging_registry", &[Containers], hanging_registry),
        case("hanging_when_needed", &[Containers], hanging_when_needed),
        case("transfer_cut", &[Containers], transfer_cut),
        case(
            "transfer_gone_on_with",
            &[Containers],
            transfer_gone_on_with,
        ),
        case("wrong_bytes", &[Containers], wrong_bytes),
        case("blob_gone", &[Containers], blob_gone),
        case("no_cache_there", &[Containers], no_cache_there),
        case("cache_of_buildkit", &[Containers], cache_of_buildkit),
        case("newer_cache", &[Containers], newer_cache),
        case("image_not_replaced", &[Containers], image_not_replaced),
        case("registry_refuses", &[Containers], registry_refuses),
        case("several_caches", &[Containers], several_caches),
        case("offline", &[Containers], offline),
        case(
            "real_registry",
            &[Containers, DockerRegistry, Skopeo],
            real_registry,
        ),
    ]
}

fn to(registry: &Registry) -> String {
    format!("type=registry,ref={}/app:cache,mode=max", registry.host())
}

fn from(registry: &Registry) -> String {
    format!("{}/app:cache", registry.host())
}

/// A registry with the cache of a build, and the build's id.
fn filled(world: &World) -> (Registry, String) {
    dockerfile(world);
    let registry = Registry::start();
    let one = Machine::new(world, "one");
    let first = one.build(&["--cache-to", &to(&registry)]);
    assert_eq!(ran(&first), 5, "{}", first.stderr);
    (registry, first.id().to_owned())
}

fn laziness(world: &World) {
    let (registry, id) = filled(world);
    let asked = registry.log().len();
    let two = Machine::new(world, "two");
    check_all_found(&two.build(&["--cache-from", &from(&registry)]), &id);
    // Of five layers the two of the last stage.
    assert_eq!(layers_asked(&registry, asked), 2, "{:?}", registry.log());
    // All that is needed is here now, and only the document may be asked for.
    let asked = registry.log().len();
    let again = two.build(&["--cache-from", &from(&registry)]);
    assert_eq!((ran(&again), layers_asked(&registry, asked)), (0, 0));
}

fn nobody_exports(world: &World) {
    let (registry, _) = filled(world);
    let asked = registry.log().len();
    let two = Machine::new(world, "two");
    let build = two
        .kiln(&["build", "-o", "type=cacheonly", "--cache-from"])
        .args(&[&from(&registry), "ctx"])
        .ok();
    assert_eq!(ran(&build), 0, "{}", build.stderr);
    assert_eq!(layers_asked(&registry, asked), 0, "{:?}", registry.log());
}

/// A registry with a cache, and the image that was built with it as `app:1`.
fn filled_and_sent(world: &World) -> Registry {
    dockerfile(world);
    let registry = Registry::start();
    let name = format!("{}/app:1", registry.host());
    let one = Machine::new(world, "one");
    let arguments = ["--cache-to", &to(&registry), "--push", "-t", &name];
    assert_eq!(ran(&send(&one, &arguments)), 5);
    registry
}

/// What a registry has of an image that is only sent does not come here.
fn only_sent(world: &World) {
    let registry = filled_and_sent(world);
    let host = registry.host();
    let (same, other) = (format!("{host}/app:2"), format!("{host}/other:1"));
    let two = Machine::new(world, "two");
    let cache = from(&registry);
    let asked = registry.log().len();
    let arguments = ["--cache-from", &cache, "--push", "-t", &same, "-t", &other];
    let build = send(&two, &arguments);
    assert_eq!(ran(&build), 0, "{}", build.stderr);
    let log = &registry.log()[asked..];
    assert_eq!(layers_asked(&registry, asked), 0, "{log:?}");
    let mounts = log.iter().filter(|request| request.path.contains("mount="));
    assert!(mounts.count() >= 2, "{log:?}");
    for (repository, tag) in [("app", "2"), ("other", "1")] {
        let manifest = registry.manifest(repository, tag);
        assert_eq!(manifest, registry.manifest("app", "1"), "{repository}");
    }
    // Whoever looks at the files gets them.
    let build = two.build(&["--cache-from", &cache]);
    assert_eq!(ran(&build), 0, "{}", build.stderr);
    assert_eq!(two.sh("cat /own /bin/program"), "own\nprogram");
    // A registry elsewhere is sent what it lacks.
    let three = Machine::new(world, "three");
    let elsewhere = Registry::start();
    let name = format!("{}/app:1", elsewhere.host());
    let build = send(&three, &["--cache-from", &cache, "--push", "-t", &name]);
    assert_eq!(ran(&build), 0, "{}", build.stderr);
    assert_eq!(
        elsewhere.manifest("app", "1"),
        registry.manifest("app", "1")
    );
    // Another packing is made here.
    let output = format!("type=registry,name={host}/app:3,compression=zstd");
    let build = send(&three, &["--cache-from", &cache, "-o", &output]);
    assert_eq!(ran(&build), 0, "{}", build.stderr);
    let (_, bytes) = registry.manifest("app", "3").unwrap();
    assert!(String::from_utf8(bytes).unwrap().contains("tar+zstd"));
}

/// What the registry has lost is made again.
fn only_sent_lost(world: &World) {
    let registry = filled_and_sent(world);
    let (_, bytes) = registry.manifest("app", "1").unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let own = layers[1]["digest"].as_str().unwrap();
    registry.forget_blob("app", own);
    let two = Machine::new(world, "two");
    let name = format!("{}/app:2", registry.host());
    let build = send(
        &two,
        &["--cache-from", &from(&registry), "--push", "-t", &name],
    );
    assert!(ran(&build) > 0, "{}", build.stderr);
    assert!(registry.blob("app", own).is_some());
    assert_eq!(registry.manifest("app", "2"), registry.manifest("app", "1"));
}

/// What a step reads comes here, though it is a result that is sent, too.
fn only_sent_read(world: &World) {
    let registry = filled_and_sent(world);
    let two = Machine::new(world, "two");
    let more = "RUN cat /own /bin/program > /both\n";
    let text = world.read("ctx/Dockerfile");
    world.write("ctx/Dockerfile", format!("{text}{more}"));
    let name = format!("{}/app:2", registry.host());
    let arguments = ["--cache-from", &from(&registry), "--push", "-t", &name];
    let build = send(&two, &arguments);
    assert_eq!(ran(&build), 1, "{}", build.stderr);
    let both = two.kiln(&["run", &name, "cat", "/both"]).ok();
    assert_eq!(both.stdout, "own\nprogram");
}

fn nothing_sent_twice(world: &World) {
    let (registry, _) = filled(world);
    let sent = |since: usize| {
        let log = registry.log();
        let puts = log[since..]
            .iter()
            .filter(|request| ["PUT", "POST", "PATCH"].contains(&request.method.as_str()));
        puts.count()
    };
    let asked = registry.log().len();
    let one = Machine::new(world, "one");
    let again = one.build(&["--cache-to", &to(&registry)]);
    assert!(
        says(&again, "has all 5 results already"),
        "{}",
        again.stderr
    );
    assert_eq!(sent(asked), 0, "{:?}", &registry.log()[asked..]);
    // Each layer is looked for once.
    let looked = || {
        let log = registry.log();
        let looks = log
            .iter()
            .filter(|request| request.method == "HEAD" && request.path.contains("/blobs/sha256:"));
        looks.count()
    };
    registry.clear_log();
    one.build(&["--cache-to", &to(&registry)]);
    assert_eq!(looked(), 5, "{:?}", registry.log());
    assert!(registry.log().len() < 15, "{:?}", registry.log());
}

/// What a registry or a bucket lost comes back with the next builder that has it.
fn lost_comes_back(world: &World) {
    let (registry, id) = filled(world);
    let layer = a_layer(&registry);
    registry.forget_blob("app", &layer);
    let one = Machine::new(world, "one");
    one.build(&["--cache-to", &to(&registry)]);
    assert!(
        registry.blob("app", &layer).is_some(),
        "{:?}",
        registry.log()
    );
    let two = Machine::new(world, "two");
    check_all_found(&two.build(&["--cache-from", &from(&registry)]), &id);
}

fn registries_merge(world: &World) {
    let registry = Registry::start();
    let names = ["first", "second", "third"];
    for name in names {
        let machine = Machine::new(world, name);
        single(world, name);
        machine
            .kiln(&["build", "--cache-to", &to(&registry), name])
            .ok();
    }
    let other = Machine::new(world, "other");
    for name in names {
        let found = other
            .kiln(&["build", "--cache-from", &from(&registry), name])
            .ok();
        assert_eq!(ran(&found), 0, "{}", found.stderr);
    }
}

/// Lets every answer about manifests stop after its headers.
fn hang(registry: &Registry) {
    for _ in 0..20 {
        registry.inject(Fault::Stall {
            path: "/manifests/".to_owned(),
            bytes: 0,
        });
    }
}

fn hanging_registry(world: &World) {
    let (registry, id) = filled(world);
    hang(&registry);
    // The machine that made it all: nobody waits for what is elsewhere.
    let one = Machine::new(world, "one");
    let build = one.build(&["--cache-from", &from(&registry)]);
    check_all_found(&build, &id);
    assert!(!says(&build, "did not answer"), "{}", build.stderr);
}

fn hanging_when_needed(world: &World) {
    let (registry, _) = filled(world);
    hang(&registry);
    let two = Machine::new(world, "two");
    let spec = format!("type=registry,ref={},timeout=2s", from(&registry));
    let build = two.build(&["--cache-from", &spec]);
    assert!(
        says(&build, "did not answer within 2 seconds"),
        "{}",
        build.stderr
    );
    assert_eq!(ran(&build), 5, "{}", build.stderr);
}

fn transfer_cut(world: &World) {
    let (registry, id) = filled(world);
    for path in ["/manifests/", "/blobs/", "/blobs/"] {
        registry.inject(Fault::CutAfter {
            path: path.to_owned(),
            bytes: 20,
        });
    }
    let two = Machine::new(world, "two");
    check_all_found(&two.build(&["--cache-from", &from(&registry)]), &id);
    assert!(registry.pending_faults().is_empty());
}

/// What came of a layer before its line broke for good is not asked for again by the next command.
fn transfer_gone_on_with(world: &World) {
    world.dockerfile(
        "FROM demo/base\n\
         RUN --mount=type=secret,id=s,required dd if=/dev/urandom of=/big bs=1M count=3 2> /dev/null\n",
    );
    let registry = Registry::start();
    let reference = format!("{}/app:cache", registry.host());
    world.write("secret", "s");
    let one = Machine::new(world, "one");
    let to = format!("type=registry,ref={reference}");
    one.build(&["--secret=id=s,src=secret", "--cache-to", &to]);
    let (_, manifest) = registry.manifest("app", "cache").unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    let big = layers.max_by_key(|layer| layer["size"].as_u64()).unwrap();
    let path = format!("/blobs/{}", big["digest"].as_str().unwrap());
    let (cut, gone) = (2 << 20, path.clone());
    registry.inject(Fault::CutAfter {
        path: path.clone(),
        bytes: cut,
    });
    registry.inject(Fault::Status {
        path: gone,
        status: 404,
        retry_after: None,
    });
    let two = Machine::new(world, "two");
    let build = || two.kiln(&["build", "--cache-from", &reference, "ctx"]);
    build().exits(1);
    assert!(registry.pending_faults().is_empty());
    registry.clear_log();
    build().ok();
    let log = registry.log();
    let asked = log.iter().filter(|request| request.path.ends_with(&path));
    let ranges: Vec<_> = asked.map(|request| request.range.clone()).collect();
    assert_eq!(ranges, [Some(format!("bytes={cut}-"))], "{log:?}");
}

/// The digest of the highest layer of the result: the one that was asked for first.
fn a_layer(registry: &Registry) -> String {
    let (_, manifest) = registry.manifest("app", "cache").unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap();
    let document = registry.blob("app", config).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
    let records = document["records"].as_array().unwrap();
    let copy = records
        .iter()
        .find(|record| {
            record["parts"]["facts"]["step"]["text"] == "COPY --from=tools /program /bin/program"
        })
        .unwrap();
    let layers = copy["outputs"][0].as_array().unwrap();
    let top = layers.last().unwrap().as_u64().unwrap();
    let blob = &document["layers"][usize::try_from(top).unwrap()]["blob"];
    blob["digest"].as_str().unwrap().to_owned()
}

/// A layer that cannot be had, whatever happens to it on the way: its step runs, and nothing below it.
fn check_lost(world: &World, fault: impl Fn(String) -> Fault) {
    let (registry, _) = filled(world);
    for _ in 0..20 {
        registry.inject(fault(a_layer(&registry)));
    }
    let two = Machine::new(world, "two");
    let build = two.build(&["--cache-from", &from(&registry)]);
    assert!(
        says(&build, "cannot be used, so that its step runs"),
        "{}",
        build.stderr
    );
    assert_eq!(ran(&build), 1, "{}", build.stderr);
    assert_eq!(two.sh("cat /bin/program"), "program");
}

fn wrong_bytes(world: &World) {
    check_lost(world, |path| Fault::WrongBytes { path });
}

fn blob_gone(world: &World) {
    check_lost(world, |path| Fault::Status {
        path,
        status: 404,
        retry_after: None,
    });
}

fn no_cache_there(world: &World) {
    dockerfile(world);
    let registry = Registry::start();
    let one = Machine::new(world, "one");
    let build = one.build(&["--cache-from", &from(&registry)]);
    assert!(says(&build, "there is no cache at"), "{}", build.stderr);
    assert_eq!(ran(&build), 5);
}

/// A cache as BuildKit exports it, in either form.
fn buildkit(registry: &Registry, tag: &str, as_image: bool) {
    let config = registry.add_blob("app", b"{\"layers\":[],\"records\":[]}");
    let descriptor = serde_json::json!({
        "mediaType": "application/vnd.buildkit.cacheconfig.v0",
        "digest": config,
        "size": 26,
    });
    let (kind, manifest) = match as_image {
        true => (
            "application/vnd.oci.image.manifest.v1+json",
            serde_json::json!({"schemaVersion": 2, "config": descriptor, "layers": []}),
        ),
        false => (
            "application/vnd.oci.image.index.v1+json",
            serde_json::json!({"schemaVersion": 2, "manifests": [descriptor]}),
        ),
    };
    registry.add_manifest("app", Some(tag), kind, manifest.to_string().as_bytes());
}

fn cache_of_buildkit(world: &World) {
    dockerfile(world);
    let registry = Registry::start();
    let one = Machine::new(world, "one");
    for as_image in [true, false] {
        buildkit(&registry, "cache", as_image);
        let build = one.build(&["--cache-from", &from(&registry), "--no-cache"]);
        assert!(
            says(&build, "is a cache of BuildKit, not a cache of kiln"),
            "{}",
            build.stderr
        );
    }
    // It is not replaced either.
    let spec = to(&registry);
    let build = one.kiln(&["build", "--cache-to", &spec, "ctx"]).exits(1);
    assert!(says(&build, "is a cache of BuildKit"), "{}", build.stderr);
    assert!(
        says(&build, "give the cache a tag of its own"),
        "{}",
        build.stderr
    );
}

/// What a kiln of the future left: told, not used, and not replaced.
fn newer_cache(world: &World) {
    dockerfile(world);
    let registry = Registry::start();
    let document = br#"{"version":7,"anything":[]}"#;
    let config = registry.add_blob("app", document);
    let one = Machine::new(world, "one");
    for (version, found) in [("v7+json", "version 7"), ("v0+json", "version 7")] {
        let manifest = serde_json::json!({"schemaVersion": 2, "layers": [], "config": {
            "mediaType": format!("application/vnd.kiln.cache.config.{version}"),
            "digest": config,
            "size": document.len(),
        }});
        let kind = "application/vnd.oci.image.manifest.v1+json";
        registry.add_manifest("app", Some("cache"), kind, manifest.to_string().as_bytes());
        let build = one.build(&["--cache-from", &from(&registry), "--no-cache"]);
        assert!(says(&build, found), "{}", build.stderr);
        assert_eq!(ran(&build), 5, "{}", build.stderr);
        let before = registry.manifest("app", "cache");
        let spec = to(&registry);
        let build = one.kiln(&["build", "--cache-to", &spec, "ctx"]).exits(1);
        assert!(says(&build, "a newer kiln wrote it"), "{}", build.stderr);
        assert_eq!(registry.manifest("app", "cache"), before);
    }
}

fn image_not_replaced(world: &World) {
    dockerfile(world);
    let registry = Registry::start();
    registry.add_image("app", "cache", b"{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}", &[]);
    let before = registry.manifest("app", "cache");
    let one = Machine::new(world, "one");
    let spec = to(&registry);
    let build = one.kiln(&["build", "--cache-to", &spec, "ctx"]).exits(1);
    assert!(says(&build, "not a cache of kiln"), "{}", build.stderr);
    assert_eq!(registry.manifest("app", "cache"), before);
    let build = one.build(&["--cache-from", &from(&registry)]);
    assert!(
        says(&build, "is an image without a cache"),
        "{}",
        build.stderr
    );
}

fn registry_refuses(world: &World) {
    dockerfile(world);
    let registry = Registry::builder()
        .auth(Auth::Basic {
            user: "me".to_owned(),
            password: "secret".to_owned(),
        })
        .start();
    let one = Machine::new(world, "one");
    // Neither is a failure of what is built.
    let build = one.build(&["--cache-from", &from(&registry)]);
    assert!(says(&build, "is not used"), "{}", build.stderr);
    let spec = to(&registry);
    let refused = one
        .kiln(&["build", "-t", "app", "--cache-to", &spec, "ctx"])
        .exits(1);
    assert!(refused.id().starts_with("sha256:"), "{}", refused.whole());
    assert!(says(&refused, "not authorised"), "{}", refused.stderr);
    one.build(&["--cache-to", &format!("{spec},ignore-error=true")]);
}

fn several_caches(world: &World) {
    let registry = Registry::start();
    let one = Machine::new(world, "one");
    for name in ["first", "second"] {
        single(world, name);
        let place = match name {
            "first" => format!("type=registry,ref={}/app:first", registry.host()),
            _ => "type=local,dest=second-cache,compression=zstd".to_owned(),
        };
        one.kiln(&["build", "--cache-to", &place, name]).ok();
    }
    let two = Machine::new(world, "two");
    let first = format!("{}/app:first", registry.host());
    for name in ["first", "second"] {
        let found = two
            .kiln(&["build", "--cache-from", &first, "--cache-from"])
            .args(&["type=local,src=second-cache", name])
            .ok();
        assert_eq!(ran(&found), 0, "{}", found.stderr);
    }
    // Both at once.
    let both = two
        .kiln(&["build", "--cache-to", &to(&registry), "--cache-to"])
        .args(&["type=local,dest=both", "first"])
        .ok();
    assert!(
        both.stderr.matches("cached 1 results in").count() == 2,
        "{}",
        both.stderr
    );
}

fn offline(world: &World) {
    let (registry, _) = filled(world);
    let asked = registry.log().len();
    let one = Machine::new(world, "one");
    let build = one.build(&["--offline", "--cache-from", &from(&registry)]);
    assert!(says(&build, "--offline forbids it"), "{}", build.stderr);
    assert_eq!(registry.log().len(), asked);
}

fn real_registry(world: &World) {
    dockerfile(world);
    let registry = DockerRegistry::start(world);
    let host = registry.host().to_owned();
    let (one, two) = (Machine::new(world, "one"), Machine::new(world, "two"));
    let place = format!("type=registry,ref={host}/app:cache,mode=max,compression=zstd");
    let first = one.build(&["--cache-to", &place]);
    // Other tools copy it as they copy images.
    let copy = |tag: &str| format!("docker://{host}/{tag}");
    world
        .program(
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                "--quiet",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
                &copy("app:cache"),
                &copy("elsewhere/app:copied"),
            ],
        )
        .ok();
    let from = format!("{host}/elsewhere/app:copied");
    check_all_found(&two.build(&["--cache-from", &from]), first.id());
    // With the media types that docker knows.
    let docker = format!("type=registry,ref={host}/app:docker,mode=max,oci-mediatypes=false");
    one.build(&["--cache-to", &docker]);
    let three = Machine::new(world, "three");
    let third = three.build(&["--cache-from", &format!("{host}/app:docker")]);
    assert_eq!(ran(&third), 0, "{}", third.stderr);
}
