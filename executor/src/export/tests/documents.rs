//! What manifests and indexes say: media types, annotations, names with digests.

use super::*;

/// The documents of a layout directory.
struct Layout(PathBuf);

impl Layout {
    fn write(world: &World, image: &ImageToExport, options: ImageOptions) -> (Layout, Exported) {
        let destination = world.path("layout");
        let _ = fs::remove_dir_all(&destination);
        let exported = world.export(
            image,
            Export::OciDirectory {
                destination: destination.clone(),
                options,
            },
        );
        (Layout(destination), exported)
    }

    fn root(&self) -> Descriptor {
        let top = Index::from_slice(&fs::read(self.0.join("index.json")).unwrap()).unwrap();
        assert_eq!(top.media_type, Flavor::Oci.index());
        top.manifests[0].clone()
    }

    fn blob(&self, digest: &kiln_oci::digest::Sha256Digest) -> Vec<u8> {
        fs::read(self.0.join("blobs/sha256").join(digest.hex())).unwrap()
    }

    fn index(&self) -> Index {
        Index::from_slice(&self.blob(&self.root().digest)).unwrap()
    }

    fn manifest(&self, descriptor: &Descriptor) -> Manifest {
        Manifest::from_slice(&self.blob(&descriptor.digest)).unwrap()
    }
}

fn two_platforms(world: &World) -> ImageToExport {
    let result = |platform: &str| {
        let platform = Platform::parse(platform).unwrap();
        ResultToExport {
            handle: Some(Handle::layers(vec![world.keep(&archive(APP), false)])),
            config: Some(config::plain_for(&platform)),
            platform: Some(platform),
            ..ResultToExport::default()
        }
    };
    ImageToExport {
        results: vec![result("linux/amd64"), result("linux/arm64")],
        ..ImageToExport::default()
    }
}

fn annotation(place: AnnotationPlace, platform: Option<&str>, value: &str) -> Annotation {
    Annotation {
        place,
        platform: platform.map(|platform| Platform::parse(platform).unwrap()),
        key: "org.example.key".to_owned(),
        value: value.to_owned(),
    }
}

fn value(annotations: &BTreeMap<String, String>) -> &str {
    annotations
        .get("org.example.key")
        .map_or("", String::as_str)
}

#[test]
fn media_types_are_all_of_one_kind() {
    let world = World::new();
    let docker = ImageOptions {
        flavor: Some(Flavor::Docker),
        ..ImageOptions::default()
    };
    let (layout, exported) = Layout::write(&world, &two_platforms(&world), docker.clone());
    let root = layout.root();
    assert_eq!(root.media_type, Flavor::Docker.index());
    assert!(exported.is_index);
    assert_eq!(exported.image_id, Some(root.digest.to_string()));
    let index = layout.index();
    assert_eq!(index.media_type, Flavor::Docker.index());
    for entry in &index.manifests {
        assert_eq!(entry.media_type, Flavor::Docker.manifest());
        let manifest = layout.manifest(entry);
        assert_eq!(manifest.media_type, Flavor::Docker.manifest());
        assert_eq!(manifest.config.media_type, Flavor::Docker.config());
        let gzip = Flavor::Docker.layer(Compression::Gzip);
        assert_eq!(manifest.layers[0].media_type, gzip);
    }
    let image = world.image(vec![world.keep(&archive(APP), false)]);
    let (layout, _) = Layout::write(&world, &image, docker);
    tool(
        "skopeo",
        &["inspect".as_ref(), &transport("oci", &layout.0)],
    );
}

