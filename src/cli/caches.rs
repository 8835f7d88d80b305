//! The values of `--cache-from` and `--cache-to`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln::{
    CacheMode, CachePlace, CacheSource, CacheTarget, Compression, DEFAULT_TAG, LEAST_PART_BYTES,
    LayerCompression, MOST_AGE, MOST_BYTES, MOST_PART_BYTES, PART_BYTES, PATIENCE, S3Place,
    S3Settings,
};

use super::spec::{Result, SpecError, duration, refuse, shown, size_bytes, split_csv};

/// Where the results of a build go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// To a place of their own.
    Place(Box<CacheTarget>),
    /// Into the config of the image.
    Inline,
}

/// The fields of one value that were not read yet.
struct Fields {
    flag: &'static str,
    /// All of it, as errors show it.
    shown: String,
    kind: String,
    fields: BTreeMap<String, String>,
}

impl Fields {
    fn of(flag: &'static str, spec: &str) -> Result<Self> {
        let shown = shown(spec);
        let mut fields = BTreeMap::new();
        // A value without any field is a reference.
        if !spec.contains('=') {
            if spec.is_empty() {
                return refuse(
                    format!("`{flag}` names nothing"),
                    "as in type=registry,ref=NAME",
                );
            }
            fields.insert("ref".to_owned(), spec.to_owned());
            return Ok(Fields {
                flag,
                shown,
                kind: "registry".to_owned(),
                fields,
            });
        }
        for field in split_csv(spec) {
            let Some((key, value)) = field.split_once('=') else {
                return refuse(
                    format!("`{flag} {shown}`: not all of its fields are KEY=VALUE"),
                    "as in type=registry,ref=NAME",
                );
            };
            let key = key.trim().to_lowercase();
            if fields.insert(key.clone(), value.to_owned()).is_some() {
                return refuse(format!("`{flag} {shown}` says `{key}` twice"), "");
            }
        }
        let Some(kind) = fields.remove("type") else {
            return refuse(
                format!("`{flag} {shown}` has no type"),
                "as in type=registry,ref=NAME",
            );
        };
        Ok(Fields {
            flag,
            shown,
            kind,
            fields,
        })
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.fields.remove(key).filter(|value| !value.is_empty())
    }

    fn need(&mut self, key: &str, example: &str) -> Result<String> {
        match self.take(key) {
            Some(value) => Ok(value),
            None => refuse(
                format!("`{} {}` has no {key}", self.flag, self.shown),
                example,
            ),
        }
    }

    /// A value that is more than a text.
    fn parsed<T>(&mut self, key: &str, default: T, parse: fn(&str) -> Result<T>) -> Result<T> {
        let Some(text) = self.take(key) else {
            return Ok(default);
        };
        parse(&text).map_err(|error| SpecError {
            message: format!("`{} {}`: `{key}`: {}", self.flag, self.shown, error.message),
            ..error
        })
    }

    fn boolean(&mut self, key: &str, default: bool) -> Result<bool> {
        match self.take(key).as_deref() {
            None => Ok(default),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(other) => refuse(
                format!(
                    "`{} {}`: `{key}={other}` is neither true nor false",
                    self.flag, self.shown
                ),
                "",
            ),
        }
    }

    fn refuse<T>(&self, what: &str, hint: &str) -> Result<T> {
        refuse(format!("`{} {}`: {what}", self.flag, self.shown), hint)
    }

