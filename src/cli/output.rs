//! Where results go: `-o type=oci,dest=x.tar`, `--annotation`, `--push`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln::{
    Annotation, AnnotationPlace, Compression, Destination, Engine, Export, Flavor, ImageOptions,
    LayerCompression, Platform,
};

use super::spec::{Result, refuse, shown, split_csv};

/// One `-o`.
pub(crate) fn output(spec: &str) -> Result<Export> {
    if spec == "-" {
        return Ok(Export::Tar {
            destination: Destination::Stdout,
            platform_split: None,
        });
    }
    if !spec.contains('=') {
        return Ok(Export::Local {
            destination: PathBuf::from(spec),
            platform_split: None,
        });
    }
    let mut fields = Fields::read(spec)?;
    let Some(kind) = fields.take("type") else {
        return refuse(
            format!("`-o {}` has no type", shown(spec)),
            "as in -o type=local,dest=out",
        );
    };
    let export = match kind.as_str() {
        "image" => image(&mut fields)?,
        "oci" => oci(&mut fields)?,
        "docker" => docker(&mut fields)?,
        "podman" => fields.engine(Some(Engine::Podman))?,
        "containerd" => fields.engine(Some(Engine::Containerd))?,
        "local" => match fields.destination()? {
            Destination::File(destination) => Export::Local {
                destination,
                platform_split: fields.flag("platform-split")?,
            },
            Destination::Stdout => {
                return fields.refuse("a directory cannot go to standard output", "use type=tar");
            }
        },
        "tar" => Export::Tar {
            destination: fields.destination()?,
            platform_split: fields.flag("platform-split")?,
        },
        "cacheonly" => Export::CacheOnly,
        "registry" => registry(&mut fields)?,
        other => {
            return fields.refuse(
                &format!("there is no output type `{other}`"),
                "image, registry, oci, docker, podman, containerd, local, tar and cacheonly are there",
            );
        }
    };
    fields.none_left(&kind)?;
    Ok(export)
}

/// Into kiln's store, to a registry, or both.
fn image(fields: &mut Fields<'_>) -> Result<Export> {
    // Layers lie in kiln's store as files, whatever is said.
    fields.flag("unpack")?;
    let store = fields.flag("store")?.unwrap_or(true);
    let push = fields.flag("push")?.unwrap_or_default();
    let by_digest = fields.flag("push-by-digest")?.unwrap_or_default();
    let options = ImageOptions {
        name_canonical: fields.flag("name-canonical")?.unwrap_or_default(),
        dangling_name_prefix: fields.take("dangling-name-prefix"),
        ..fields.options()?
    };
    match (push, store) {
        (true, keep) => Ok(Export::Registry {
            options,
            by_digest,
            keep,
        }),
        (false, _) if by_digest => fields.refuse(
            "an image that is not pushed is not pushed by its digest",
            "add push=true",
        ),
        (false, true) => Ok(Export::Image { options }),
        (false, false) => fields.refuse(
            "an image that is neither stored nor pushed goes nowhere",
            "add push=true; type=cacheonly builds without a result",
        ),
    }
}

/// To a registry: `type=image,push=true,store=false`.
fn registry(fields: &mut Fields<'_>) -> Result<Export> {
    if fields.flag("push")? == Some(false) {
        return fields.refuse("a registry gets what is pushed", "type=image does not push");
    }
    let keep = fields.flag("store")?.unwrap_or_default();
    fields.flag("unpack")?;
    let by_digest = fields.flag("push-by-digest")?.unwrap_or_default();
    let more = fields.names("ref");
    let mut options = ImageOptions {
        name_canonical: fields.flag("name-canonical")?.unwrap_or_default(),
        dangling_name_prefix: fields.take("dangling-name-prefix"),
        ..fields.options()?
    };
    options.names.extend(more);
    Ok(Export::Registry {
        options,
        by_digest,
        keep,
    })
}

