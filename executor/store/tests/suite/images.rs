//! Images, names, pulls, builds, contexts and archives.

use std::time::{Duration, SystemTime};

use kiln_store::{
    BlobDigest, Build, Content, DiffId, FoundBuild, ImageId, Pulled, Store, StoreError,
};

use crate::fixture::{Fixture, diff_layer, fixture, image, layer};

/// A store with three images, two of which begin alike.
fn three() -> Fixture {
    let f = fixture();
    let content = layer(&f.store, &f.lease, &[("a", "")]).content;
    for (first, second) in [(0xab, 0xcd), (0xab, 0xce), (0x12, 0x34)] {
        let mut id = [0; 32];
        (id[0], id[1]) = (first, second);
        f.store.put_image(&f.lease, &image(id, &[content])).unwrap();
    }
    f
}

fn id(text: &str) -> ImageId {
    format!("sha256:{text:0<64}").parse().unwrap()
}

fn check(store: &Store, name: &str, expected: Result<&str, &str>) {
    let got = store.resolve_image(&store.lease(), name);
    match expected {
        Ok(hex) => assert_eq!(got.unwrap().id, id(hex), "{name}"),
        Err(text) => assert_eq!(got.unwrap_err().to_string(), text, "{name}"),
    }
}

#[test]
fn names_and_prefixes() {
    let f = three();
    f.store
        .tag(&id("1234"), b"manifest", "docker.io/library/a:latest")
        .unwrap();
    f.store.tag(&id("abce"), b"manifest", "abcd").unwrap();
    let check = |name: &str, expected: Result<&str, &str>| check(&f.store, name, expected);
    check("docker.io/library/a:latest", Ok("1234"));
    check("1234", Ok("1234"));
    check("sha256:12340", Ok("1234"));
    check(&id("1234").hex(), Ok("1234"));
    // A name goes before a prefix.
    check("abcd", Ok("abce"));
    check("abcd0", Ok("abcd"));
    let missing = |name: &str| {
        format!("no image is called `{name}`; `kiln images` lists those that are there")
    };
    for name in ["123", "1235", "", "123%", "12_4", "sha256:", "ABCD0"] {
        let expected = missing(name);
        check(name, Err(&expected));
    }
}