    /// Refuses what is left.
    fn end(self) -> Result<()> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(key) => self.refuse(&format!("type={} does not know `{key}`", self.kind), ""),
        }
    }

    fn s3(&mut self) -> Result<CachePlace> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let bucket = self.take("bucket").or_else(|| variable("AWS_BUCKET"));
        let Some(bucket) = bucket else {
            return self.refuse("it has no bucket", "add bucket=NAME, or set AWS_BUCKET");
        };
        let region = self
            .take("region")
            .or_else(|| variable("AWS_REGION"))
            .or_else(|| variable("AWS_DEFAULT_REGION"));
        let Some(region) = region else {
            return self.refuse(
                "it has no region",
                "add region=NAME, or set AWS_REGION; other stores than Amazon's mostly take us-east-1",
            );
        };
        let endpoint_url = self
            .take("endpoint_url")
            .or_else(|| variable("AWS_ENDPOINT_URL_S3"))
            .or_else(|| variable("AWS_ENDPOINT_URL"));
        let (key, secret) = (self.take("access_key_id"), self.take("secret_access_key"));
        let session_token = self.take("session_token");
        let (key, secret, session_token) = match (key, secret) {
            (Some(key), Some(secret)) => (key, secret, session_token),
            (None, None) => match (
                variable("AWS_ACCESS_KEY_ID"),
                variable("AWS_SECRET_ACCESS_KEY"),
            ) {
                (Some(key), Some(secret)) => (
                    key,
                    secret,
                    session_token.or_else(|| variable("AWS_SESSION_TOKEN")),
                ),
                _ => {
                    return self.refuse(
                        "it says not who asks",
                        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or add access_key_id and secret_access_key",
                    );
                }
            },
            _ => {
                return self.refuse("access_key_id and secret_access_key belong together", "");
            }
        };
        let part_bytes = self.parsed("part_size", PART_BYTES, size_bytes)?;
        if !(LEAST_PART_BYTES..=MOST_PART_BYTES).contains(&part_bytes) {
            return self.refuse("stores take parts of 5 MB to 5 GB", "as in part_size=64MB");
        }
        // Buckets of other stores are mostly not hosts of their own; BuildKit's default is false.
        let use_path_style = self.boolean("use_path_style", false)?;
        let name = self.take("name").unwrap_or_else(|| "kiln".to_owned());
        if name.contains(';') {
            return self.refuse(
                "several names are not supported",
                "give --cache-to several times",
            );
        }
        let settings = S3Settings {
            bucket,
            region,
            endpoint_url,
            use_path_style,
            access_key_id: key,
            secret_access_key: secret,
            session_token,
            part_bytes,
        };
        if let Err(error) = settings.check() {
            return self.refuse(&error.to_string(), error.hint().unwrap_or_default());
        }
        Ok(CachePlace::S3(Box::new(S3Place {
            settings,
            prefix: self.key("prefix", "")?,
            blobs_prefix: self.key("blobs_prefix", "blobs/")?,
            manifests_prefix: self.key("manifests_prefix", "manifests/")?,
            name: self.below("name", name)?,
        })))
    }

    /// What stands before keys of a bucket; it may be empty.
    fn key(&mut self, field: &str, default: &str) -> Result<String> {
        let value = self.fields.remove(field);
        self.below(field, value.unwrap_or_else(|| default.to_owned()))
    }

    /// Refuses a part of a key that would lead out of what stands before it.
    fn below(&self, field: &str, value: String) -> Result<String> {
        let is_dots = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte == b'.');
        if value.split('/').any(is_dots) || value.contains(|c: char| c.is_control() || c == '\\') {
            return self.refuse(
                &format!(
                    "`{field}={}` leads elsewhere than its words say",
                    value.escape_debug()
                ),
                "leave out . and .., backslashes and control characters",
            );
        }
        Ok(value)
    }

    fn place(&mut self, directory: &str) -> Result<CachePlace> {
        match self.kind.as_str() {
            "registry" => Ok(CachePlace::Registry {
                reference: self
                    .need("ref", "as in type=registry,ref=registry.example/app:cache")?,
            }),
            "local" => Ok(CachePlace::Local {
                directory: PathBuf::from(
                    self.need(directory, &format!("as in type=local,{directory}=DIR"))?,
                ),
                tag: self.take("tag").unwrap_or_else(|| DEFAULT_TAG.to_owned()),
                digest: self.take("digest"),
            }),
            "s3" => self.s3(),
            "gha" => self.refuse(
                "GitHub's cache service is not supported",
                "type=registry with ghcr.io works there, and type=local with actions/cache",
            ),
            "azblob" => self.refuse(
                "Azure's blob storage is not supported",
                "type=registry with a registry of Azure works there",
            ),
            other => self.refuse(
                &format!("there is no cache type `{other}`"),
                "registry, local, s3 and, for --cache-to, inline are there",
            ),
        }
    }
}

/// One `--cache-from`.
pub(crate) fn source(spec: &str) -> Result<CacheSource> {
    let mut fields = Fields::of("--cache-from", spec)?;
    if fields.kind == "inline" {
        return fields.refuse(
            "a cache in an image is had from the image",
            "as in --cache-from type=registry,ref=IMAGE",
        );
    }
    let patience = fields.parsed("timeout", PATIENCE, duration)?;
    let place = fields.place("src")?;
    fields.end()?;
    Ok(CacheSource { place, patience })
}

