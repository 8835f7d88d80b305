//! Exports of several platforms: an index, or a directory each.

use super::*;

/// An image for two platforms, whose layers have a file in common by name and one of their own.
fn two(world: &World) -> ImageToExport {
    let result = |platform: &str| {
        let platform = Platform::parse(platform).unwrap();
        let text = format!("bin/app: {}", platform.architecture);
        let own = format!("only-{}: x", platform.architecture);
        let layer = world.keep(
            &archive(&["bin/", &text, "bin/same = bin/app", &own]),
            false,
        );
        ResultToExport {
            inline_cache: None,
            handle: Some(Handle::layers(vec![layer])),
            config: Some(config::plain_for(&platform)),
            platform: Some(platform),
            ..ResultToExport::default()
        }
    };
    ImageToExport {
        results: vec![result("linux/amd64"), result("linux/arm/v7")],
        tags: vec!["kiln.test/app:1".to_owned()],
        ..ImageToExport::default()
    }
}

fn platforms(index: &Index) -> Vec<String> {
    let platform = |entry: &Descriptor| entry.platform.as_ref().unwrap().to_string();
    index.manifests.iter().map(platform).collect()
}

#[test]
fn a_layout_has_an_index_that_names_each_platform() {
    let world = World::new();
    let layout = world.path("layout");
    let exported = world.export(
        &two(&world),
        Export::OciDirectory {
            destination: layout.clone(),
            options: ImageOptions::default(),
        },
    );
    let top = Index::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(top.manifests.len(), 1);
    let root = &top.manifests[0];
    assert_eq!(root.media_type, Flavor::Oci.index());
    assert_eq!(root.platform, None);
    assert_eq!(
        root.annotations[annotation::CONTAINERD_NAME],
        "kiln.test/app:1"
    );
    assert_eq!(exported.image_id, Some(root.digest.to_string()));
    assert!(exported.is_index);
    let blob = |digest: &kiln_oci::digest::Sha256Digest| {
        fs::read(layout.join("blobs/sha256").join(digest.hex())).unwrap()
    };
    let index = Index::from_slice(&blob(&root.digest)).unwrap();
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm/v7"]);
    for entry in &index.manifests {
        let manifest = Manifest::from_slice(&blob(&entry.digest)).unwrap();
        let config = ImageConfig::from_json(&blob(&manifest.config.digest)).unwrap();
        let platform = entry.platform.as_ref().unwrap();
        assert_eq!(config.architecture, platform.architecture);
        assert_eq!(config.variant, platform.variant);
        assert!(!blob(&manifest.layers[0].digest).is_empty());
    }
}

#[test]
fn the_store_keeps_one_image_of_two() {
    let world = World::new();
    let image = two(&world);
    let export = || {
        world.export(
            &image,
            Export::Image {
                options: ImageOptions::default(),
            },
        )
    };
    let first = export();
    assert!(first.is_index && !first.same_as_before);
    let listed = world.executor.images().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].platforms, ["linux/amd64", "linux/arm/v7"]);
    assert_eq!(Some(&listed[0].id), first.image_id.as_ref());
    let details = world.executor.image_details("kiln.test/app:1").unwrap();
    let index = Index::from_slice(details.index.unwrap().as_bytes()).unwrap();
    assert_eq!(platforms(&index), listed[0].platforms);
    assert_eq!(details.platforms.len(), 2);
    let again = export();
    assert!(again.same_as_before);
    assert_eq!(again.image_id, first.image_id);
    let arm = Platform::parse("linux/arm").unwrap();
    let arm = world
        .executor
        .platform_details("kiln.test/app:1", Some(&arm))
        .unwrap();
    assert_eq!(arm.platform, "linux/arm/v7");
    let s390x = Platform::linux("s390x");
    let error = world
        .executor
        .platform_details("kiln.test/app:1", Some(&s390x))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "`kiln.test/app:1` is for linux/amd64, linux/arm/v7, and linux/s390x is needed"
    );
    let done = world.executor.remove_image("kiln.test/app:1").unwrap();
    assert_eq!(done.len(), 2, "{done:?}");
    assert!(world.executor.images().unwrap().is_empty());
}

#[test]
fn a_base_is_the_member_that_fits() {
    let world = World::new();
    world.export(
        &two(&world),
        Export::Image {
            options: ImageOptions::default(),
        },
    );
    let resolver = Resolver::new(&world.executor);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let resolve = |platform: &str| {
        let platform = Platform::parse(platform).unwrap();
        let mode = kiln_ir::ResolveMode::Default;
        runtime.block_on(resolver.image("kiln.test/app:1", &platform, mode))
    };
    assert_eq!(resolve("linux/arm/v7").unwrap().config.variant, "v7");
    assert_eq!(resolve("linux/amd64").unwrap().config.architecture, "amd64");
    assert!(matches!(
        resolve("linux/riscv64"),
        Err(Error::Platform { .. })
    ));
}