fn oci(fields: &mut Fields<'_>) -> Result<Export> {
    let as_archive = fields.flag("tar")?.unwrap_or(true);
    let options = fields.options()?;
    match (fields.destination()?, as_archive) {
        (destination, true) => Ok(Export::OciArchive {
            destination,
            options,
        }),
        (Destination::File(destination), false) => Ok(Export::OciDirectory {
            destination,
            options,
        }),
        (Destination::Stdout, false) => {
            fields.refuse("a directory cannot go to standard output", "")
        }
    }
}

fn docker(fields: &mut Fields<'_>) -> Result<Export> {
    if fields.flag("tar")? == Some(false) {
        return fields.refuse("a docker image is written as an archive only", "");
    }
    if !fields.left.contains_key("dest") {
        return fields.engine(Some(Engine::Docker));
    }
    Ok(Export::DockerArchive {
        options: fields.options()?,
        destination: fields.destination()?,
    })
}

/// `--load`, perhaps with an engine.
fn load(engine: &str) -> Result<Export> {
    let options = ImageOptions::default();
    if engine.is_empty() {
        return Ok(Export::Engine {
            engine: None,
            options,
        });
    }
    match engine.parse() {
        Ok(engine) => Ok(Export::Engine {
            engine: Some(engine),
            options,
        }),
        Err(_) => refuse(
            format!("`--load={engine}`: there is no engine `{engine}`"),
            "docker, podman and containerd are there",
        ),
    }
}

/// The fields of one `-o`, taken one by one.
struct Fields<'a> {
    spec: &'a str,
    left: BTreeMap<String, String>,
}

impl<'a> Fields<'a> {
    fn read(spec: &'a str) -> Result<Fields<'a>> {
        let mut fields = Fields {
            spec,
            left: BTreeMap::new(),
        };
        for field in split_csv(spec) {
            let Some((key, value)) = field.split_once('=') else {
                return fields.refuse(
                    &format!("`{field}` is not KEY=VALUE"),
                    "as in -o type=oci,dest=image.tar",
                );
            };
            // Keys of annotations are the caller's.
            let key = match key.trim() {
                key if key.starts_with(ANNOTATION) => key.to_owned(),
                key => key.to_lowercase(),
            };
            if fields.left.insert(key.clone(), value.to_owned()).is_some() {
                return refuse(format!("`-o {}` says `{key}` twice", shown(spec)), "");
            }
        }
        Ok(fields)
    }

    fn refuse<T>(&self, message: &str, hint: &str) -> Result<T> {
        refuse(format!("`-o {}`: {message}", shown(self.spec)), hint)
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.left.remove(key)
    }

    /// A truth as Go reads it.
    fn flag(&mut self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        match value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => self.refuse(
                &format!("`{key}={value}` is neither true nor false"),
                &format!("as in {key}=false"),
            ),
        }
    }

    fn destination(&mut self) -> Result<Destination> {
        match self.take("dest").as_deref() {
            None | Some("") => self.refuse(
                "it has no dest",
                "add dest=PATH, or dest=- for standard output",
            ),
            Some("-") => Ok(Destination::Stdout),
            Some(path) => Ok(Destination::File(PathBuf::from(path))),
        }
    }

    fn options(&mut self) -> Result<ImageOptions> {
        let packing = self.packing()?;
        let is_zstd = packing.is_some_and(|packing| packing.compression == Compression::Zstd);
        let flavor = match self.flag("oci-mediatypes")? {
            Some(true) => Some(Flavor::Oci),
            Some(false) if is_zstd => {
                return self.refuse(
                    "docker has no media type for zstd",
                    "leave `oci-mediatypes=false` out, or compress with gzip",
                );
            }
            Some(false) => Some(Flavor::Docker),
            None => None,
        };
        Ok(ImageOptions {
            names: self.names("name"),
            flavor,
            packing,
            annotations: self.annotations()?,
            rewrite_timestamp: self.flag("rewrite-timestamp")?,
            ..ImageOptions::default()
        })
    }