/// One `--cache-to`, or another flag that says the same.
pub(crate) fn target(flag: &'static str, spec: &str) -> Result<Target> {
    let mut fields = Fields::of(flag, spec)?;
    if fields.kind == "inline" {
        // BuildKit knows no other mode there either.
        match fields.take("mode").as_deref() {
            None | Some("min") => {}
            Some(mode) => {
                return fields.refuse(
                    &format!("an image holds its own results only, not mode={mode}"),
                    "type=registry holds all",
                );
            }
        }
        fields.end()?;
        return Ok(Target::Inline);
    }
    let mode = match fields.take("mode").as_deref() {
        None | Some("min") => CacheMode::Min,
        Some("max") => CacheMode::Max,
        Some(other) => {
            return fields.refuse(
                &format!("there is no mode `{other}`"),
                "min and max are there",
            );
        }
    };
    let compression = match fields.take("compression").as_deref() {
        None | Some("gzip") => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        Some("uncompressed") => Compression::None,
        Some(other) => {
            return fields.refuse(
                &format!("there is no compression `{other}`"),
                "gzip, zstd and uncompressed are there",
            );
        }
    };
    let level = match fields.take("compression-level") {
        None => None,
        Some(text) => {
            let levels = LayerCompression::levels(compression);
            let level = text.parse::<u8>().ok();
            match level.filter(|level| levels.as_ref().is_some_and(|some| some.contains(level))) {
                Some(level) => Some(level),
                None => {
                    let hint = match levels {
                        Some(some) => format!("it has {} to {}", some.start(), some.end()),
                        None => "leave it out, or compress with gzip or zstd".to_owned(),
                    };
                    return fields.refuse(
                        &format!("{} has no level `{text}`", compression.as_str()),
                        &hint,
                    );
                }
            }
        }
    };
    // Layers that were made here always have the compression that is asked for.
    fields.boolean("force-compression", false)?;
    let ignore_error = fields.boolean("ignore-error", false)?;
    let docker_media_types = match fields.kind.as_str() {
        "registry" | "local" => {
            if !fields.boolean("image-manifest", true)? {
                return fields.refuse(
                    "a cache of kiln is always an image manifest",
                    "leave image-manifest out",
                );
            }
            !fields.boolean("oci-mediatypes", true)?
        }
        _ => false,
    };
    if docker_media_types && compression == Compression::Zstd {
        return fields.refuse(
            "docker has no media type for zstd",
            "leave oci-mediatypes out",
        );
    }
    let max_age = fields.parsed("max-age", MOST_AGE, duration)?;
    let max_bytes = fields.parsed("max-size", MOST_BYTES, size_bytes)?;
    let place = fields.place("dest")?;
    let own_digest = "what is written has its own digest";
    match &place {
        CachePlace::Local {
            digest: Some(_), ..
        } => return fields.refuse(own_digest, "name it with tag=NAME"),
        CachePlace::Registry { reference } if reference.contains('@') => {
            return fields.refuse(own_digest, "name it with a tag, as in ref=NAME:TAG");
        }
        _ => {}
    }
    fields.end()?;
    Ok(Target::Place(Box::new(CacheTarget {
        place,
        mode,
        packing: LayerCompression {
            compression,
            level,
            force: false,
        },
        docker_media_types,
        ignore_error,
        max_age,
        max_bytes,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(reference: &str) -> CachePlace {
        CachePlace::Registry {
            reference: reference.to_owned(),
        }
    }

    #[test]
    fn sources() {
        let place = |spec: &str| source(spec).unwrap().place;
        assert_eq!(place("app:cache"), registry("app:cache"));
        assert_eq!(place("type=registry,ref=app"), registry("app"));
        let local = |tag: &str, digest: Option<&str>| CachePlace::Local {
            directory: "d".into(),
            tag: tag.to_owned(),
            digest: digest.map(str::to_owned),
        };
        assert_eq!(place("type=local,src=d"), local("latest", None));
        assert_eq!(place("type=local,src=d,tag=x"), local("x", None));
        let digest = "type=local,src=d,digest=sha256:1";
        assert_eq!(place(digest), local("latest", Some("sha256:1")));
        assert_eq!(
            source("type=registry,ref=a,timeout=5s")
                .unwrap()
                .patience
                .as_secs(),
            5
        );
    }

    #[test]
    fn targets() {
        let Target::Place(made) = target(
            "--cache-to",
            "type=local,dest=d,mode=max,compression=zstd,compression-level=9,ignore-error=true,max-age=7d,max-size=1GB",
        )
        .unwrap() else {
            panic!("it has a place");
        };
        assert_eq!(
            (made.mode, made.packing.compression, made.packing.level),
            (CacheMode::Max, Compression::Zstd, Some(9))
        );
        assert!(made.ignore_error && !made.docker_media_types);
        assert_eq!(
            (made.max_age.as_secs(), made.max_bytes),
            (7 * 86400, 1 << 30)
        );
        let Target::Place(made) = target(
            "--cache-to",
            "type=registry,ref=a,oci-mediatypes=false,image-manifest=true",
        )
        .unwrap() else {
            panic!("it has a place");
        };
        assert!(made.docker_media_types);
        assert_eq!(target("--cache-to", "type=inline").unwrap(), Target::Inline);
    }

    #[test]
    fn buckets() {
        let spec = "type=s3,bucket=b,region=r,endpoint_url=http://127.0.0.1:1,use_path_style=true,\
                    access_key_id=k,secret_access_key=s,prefix=p/,name=n,part_size=8MB";
        let CachePlace::S3(place) = source(spec).unwrap().place else {
            panic!("it is a bucket");
        };
        assert_eq!(place.settings.access_key_id, "k");
        assert!(place.settings.use_path_style);
        assert_eq!(place.settings.part_bytes, 8 << 20);
        let said = (
            place.prefix.as_str(),
            place.blobs_prefix.as_str(),
            place.name.as_str(),
        );
        assert_eq!(said, ("p/", "blobs/", "n"));
        assert_eq!(
            source(spec).unwrap().place.to_string(),
            "s3://b/p/manifests/n"
        );
    }

    fn check_refused(refused: Result<impl std::fmt::Debug>, expected: &str) {
        let message = refused.unwrap_err().message;
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        check_refused(
            source("type=gha"),
            "GitHub's cache service is not supported",
        );
        check_refused(
            target("--cache-to", "type=azblob,name=x"),
            "Azure's blob storage is not supported",
        );
        check_refused(source("type=ipfs,ref=x"), "there is no cache type `ipfs`");
        check_refused(source("type=inline"), "is had from the image");
        check_refused(target("--cache-to", "type=inline,mode=max"), "not mode=max");
        check_refused(source("type=registry"), "has no ref");
        check_refused(source("ref=a"), "has no type");
        check_refused(source("type=local,src=d,mode=max"), "does not know `mode`");
        check_refused(
            target("--cache-to", "type=local,dest=d,compression=estargz"),
            "no compression `estargz`",
        );
        check_refused(
            target("--cache-to", "type=registry,ref=a,image-manifest=false"),
            "always an image manifest",
        );
        check_refused(
            target("--cache-to", "type=registry,ref=a,mode=most"),
            "no mode `most`",
        );
        let secret = target(
            "--cache-to",
            "type=s3,bucket=b,region=r,access_key_id=k,secret_access_key=hidden,session_token=hidden,mode=most",
        );
        check_refused(secret.clone(), "no mode `most`");
        assert!(!secret.unwrap_err().message.contains("hidden"));
        check_refused(
            target("--cache-to", "type=registry,ref=a,ref=b"),
            "says `ref` twice",
        );
        check_refused(
            source("type=s3,bucket=b,region=r,access_key_id=k,secret_access_key=s,part_size=1MB"),
            "parts of 5 MB to 5 GB",
        );
        check_refused(
            source("type=s3,bucket=b,region=r,access_key_id=k"),
            "belong together",
        );
        let digest = format!("type=registry,ref=a@sha256:{}", "0".repeat(64));
        check_refused(target("--cache-to", &digest), "has its own digest");
        let bucket = "type=s3,bucket=b,region=r,access_key_id=k,secret_access_key=s";
        for wrong in [
            "name=../..",
            "prefix=a/../",
            "blobs_prefix=.",
            "name=a\\b",
            "manifests_prefix=a\n",
        ] {
            check_refused(source(&format!("{bucket},{wrong}")), "leads elsewhere");
        }
        for right in ["name=..a/b.", "prefix=/a//", "prefix="] {
            source(&format!("{bucket},{right}")).unwrap();
        }
        check_refused(
            source(&format!("{bucket},endpoint_url=http://127.0.0.1:9000")),
            "`http://127.0.0.1:9000` has an IP address",
        );
    }
}