/// The paths of files below a directory, sorted.
fn tree(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => found.push(
                    path.strip_prefix(directory)
                        .unwrap()
                        .to_string_lossy()
                        .into_owned(),
                ),
            }
        }
    }
    found.sort();
    found
}

const SPLIT: [&str; 6] = [
    "linux_amd64/bin/app",
    "linux_amd64/bin/same",
    "linux_amd64/only-amd64",
    "linux_arm_v7/bin/app",
    "linux_arm_v7/bin/same",
    "linux_arm_v7/only-arm",
];

#[test]
fn a_directory_has_a_directory_for_each_platform() {
    let world = World::new();
    let out = world.path("out");
    world.export(
        &two(&world),
        Export::Local {
            destination: out.clone(),
            platform_split: None,
        },
    );
    assert_eq!(tree(&out), SPLIT);
    assert_eq!(fs::read(out.join("linux_arm_v7/bin/same")).unwrap(), b"arm");
}

#[test]
fn a_tar_has_a_directory_for_each_platform() {
    let world = World::new();
    let out = world.path("x.tar");
    let export = Export::Tar {
        destination: file(&out),
        platform_split: None,
    };
    world.export(&two(&world), export.clone());
    let bytes = fs::read(&out).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut files = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let link = entry.link_name().unwrap();
        let link = link.map(|link| link.to_string_lossy().into_owned());
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        if !path.ends_with('/') {
            files.push((path, link.unwrap_or(text)));
        }
    }
    files.sort();
    let paths: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, SPLIT);
    assert_eq!(files[3].1, "arm");
    assert_eq!(files[4].1, "linux_arm_v7/bin/app");
    world.export(&two(&world), export);
    assert_eq!(fs::read(&out).unwrap(), bytes);
}

#[test]
fn one_platform_has_no_directory_unless_it_is_asked_for() {
    let world = World::new();
    let layer = world.keep(&archive(&["file: x"]), false);
    let mut image = world.image(vec![layer]);
    let check = |split, expected: &str| {
        let out = world.path(&format!("out-{split:?}"));
        world.export(
            &image,
            Export::Local {
                destination: out.clone(),
                platform_split: split,
            },
        );
        assert_eq!(tree(&out), [expected]);
    };
    check(None, "file");
    check(Some(false), "file");
    let host = config::plain();
    let named = format!("{}_{}/file", host.os, host.architecture);
    check(Some(true), &named);
    // An index of one is split like an index of two.
    image.results[0].platform = Some(Platform::linux("riscv64"));
    let out = world.path("out-index");
    world.export(
        &image,
        Export::Local {
            destination: out.clone(),
            platform_split: None,
        },
    );
    assert_eq!(tree(&out), ["linux_riscv64/file"]);
}

#[test]
fn without_directories_no_file_is_written_over_another() {
    let world = World::new();
    let mut image = two(&world);
    let export = |image: &ImageToExport| {
        let out = world.path("out");
        let export = Export::Local {
            destination: out.clone(),
            platform_split: Some(false),
        };
        world.try_export(image, &[export]).map(|_| tree(&out))
    };
    let error = export(&image).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`/bin/app` of linux/arm/v7 would be written over that of linux/amd64"
    );
    assert!(!world.path("out").exists());
    let layer = world.keep(&archive(&["bin/", "bin/other: x"]), false);
    image.results[1].handle = Some(Handle::layers(vec![layer]));
    assert_eq!(
        export(&image).unwrap(),
        ["bin/app", "bin/other", "bin/same", "only-amd64"]
    );
    let out = world.path("x.tar");
    let tar = Export::Tar {
        destination: file(&out),
        platform_split: Some(false),
    };
    world.export(&image, tar);
    let bytes = fs::read(&out).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    assert_eq!(archive.entries().unwrap().count(), 5);
}

#[test]
fn a_docker_archive_holds_one_platform() {
    let world = World::new();
    let mut image = two(&world);
    let out = world.path("x.tar");
    let export = |image: &ImageToExport| {
        let export = Export::DockerArchive {
            destination: file(&out),
            options: ImageOptions::default(),
        };
        world.try_export(image, &[export])
    };
    assert!(matches!(
        export(&image),
        Err(Error::OnePlatform { count: 2 })
    ));
    assert!(!out.exists());
    image.results.pop();
    export(&image).unwrap();
    assert!(out.exists());
}