    /// Into another engine of this host, which keeps neither annotations nor a compression.
    fn engine(&mut self, engine: Option<Engine>) -> Result<Export> {
        let options = ImageOptions {
            names: self.names("name"),
            rewrite_timestamp: self.flag("rewrite-timestamp")?,
            ..ImageOptions::default()
        };
        Ok(Export::Engine { engine, options })
    }

    fn names(&mut self, key: &str) -> Vec<String> {
        let names = self.take(key).unwrap_or_default();
        let names = names.split(',').map(str::trim);
        names
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn packing(&mut self) -> Result<Option<LayerCompression>> {
        let compression = match self.take("compression").as_deref() {
            None => None,
            Some("gzip") => Some(Compression::Gzip),
            Some("zstd") => Some(Compression::Zstd),
            Some("uncompressed") => Some(Compression::None),
            Some(other) => {
                return self.refuse(
                    &format!("layers are not compressed with `{other}` here"),
                    "gzip, zstd and uncompressed are there",
                );
            }
        };
        let level = self.take("compression-level");
        let force = self.flag("force-compression")?;
        if (compression, &level, force) == (None, &None, None) {
            return Ok(None);
        }
        let compression = compression.unwrap_or_default();
        let level = level.map(|level| level_of(compression, &level)).transpose();
        let level = match level {
            Ok(level) => level,
            Err((message, hint)) => return self.refuse(&message, &hint),
        };
        Ok(Some(LayerCompression {
            compression,
            level,
            force: force.unwrap_or_default(),
        }))
    }

    fn annotations(&mut self) -> Result<Vec<Annotation>> {
        let mut annotations = Vec::new();
        let keys: Vec<String> = self.left.keys().cloned().collect();
        for field in keys.iter().filter(|key| key.starts_with(ANNOTATION)) {
            let value = self.take(field).unwrap_or_default();
            let said = &field[ANNOTATION.len()..];
            let wrong = |fields: &Fields<'_>| {
                fields.refuse(
                    &format!("`{field}` names no annotation"),
                    "as in annotation.KEY=VALUE or annotation-manifest[linux/amd64].KEY=VALUE",
                )
            };
            // A platform has slashes only; the first dot ends the words before the key.
            let Some((place, key)) = said.split_once('.').filter(|(_, key)| !key.is_empty()) else {
                return wrong(self);
            };
            let (place, platform) = match place_of(place.strip_prefix('-').unwrap_or(place)) {
                Ok(found) if place.is_empty() || place.starts_with(['-', '[']) => found,
                Ok(_) => return wrong(self),
                Err(message) => return self.refuse(&message, PLACES),
            };
            annotations.push(Annotation {
                place,
                platform,
                key: key.to_owned(),
                value,
            });
        }
        Ok(annotations)
    }

    /// Errors if something was said that nothing asked for.
    fn none_left(&self, kind: &str) -> Result<()> {
        match self.left.keys().next() {
            Some(key) => self.refuse(&format!("type={kind} does not know `{key}`"), ""),
            None => Ok(()),
        }
    }
}

/// Reads the level of a compression; else says what is wrong with it, and a way out.
fn level_of(compression: Compression, text: &str) -> std::result::Result<u8, (String, String)> {
    let Some(levels) = LayerCompression::levels(compression) else {
        return Err((
            format!("level `{text}` says nothing of what is not compressed"),
            "leave it out, or compress with gzip or zstd".to_owned(),
        ));
    };
    match text.parse::<u8>() {
        Ok(level) if levels.contains(&level) => Ok(level),
        _ => Err((
            format!("{} has no level `{text}`", compression.as_str()),
            format!("it has {} to {}", levels.start(), levels.end()),
        )),
    }
}

/// How `kiln push` packs, in flags of its own.
pub(crate) fn packing(
    compression: Compression,
    level: Option<&str>,
    force: bool,
) -> Result<LayerCompression> {
    let level = match level.map(|text| (text, level_of(compression, text))) {
        None => None,
        Some((_, Ok(level))) => Some(level),
        Some((text, Err((message, hint)))) => {
            return refuse(format!("`--compression-level {text}`: {message}"), &hint);
        }
    };
    Ok(LayerCompression {
        compression,
        level,
        force,
    })
}