#[test]
fn an_ambiguous_prefix_lists_what_fits() {
    let f = fixture();
    for last in [1, 2] {
        let mut id = [0xab; 32];
        id[31] = last;
        f.store.put_image(&f.lease, &image(id, &[])).unwrap();
    }
    let error = f.store.resolve_image(&f.lease, "abab").unwrap_err();
    let StoreError::AmbiguousImage { matches, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(matches.len(), 2);
    assert!(error.to_string().ends_with("; give more digits"), "{error}");
}

#[test]
fn a_name_moves_and_tells_whose_it_was() {
    let f = three();
    assert_eq!(f.store.tag(&id("1234"), b"manifest", "a").unwrap(), None);
    assert_eq!(f.store.tag(&id("1234"), b"manifest", "a").unwrap(), None);
    assert_eq!(
        f.store.tag(&id("abcd"), b"manifest", "a").unwrap(),
        Some(id("1234"))
    );
    assert_eq!(
        f.store.image_by_name(&f.lease, "a").unwrap().unwrap().id,
        id("abcd")
    );
    assert_eq!(f.store.untag("a").unwrap(), id("abcd"));
    assert!(f.store.image_by_name(&f.lease, "a").unwrap().is_none());
    assert!(matches!(
        f.store.untag("a"),
        Err(StoreError::NoSuchImage { .. })
    ));
    assert!(matches!(
        f.store.tag(&id("9999"), b"manifest", "b"),
        Err(StoreError::NoSuchImage { .. })
    ));
}

#[test]
fn names_by_digest_go_with_the_last_tag() {
    let f = three();
    let by_digest = |id: &ImageId| f.store.name_by_digest(id, b"pushed", "host/a@sha256:12");
    let is_known = || f.store.image_by_name(&f.lease, "host/a@sha256:12").unwrap();
    // One without a tag gets none.
    by_digest(&id("1234")).unwrap();
    assert!(is_known().is_none());
    f.store.tag(&id("1234"), b"manifest", "a:1").unwrap();
    f.store.tag(&id("1234"), b"manifest", "a:2").unwrap();
    by_digest(&id("1234")).unwrap();
    assert_eq!(is_known().unwrap().manifest, b"pushed");
    f.store.untag("a:1").unwrap();
    assert!(is_known().is_some());
    f.store.tag(&id("abcd"), b"manifest", "a:2").unwrap();
    assert!(is_known().is_none());
    // One that was asked for as such needs no tag.
    f.store
        .tag(&id("abcd"), b"manifest", "host/a@sha256:12")
        .unwrap();
    f.store.untag("host/a@sha256:12").unwrap();
    f.store
        .tag(&id("abce"), b"manifest", "host/a@sha256:12")
        .unwrap();
    assert_eq!(is_known().unwrap().id, id("abce"));
}

#[test]
fn a_name_keeps_its_manifest() {
    let f = three();
    let with = |manifest: &[u8]| kiln_store::NewImage {
        manifest: manifest.to_vec(),
        ..image(id("abcd").0, &[])
    };
    let put = |manifest: &[u8], name: &str| {
        f.store.put_image(&f.lease, &with(manifest)).unwrap();
        f.store.tag(&id("abcd"), manifest, name).unwrap();
    };
    put(b"gzip", "a");
    put(b"zstd", "b");
    let manifest = |name: &str| f.store.resolve_image(&f.lease, name).unwrap().manifest;
    assert_eq!(manifest("a"), b"gzip");
    assert_eq!(manifest("b"), b"zstd");
    assert_eq!(f.store.peek_image("a").unwrap().manifest, b"gzip");
    // By its id it is what it was last.
    assert_eq!(manifest(&id("abcd").to_string()), b"zstd");
}

#[test]
fn the_list_has_names_and_the_untagged() {
    let f = three();
    f.store.tag(&id("abcd"), b"manifest", "z").unwrap();
    f.store.tag(&id("abcd"), b"manifest", "a").unwrap();
    let list = f.store.images().unwrap();
    let names: Vec<_> = list
        .iter()
        .map(|named| (named.image.id, named.names.join(" ")))
        .collect();
    assert!(names.contains(&(id("abcd"), "a z".into())));
    assert!(names.contains(&(id("1234"), String::new())));
    f.store.remove_image(&id("abcd")).unwrap();
    assert_eq!(f.store.images().unwrap().len(), 2);
    assert!(f.store.image_by_name(&f.lease, "a").unwrap().is_none());
}

#[test]
fn an_image_needs_its_layers() {
    let f = fixture();
    let gone = Content::DiffId(DiffId([1; 32]));
    let error = f
        .store
        .put_image(&f.lease, &image([1; 32], &[gone]))
        .unwrap_err();
    assert!(matches!(error, StoreError::NoSuchLayer(_)), "{error}");
}

#[test]
fn a_pull_is_remembered_by_reference_and_platform() {
    let f = fixture();
    let there = diff_layer(&f.store, &f.lease, DiffId([1; 32]), "x");
    let pulled = Pulled {
        reference: "docker.io/library/alpine:latest".into(),
        platform: "linux/amd64".into(),
        manifest_digest: BlobDigest([3; 32]),
        manifest: b"{}".to_vec(),
        config: b"{ }".to_vec(),
        diff_ids: vec![DiffId([1; 32]), DiffId([2; 32])],
        pulled_at: SystemTime::UNIX_EPOCH + Duration::from_secs(86_400),
    };
    f.store.put_pulled(&pulled).unwrap();
    let newer = Pulled {
        manifest_digest: BlobDigest([4; 32]),
        ..pulled.clone()
    };
    f.store.put_pulled(&newer).unwrap();
    let get = |platform: &str| {
        f.store
            .pulled(&f.lease, &pulled.reference, platform)
            .unwrap()
    };
    assert_eq!(get("linux/amd64"), Some(newer));
    assert_eq!(get("linux/arm64"), None);
    assert!(f.store.layer(&there).unwrap().is_some());
}

#[test]
fn builds_are_kept_up_to_a_number() {
    let dir = tempfile::tempdir().unwrap();
    let options = kiln_store::StoreOptions {
        keep_builds: 3,
        ..Default::default()
    };
    let store = Store::open(&dir.path().join("store"), options).unwrap();
    for number in 0..5 {
        let build = Build {
            id: format!("b{number}"),
            started: SystemTime::UNIX_EPOCH,
            duration: Duration::from_millis(30),
            context: ".".into(),
            dockerfile: "Dockerfile".into(),
            target: String::new(),
            tags: vec!["a".into(), "b".into()],
            result: "ok".into(),
            steps: vec![number],
            details: vec![9],
        };
        let log = kiln_store::StepLog {
            step: 1,
            bytes: 10,
            head: vec![number],
            tail: vec![],
        };
        let new = kiln_store::NewBuild {
            build,
            plan: vec![number],
            logs: vec![log],
        };
        store.put_build(&new).unwrap();
    }
    let ids = |limit| {
        store
            .builds(limit)
            .unwrap()
            .into_iter()
            .map(|b| b.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(10), ["b4", "b3", "b2"]);
    assert_eq!(ids(1), ["b4"]);
    let FoundBuild::One(found) = store.build("b3").unwrap() else {
        panic!("`b3` is not found");
    };
    assert_eq!(
        (found.tags, found.details),
        (vec!["a".into(), "b".into()], vec![9])
    );
    let several = ["b4", "b3", "b2"].map(str::to_owned).to_vec();
    assert_eq!(store.build("b").unwrap(), FoundBuild::Several(several));
    assert_eq!(store.build("b0").unwrap(), FoundBuild::None);
    // What was kept of a build goes with it.
    assert_eq!(store.build_plan("b3").unwrap(), Some(vec![3]));
    assert_eq!(store.build_logs("b3").unwrap()[0].head, [3]);
    assert_eq!(store.build_logs("b0").unwrap(), []);
    assert!(store.forget_build("b3").unwrap());
    assert!(!store.forget_build("b3").unwrap());
    assert_eq!(store.build_plan("b3").unwrap(), None);
    assert_eq!(store.usage().unwrap().builds.count, 2);
    let swept = store.sweep(kiln_store::Policy::KeepDuration(Duration::from_secs(1)));
    assert_eq!(swept.unwrap().builds, 2);
    assert_eq!(
        store.usage().unwrap().builds,
        kiln_store::UsageLine::default()
    );
}

#[test]
fn context_trees_and_hashes_come_back() {
    let f = fixture();
    let (a, b) = ([1; 32], [2; 32]);
    f.store.put_trees(&[(a, b"one"), (b, b"two")]).unwrap();
    f.store.put_trees(&[(a, b"one")]).unwrap();
    assert_eq!(
        f.store.get_tree(&a).unwrap().as_deref(),
        Some(b"one".as_slice())
    );
    assert!(f.store.has_tree(&b).unwrap());
    assert_eq!(f.store.get_tree(&[3; 32]).unwrap(), None);

    assert_eq!(f.store.hash_memory("/src").unwrap(), None);
    f.store.put_hash_memory("/src", b"memory").unwrap();
    assert_eq!(
        f.store.hash_memory("/src").unwrap().as_deref(),
        Some(b"memory".as_slice())
    );
    let contexts = f.store.root().join("contexts");
    let file = std::fs::read_dir(contexts)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::write(file, vec![0; 100]).unwrap();
    assert_eq!(f.store.hash_memory("/src").unwrap(), None);
}

#[test]
fn archives_are_found_by_all_that_decides_their_bytes() {
    let f = fixture();
    let content = layer(&f.store, &f.lease, &[("a", "")]).content;
    let blob = crate::fixture::blob(&f.store, &f.lease, b"archive");
    let diff_id = DiffId([7; 32]);
    assert_eq!(f.store.diff_id(&content, "epoch=0").unwrap(), None);
    f.store
        .put_compressed(&content, "epoch=0", "gzip-6", &blob, &diff_id)
        .unwrap();
    let get = |options, compression| {
        f.store
            .compressed(&f.lease, &content, options, compression)
            .unwrap()
    };
    let found = get("epoch=0", "gzip-6").unwrap();
    assert_eq!(
        (found.blob, found.diff_id, found.size_bytes),
        (blob, diff_id, 7)
    );
    assert_eq!(get("epoch=1", "gzip-6"), None);
    assert_eq!(get("epoch=0", "zstd-3"), None);
    assert_eq!(f.store.diff_id(&content, "epoch=0").unwrap(), Some(diff_id));
    let nowhere = BlobDigest([0; 32]);
    let error = f
        .store
        .put_compressed(&content, "", "", &nowhere, &diff_id)
        .unwrap_err();
    assert!(matches!(error, StoreError::NoSuchBlob(_)), "{error}");
}

#[test]
fn builds_that_only_remember_settle_too() {
    let f = fixture();
    f.store.mark_durable().unwrap();
    assert!(!f.store.wants_settling().unwrap());
    for number in 0..12 {
        let build = Build {
            id: format!("b{number}"),
            started: SystemTime::UNIX_EPOCH,
            duration: Duration::ZERO,
            context: ".".into(),
            dockerfile: "Dockerfile".into(),
            target: String::new(),
            tags: vec![],
            result: "ok".into(),
            steps: vec![7; 100_000],
            details: vec![],
        };
        let new = kiln_store::NewBuild {
            build,
            plan: vec![],
            logs: vec![],
        };
        f.store.put_build(&new).unwrap();
    }
    assert!(f.store.wants_settling().unwrap());
    f.store.mark_durable().unwrap();
    assert!(!f.store.wants_settling().unwrap());
}
