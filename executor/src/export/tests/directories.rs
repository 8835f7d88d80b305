//! Exports into directories: layouts, and plain files.

use super::*;

#[test]
fn a_layout_takes_more_images() {
    let world = World::new();
    let layout = world.path("layout");
    let export = |tag: &str, layer: Content| {
        let image = ImageToExport {
            tags: vec![tag.to_owned()],
            ..world.image(vec![layer])
        };
        world.export(
            &image,
            Export::OciDirectory {
                destination: layout.clone(),
                options: ImageOptions::default(),
            },
        )
    };
    let names = || {
        let index = Index::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        let name = |entry: &Descriptor| {
            (
                entry.annotations[annotation::CONTAINERD_NAME].clone(),
                entry.digest.to_string(),
            )
        };
        index.manifests.iter().map(name).collect::<Vec<_>>()
    };
    let (one, two) = (
        world.keep(&archive(APP), false),
        world.keep(&archive(&["x: 1"]), false),
    );
    let first = export("x.test/a:1", one).manifest.unwrap().digest;
    let second = export("x.test/b:1", two).manifest.unwrap().digest;
    assert_eq!(
        names(),
        [
            ("x.test/a:1".to_owned(), first),
            ("x.test/b:1".to_owned(), second.clone())
        ]
    );
    export("x.test/a:1", two);
    assert_eq!(
        names(),
        [
            ("x.test/b:1".to_owned(), second.clone()),
            ("x.test/a:1".to_owned(), second)
        ]
    );
}

#[test]
fn images_that_are_written_at_once_are_all_there() {
    let world = World::new();
    let layer = world.keep(&archive(APP), false);
    for round in 0..5 {
        let layout = world.path(&format!("layout-{round}"));
        std::thread::scope(|scope| {
            for job in 0..4 {
                let (world, layout) = (&world, &layout);
                scope.spawn(move || {
                    let image = ImageToExport {
                        tags: vec![format!("x.test/app:{job}")],
                        ..world.image(vec![layer])
                    };
                    let options = ImageOptions::default();
                    let destination = layout.clone();
                    world.export(
                        &image,
                        Export::OciDirectory {
                            destination,
                            options,
                        },
                    );
                });
            }
        });
        let index = Index::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        assert_eq!(index.manifests.len(), 4);
    }
}

#[test]
fn another_directory_is_no_layout() {
    let world = World::new();
    let image = world.image(vec![world.keep(&archive(APP), false)]);
    let home = world.path("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("thesis"), "all of it").unwrap();
    let export = Export::OciDirectory {
        destination: home.clone(),
        options: ImageOptions::default(),
    };
    let error = world
        .try_export(&image, std::slice::from_ref(&export))
        .unwrap_err();
    assert!(matches!(error, Error::NotALayout { .. }), "{error:?}");
    assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
    fs::remove_file(home.join("thesis")).unwrap();
    world.export(&image, export);
}

#[test]
fn files_go_into_a_directory() {
    let world = World::new();
    let lower = world.keep(&archive(APP), false);
    let upper = world.keep(&archive(&["app/.wh.link: ", "app/new: text"]), false);
    let out = world.path("a/b");
    world.export(
        &world.image(vec![lower, upper]),
        Export::Local {
            destination: out.clone(),
            platform_split: None,
        },
    );
    assert_eq!(fs::read(out.join("app/one")).unwrap(), b"first");
    assert!(!out.join("app/link").exists());
    let stat = |path: &str| fs::metadata(out.join(path)).unwrap();
    assert_eq!(stat("app/one").ino(), stat("app/two").ino());
    assert_eq!(stat("app/one").nlink(), 2);
    assert_eq!(stat("app/new").mtime(), 1_500_000_000);
    assert_eq!(stat("app").mtime(), 1_500_000_000);
    assert_eq!(stat("app").permissions().mode() & 0o7777, 0o750);
    // The image's owner is not the caller, who must not lend rights to what others run.
    assert_eq!(stat("app/run.sh").permissions().mode() & 0o7777, 0o755);
    assert_eq!(stat("app/one").uid(), rustix::process::geteuid().as_raw());
    // Once more, over what is there; other files stay.
    fs::write(out.join("app/one"), "edited").unwrap();
    fs::write(out.join("mine"), "mine").unwrap();
    let image = ImageToExport {
        source_date_epoch: Some(7),
        ..world.image(vec![lower, upper])
    };
    world.export(
        &image,
        Export::Local {
            destination: out.clone(),
            platform_split: None,
        },
    );
    assert_eq!(fs::read(out.join("app/one")).unwrap(), b"first");
    assert_eq!(fs::read(out.join("mine")).unwrap(), b"mine");
    assert_eq!(stat("app/one").mtime(), 7);
    assert_eq!(stat("app").mtime(), 7);
}

#[test]
fn no_link_leads_an_export_out_of_its_directory() {
    let world = World::new();
    let victim = world.path("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), "precious").unwrap();
    let out = world.path("out");
    fs::create_dir(&out).unwrap();
    // Links that were there before the export, and one of the image's own.
    std::os::unix::fs::symlink(&victim, out.join("dir")).unwrap();
    std::os::unix::fs::symlink(victim.join("file"), out.join("file")).unwrap();
    let escape = format!("escape -> {}", victim.display());
    let lower = world.keep(
        &archive(&["dir/", "dir/file: gone", "file: gone", &escape]),
        false,
    );
    world.export(
        &world.image(vec![lower]),
        Export::Local {
            destination: out.clone(),
            platform_split: None,
        },
    );
    // The next image has a directory where the last one left its link.
    let upper = world.keep(&archive(&["escape/", "escape/file: gone"]), false);
    world.export(
        &world.image(vec![upper]),
        Export::Local {
            destination: out.clone(),
            platform_split: None,
        },
    );
    assert_eq!(fs::read(victim.join("file")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
    for path in ["dir/file", "file", "escape/file"] {
        assert_eq!(fs::read(out.join(path)).unwrap(), b"gone", "{path}");
    }
}

#[test]
fn editing_exported_files_leaves_the_store_alone() {
    let world = World::new();
    let image = world.image(vec![world.keep(&archive(APP), false)]);
    let out = world.path("out");
    world.export(
        &image,
        Export::Local {
            destination: out.clone(),
            platform_split: None,
        },
    );
    fs::write(out.join("app/one"), "edited").unwrap();
    let tar = world.path("x.tar");
    world.export(
        &image,
        Export::Tar {
            destination: file(&tar),
            platform_split: None,
        },
    );
    assert_eq!(files(&fs::read(tar).unwrap())["app/one"], b"first");
}