/// What fields of annotations begin with.
const ANNOTATION: &str = "annotation";
const PLACES: &str = "manifest, index, manifest-descriptor and index-descriptor are there, \
                      a manifest's with a platform as in manifest[linux/amd64]";

/// `manifest[linux/amd64]`, `index`, or nothing.
fn place_of(text: &str) -> std::result::Result<(AnnotationPlace, Option<Platform>), String> {
    let (place, platform) = match text.split_once('[') {
        Some((place, rest)) => match rest.strip_suffix(']') {
            Some(platform) => (place, Some(platform)),
            None => return Err(format!("`{text}` is no place of an annotation")),
        },
        None => (text, None),
    };
    let place = match place {
        "" => AnnotationPlace::Manifest,
        place => AnnotationPlace::parse(place)
            .ok_or_else(|| format!("there is no annotation type `{place}`"))?,
    };
    let platform = match platform {
        None => None,
        Some(text) => Some(Platform::parse(text).map_err(|error| format!("`{text}`: {error}"))?),
    };
    use AnnotationPlace::{Index, IndexDescriptor};
    if platform.is_some() && matches!(place, Index | IndexDescriptor) {
        return Err("an index is of all platforms, and no annotation of it is for one".to_owned());
    }
    Ok((place, platform))
}

/// All `--annotation`s; empty ones say nothing.
pub(crate) fn annotations(specs: &[String]) -> Result<Vec<Annotation>> {
    let mut said = Vec::new();
    for spec in specs.iter().filter(|spec| !spec.is_empty()) {
        said.extend(annotation(spec)?);
    }
    Ok(said)
}

/// One `--annotation`: `[PLACE[,PLACE]:]KEY=VALUE`.
fn annotation(spec: &str) -> Result<Vec<Annotation>> {
    let Some((said, value)) = spec.split_once('=').filter(|(said, _)| !said.is_empty()) else {
        return refuse(
            format!("`--annotation {spec}` is not KEY=VALUE"),
            "as in --annotation org.opencontainers.image.source=https://example.org/app",
        );
    };
    let (places, key) = said.split_once(':').unwrap_or(("", said));
    if key.is_empty() || said.starts_with(':') {
        return refuse(
            format!("`--annotation {spec}` has an empty part"),
            "as in --annotation manifest:KEY=VALUE",
        );
    }
    let annotation = |place: &str| match place_of(place) {
        Ok((place, platform)) => Ok(Annotation {
            place,
            platform,
            key: key.to_owned(),
            value: value.to_owned(),
        }),
        Err(message) => refuse(format!("`--annotation {spec}`: {message}"), PLACES),
    };
    places.split(',').map(annotation).collect()
}

/// All outputs of a build, with what flags beside `-o` say of them; `loaded` is the engine of `--load`, if
/// that is given.
pub(crate) fn outputs(
    specs: &[String],
    annotations: &[String],
    push: bool,
    loaded: Option<&str>,
) -> Result<Vec<Export>> {
    let mut exports = Vec::new();
    for spec in specs {
        exports.push(output(spec)?);
    }
    if push {
        pushed(&mut exports);
    }
    if let Some(engine) = loaded {
        exports.push(load(engine)?);
    }
    let said = self::annotations(annotations)?;
    if said.is_empty() {
        return Ok(exports);
    }
    if exports.is_empty() {
        exports.push(Export::Image {
            options: ImageOptions::default(),
        });
    }
    let mut images = 0;
    for options in exports.iter_mut().filter_map(Export::options_mut) {
        options.annotations.extend(said.iter().cloned());
        images += 1;
    }
    match images {
        0 => refuse(
            "`--annotation` needs an output that is an image",
            "as in -o type=oci,dest=image.tar",
        ),
        _ => Ok(exports),
    }
}

