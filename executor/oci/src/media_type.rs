//! The media types of image documents and layers, OCI's and docker's.

/// OCI's image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI's image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI's plain layer.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI's gzip layer.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI's zstd layer.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// The empty JSON document, for manifests that have no config.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// An in-toto statement, as attestation manifests carry it for a layer.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

/// Docker's manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's index, called manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's plain layer.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker's gzip layer.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker's zstd layer, as BuildKit writes it.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// What a registry is asked for when a tag is resolved, most wanted first.
pub const MANIFESTS: [&str; 4] = [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST];

/// Which vocabulary of media types an image is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flavor {
    /// OCI's, that every current tool reads.
    #[default]
    Oci,
    /// Docker's schema 2, for old tools.
    Docker,
}

/// How a layer's tar is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), one or more members.
    #[default]
    Gzip,
    /// zstd (RFC 8878), one or more frames.
    Zstd,
}

impl Compression {
    /// Returns its name as people say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

impl Flavor {
    /// Returns the media type of a manifest.
    pub fn manifest(self) -> &'static str {
        match self {
            Self::Oci => OCI_MANIFEST,
            Self::Docker => DOCKER_MANIFEST,
        }
    }

    /// Returns the media type of an index.
    pub fn index(self) -> &'static str {
        match self {
            Self::Oci => OCI_INDEX,
            Self::Docker => DOCKER_INDEX,
        }
    }

    /// Returns the media type of an image config.
    pub fn config(self) -> &'static str {
        match self {
            Self::Oci => OCI_CONFIG,
            Self::Docker => DOCKER_CONFIG,
        }
    }

    /// Returns the media type of a layer with this compression.
    pub fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Oci, Compression::None) => OCI_LAYER,
            (Self::Oci, Compression::Gzip) => OCI_LAYER_GZIP,
            (Self::Oci, Compression::Zstd) => OCI_LAYER_ZSTD,
            (Self::Docker, Compression::None) => DOCKER_LAYER,
            (Self::Docker, Compression::Gzip) => DOCKER_LAYER_GZIP,
            (Self::Docker, Compression::Zstd) => DOCKER_LAYER_ZSTD,
        }
    }
}

/// Tells whether this is a manifest of one image.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Tells whether this is an index of manifests.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_INDEX)
}

/// Tells whether this is the config of a container image.
pub fn is_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

/// Returns how a filesystem layer of this type is compressed; `None` if it is not a filesystem
/// layer known here (an attestation, an encrypted layer, an artifact).
///
/// Foreign ("nondistributable") layers count as layers; their descriptors say where they lie.
pub fn layer_compression(media_type: &str) -> Option<Compression> {
    let docker = "application/vnd.docker.image.rootfs.";
    let suffix = media_type
        .strip_prefix("application/vnd.oci.image.layer.v1.")
        .or_else(|| media_type.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1."))
        .or_else(|| media_type.strip_prefix(docker)?.strip_prefix("diff."))
        .or_else(|| {
            media_type
                .strip_prefix(docker)?
                .strip_prefix("foreign.diff.")
        })?;
    match suffix {
        "tar" => Some(Compression::None),
        "tar+gzip" | "tar.gzip" => Some(Compression::Gzip),
        "tar+zstd" | "tar.zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for flavor in [Flavor::Oci, Flavor::Docker] {
            assert!(is_manifest(flavor.manifest()));
            assert!(is_index(flavor.index()));
            assert!(is_config(flavor.config()));
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                assert_eq!(
                    layer_compression(flavor.layer(compression)),
                    Some(compression)
                );
            }
        }
    }

    #[test]
    fn foreign_layers_are_layers_and_other_things_are_not() {
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        assert_eq!(layer_compression(foreign), Some(Compression::Gzip));
        let nondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd";
        assert_eq!(layer_compression(nondistributable), Some(Compression::Zstd));
        for other in [
            IN_TOTO,
            OCI_CONFIG,
            "",
            "application/vnd.oci.image.layer.v1.tar+encrypted",
        ] {
            assert_eq!(layer_compression(other), None, "{other}");
        }
    }
}