#[test]
fn annotations_stand_where_they_were_put() {
    use AnnotationPlace::{Index, IndexDescriptor, Manifest, ManifestDescriptor};
    let world = World::new();
    let options = ImageOptions {
        annotations: vec![
            annotation(Index, None, "index"),
            annotation(IndexDescriptor, None, "index descriptor"),
            annotation(Manifest, None, "manifest"),
            annotation(Manifest, Some("linux/arm64/v8"), "manifest of arm"),
            annotation(ManifestDescriptor, Some("linux/amd64"), "descriptor of amd"),
        ],
        ..ImageOptions::default()
    };
    let image = two_platforms(&world);
    let (layout, exported) = Layout::write(&world, &image, options.clone());
    assert_eq!(value(&layout.root().annotations), "index descriptor");
    assert_eq!(
        value(&exported.manifest.unwrap().annotations),
        "index descriptor"
    );
    let index = layout.index();
    assert_eq!(value(&index.annotations), "index");
    let [amd, arm] = &index.manifests[..] else {
        panic!("{index:?}")
    };
    assert_eq!(value(&amd.annotations), "descriptor of amd");
    assert_eq!(value(&arm.annotations), "");
    assert_eq!(value(&layout.manifest(amd).annotations), "manifest");
    assert_eq!(value(&layout.manifest(arm).annotations), "manifest of arm");

    // kiln's store keeps them too.
    let kept = world.export(&image, Export::Image { options });
    let details = world
        .executor
        .image_details(kept.image_id.as_ref().unwrap())
        .unwrap();
    assert!(details.index.unwrap().contains("\"descriptor of amd\""));
    assert!(
        details.platforms[1]
            .manifest
            .contains("\"manifest of arm\"")
    );
}

#[test]
fn the_manifest_of_one_image_has_its_own() {
    use AnnotationPlace::{Index, Manifest, ManifestDescriptor};
    let world = World::new();
    let image = world.image(vec![world.keep(&archive(APP), false)]);
    let options = |annotations: Vec<Annotation>| ImageOptions {
        annotations,
        ..ImageOptions::default()
    };
    let both = vec![
        annotation(Manifest, None, "here"),
        annotation(ManifestDescriptor, None, "above"),
    ];
    let (layout, exported) = Layout::write(&world, &image, options(both.clone()));
    assert_eq!(value(&layout.root().annotations), "above");
    assert_eq!(value(&layout.manifest(&layout.root()).annotations), "here");
    let described = exported.manifest.unwrap();
    assert_eq!(
        described.annotations.get("config.digest"),
        exported.image_id.as_ref()
    );
    // The same image without them is kept as such.
    let kept = |annotations| {
        let options = options(annotations);
        let id = world.export(&image, Export::Image { options }).image_id;
        world
            .executor
            .image_details(&id.unwrap())
            .unwrap()
            .platforms[0]
            .manifest
            .clone()
    };
    assert!(kept(both).contains("\"here\""));
    assert!(!kept(vec![]).contains("annotations"));
    let refused = world.try_export(
        &image,
        &[Export::Image {
            options: options(vec![annotation(Index, None, "nowhere")]),
        }],
    );
    assert!(matches!(refused, Err(Error::IndexAnnotation { .. })));
}

#[test]
fn names_may_have_the_digest() {
    let world = World::new();
    let mut image = world.image(vec![world.keep(&archive(APP), false)]);
    let options = ImageOptions {
        name_canonical: true,
        dangling_name_prefix: Some("none".to_owned()),
        ..ImageOptions::default()
    };
    let canonical = world.export(
        &image,
        Export::Image {
            options: options.clone(),
        },
    );
    let digest = canonical.manifest_digest().unwrap().to_owned();
    assert_eq!(
        canonical.names,
        [
            "kiln.test/app:1".to_owned(),
            format!("kiln.test/app:1@{digest}")
        ]
    );
    let by_name = world.executor.image_details(&canonical.names[1]).unwrap();
    // It is the manifest that a registry will have.
    let manifest = &by_name.platforms[0].manifest;
    assert!(manifest.contains("tar+gzip"), "{manifest}");
    assert_eq!(Some(by_name.id), canonical.image_id);
    image.tags.clear();
    let dangling = world.export(&image, Export::Image { options });
    assert_eq!(dangling.names.len(), 1);
    assert!(
        dangling.names[0].ends_with(&format!("none@{digest}")),
        "{:?}",
        dangling.names
    );
}