/// Lets every image of kiln's store be pushed too; where there is none, one that is only pushed.
fn pushed(exports: &mut Vec<Export>) {
    let mut is_pushed = false;
    for export in exports.iter_mut() {
        match export {
            Export::Image { options } => {
                *export = Export::Registry {
                    options: std::mem::take(options),
                    by_digest: false,
                    keep: true,
                };
                is_pushed = true;
            }
            Export::Registry { .. } => is_pushed = true,
            _ => {}
        }
    }
    if !is_pushed {
        exports.push(Export::Registry {
            options: ImageOptions::default(),
            by_digest: false,
            keep: false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: &str, expected: Export) {
        assert_eq!(output(spec).unwrap(), expected, "{spec}");
    }

    #[test]
    fn files() {
        let split = |platform_split| Export::Local {
            destination: "out".into(),
            platform_split,
        };
        check(
            "-",
            Export::Tar {
                destination: Destination::Stdout,
                platform_split: None,
            },
        );
        check("out", split(None));
        check("type=local,dest=out", split(None));
        check(
            "type=local,dest=out,platform-split=false",
            split(Some(false)),
        );
        check("type=cacheonly", Export::CacheOnly);
    }

    #[test]
    fn images() {
        let options = ImageOptions::named(&["a", "b"]);
        check("type=image,\"name=a,b\"", Export::Image { options });
        check(
            "type=oci,dest=x,tar=false",
            Export::OciDirectory {
                destination: "x".into(),
                options: ImageOptions::default(),
            },
        );
        check(
            "type=docker,dest=x,oci-mediatypes=true",
            Export::DockerArchive {
                destination: Destination::File("x".into()),
                options: ImageOptions {
                    flavor: Some(Flavor::Oci),
                    ..ImageOptions::default()
                },
            },
        );
        let options = ImageOptions {
            flavor: Some(Flavor::Docker),
            name_canonical: true,
            dangling_name_prefix: Some("none".to_owned()),
            rewrite_timestamp: Some(false),
            ..ImageOptions::default()
        };
        check(
            "type=image,oci-mediatypes=false,name-canonical=true,dangling-name-prefix=none,\
             rewrite-timestamp=0,unpack=true,store=true",
            Export::Image { options },
        );
    }

    #[test]
    fn registries() {
        let sent = |names: &[&str], by_digest, keep| Export::Registry {
            options: ImageOptions::named(names),
            by_digest,
            keep,
        };
        check("type=registry", sent(&[], false, false));
        check("type=registry,ref=x/y", sent(&["x/y"], false, false));
        check("type=registry,store=true", sent(&[], false, true));
        check("type=image,push=true,name=x/y", sent(&["x/y"], false, true));
        check(
            "type=image,push=true,store=false,push-by-digest=true",
            sent(&[], true, false),
        );
        let flag = |specs: &[&str]| {
            let specs: Vec<String> = specs.iter().map(ToString::to_string).collect();
            outputs(&specs, &[], true, None).unwrap()
        };
        assert_eq!(flag(&[]), [sent(&[], false, false)]);
        assert_eq!(flag(&["type=image"]), [sent(&[], false, true)]);
        assert_eq!(flag(&["type=registry"]), [sent(&[], false, false)]);
        assert_eq!(flag(&["out"])[1], sent(&[], false, false));
    }

    #[test]
    fn compressions() {
        let check = |spec: &str, expected: LayerCompression| {
            let export = output(&format!("type=oci,dest=x,{spec}")).unwrap();
            assert_eq!(export.options().unwrap().packing, Some(expected), "{spec}");
        };
        check("compression=zstd", Compression::Zstd.into());
        check("compression=uncompressed", Compression::None.into());
        let level = |compression: Compression, level| LayerCompression {
            level: Some(level),
            ..compression.into()
        };
        check("compression-level=9", level(Compression::Gzip, 9));
        check(
            "compression=zstd,compression-level=22,force-compression=false",
            level(Compression::Zstd, 22),
        );
        check(
            "force-compression=1",
            LayerCompression {
                force: true,
                ..LayerCompression::default()
            },
        );
    }

    /// Writes an annotation as `PLACE[PLATFORM] KEY=VALUE`.
    fn words(annotation: &Annotation) -> String {
        let Annotation {
            place,
            platform,
            key,
            value,
        } = annotation;
        let platform = platform.as_ref().map(|platform| format!("[{platform}]"));
        format!(
            "{}{} {key}={value}",
            place.as_str(),
            platform.unwrap_or_default()
        )
    }

    #[test]
    fn annotations_of_outputs() {
        let check = |field: &str, expected: &str| {
            let export = output(&format!("type=image,{field}")).unwrap();
            let found: Vec<String> = export
                .options()
                .unwrap()
                .annotations
                .iter()
                .map(words)
                .collect();
            assert_eq!(found, [expected], "{field}");
        };
        check("annotation.org.x.Y=z", "manifest org.x.Y=z");
        check("annotation-index.a=b=c", "index a=b=c");
        check("annotation-manifest.a=", "manifest a=");
        check("annotation[linux/amd64].a=b", "manifest[linux/amd64] a=b");
        check(
            "annotation-manifest-descriptor[linux/arm/v7].a.b=c",
            "manifest-descriptor[linux/arm/v7] a.b=c",
        );
        check(
            "\"annotation-index-descriptor.a=b,c\"",
            "index-descriptor a=b,c",
        );
    }

    #[test]
    fn annotations_of_flags() {
        let check = |spec: &str, expected: &[&str]| {
            let found: Vec<String> = annotation(spec).unwrap().iter().map(words).collect();
            assert_eq!(found, expected, "{spec}");
        };
        check("a=b:c", &["manifest a=b:c"]);
        check(
            "index,manifest[linux/amd64]:a=b",
            &["index a=b", "manifest[linux/amd64] a=b"],
        );
        check("manifest-descriptor:a.b=", &["manifest-descriptor a.b="]);
        for wrong in [
            "a",
            "=b",
            ":a=b",
            "index:=b",
            "layer:a=b",
            "manifest[vax]:a=b",
            "manifest[linux/amd64:a=b",
            "index[linux/amd64]:a=b",
        ] {
            assert!(annotation(wrong).is_err(), "{wrong}");
        }
        let strings = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let outputs = |specs: &[&str]| outputs(&strings(specs), &strings(&["a=b"]), false, None);
        assert_eq!(outputs(&[]).unwrap().len(), 1);
        assert!(outputs(&["out"]).is_err());
        let both = outputs(&["out", "type=image"]).unwrap();
        assert_eq!(both[1].options().unwrap().annotations.len(), 1);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let says = |spec: &str| output(spec).unwrap_err().message;
        for wrong in [
            "type=oci",
            "type=x,dest=y",
            "dest=y",
            "type=tar,dest=a,dest=b",
            "type=local,dest=-",
            "type=registry,push=false",
            "type=image,push-by-digest=true",
            "type=oci,dest=x,push=true",
            "type=tar,dest=a,mode=max",
            "type=tar,dest=a,platform-split=maybe",
            "type=oci,dest=a,platform-split=true",
            "type=oci,dest=a,unpack=true",
            "type=local,dest=a,compression=gzip",
            "type=image,store=false",
            "type=image,compression=zstd,oci-mediatypes=false",
            "type=image,compression=uncompressed,compression-level=1",
            "type=image,compression-level=10",
            "type=image,compression=zstd,compression-level=23",
            "type=image,compression-level=-1",
            "type=image,annotation.=x",
            "type=image,annotationx.a=x",
            "type=image,annotation-layer.a=x",
        ] {
            assert!(output(wrong).is_err(), "{wrong}");
        }
        insta::assert_snapshot!(
            says("type=image,compression=estargz"),
            @"`-o type=image,compression=estargz`: layers are not compressed with `estargz` here"
        );
        insta::assert_snapshot!(
            says("type=image,registry.insecure=true"),
            @"`-o type=image,registry.insecure=true`: type=image does not know `registry.insecure`"
        );
    }
}
