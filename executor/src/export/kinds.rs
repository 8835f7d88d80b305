//! The kinds of exports: what each can hold, and what people are told of it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use kiln_oci::reference::Reference;

use super::{ImageOptions, ResultToExport, annotations, reference, references};
use crate::engines::{Engine, Loader};
use crate::error::Error;

/// Where and how a result is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Export {
    /// Into kiln's own store; without a name it is found by its id.
    Image {
        /// How.
        options: ImageOptions,
    },
    /// To the registries of its names.
    Registry {
        /// How.
        options: ImageOptions,
        /// Without a tag: who wants it knows its digest.
        by_digest: bool,
        /// Into kiln's own store too.
        keep: bool,
    },
    /// An OCI image layout in a tar.
    OciArchive {
        /// Where.
        destination: Destination,
        /// How.
        options: ImageOptions,
    },
    /// An OCI image layout in a directory; a layout that is there gets one image more.
    OciDirectory {
        /// The directory.
        destination: PathBuf,
        /// How.
        options: ImageOptions,
    },
    /// What `docker load` reads.
    DockerArchive {
        /// Where.
        destination: Destination,
        /// How.
        options: ImageOptions,
    },
    /// Into another engine of this host, which gets what it lacks.
    Engine {
        /// Which; by default the first that runs.
        engine: Option<Engine>,
        /// How; an engine keeps neither annotations nor a compression.
        options: ImageOptions,
    },
    /// The files, into a directory.
    Local {
        /// The directory, made if it is not there; files in it are overwritten.
        destination: PathBuf,
        /// Whether each platform has a directory of its own; by default where there are several.
        platform_split: Option<bool>,
    },
    /// The files, as one tar.
    Tar {
        /// Where.
        destination: Destination,
        /// Whether each platform has a directory of its own; by default where there are several.
        platform_split: Option<bool>,
    },
    /// Nowhere: building was all.
    CacheOnly,
}

/// Where an archive goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, replaced as a whole when the export is done.
    File(PathBuf),
}

impl Export {
    /// Checks what can be checked before there is anything to export: its names, and how it compresses.
    pub fn check(&self) -> Result<(), Error> {
        references(self.names())?;
        let Some(options) = self.options() else {
            return Ok(());
        };
        if let Some(prefix) = &options.dangling_name_prefix {
            reference(prefix)?;
        }
        options.packing().check()
    }

    /// Checks that it can hold these results, and has a place for all that is to be said of them.
    pub fn check_results(&self, results: &[ResultToExport]) -> Result<(), Error> {
        match (self, results.len()) {
            (Export::DockerArchive { .. }, count @ 2..) => {
                return Err(Error::OnePlatform { count });
            }
            (Export::Engine { .. }, count @ 2..) => {
                return Err(Error::OnePlatformToLoad { count });
            }
            _ => {}
        }
        match self.options() {
            Some(options) => annotations::check_results(&options.annotations, results),
            None => Ok(()),
        }
    }

    /// Checks that there is whom it is for: better known before an hour of building.
    pub async fn check_engine(&self) -> Result<(), Error> {
        if let Export::Engine { engine, .. } = self {
            Loader::choose(*engine).await?;
        }
        Ok(())
    }

    /// Checks that it has the names that it needs, with those of the build.
    pub fn check_names<'a>(
        &'a self,
        tags: impl IntoIterator<Item = &'a String>,
    ) -> Result<(), Error> {
        let Export::Registry { by_digest, .. } = self else {
            return Ok(());
        };
        let mut count = 0;
        for name in tags.into_iter().chain(self.names()) {
            count += 1;
            let last = name.rsplit('/').next().unwrap_or_default();
            if *by_digest && last.contains(':') {
                return Err(Error::TagByDigest { name: name.clone() });
            }
        }
        match count {
            0 => Err(Error::NothingNamed),
            _ => Ok(()),
        }
    }

    /// Checks that it can hold what is said of results beside them.
    pub fn check_attested(&self, is_attested: bool) -> Result<(), Error> {
        match self {
            Export::DockerArchive { .. } if is_attested => Err(Error::NoAttestations {
                output: "a docker archive",
            }),
            Export::Engine { .. } if is_attested => Err(Error::NoAttestations {
                output: "an engine",
            }),
            Export::Tar { .. } if is_attested => Err(Error::NoAttestations { output: "a tar" }),
            Export::Local {
                platform_split: Some(false),
                ..
            } if is_attested => Err(Error::NoAttestations {
                output: "a directory of several platforms",
            }),
            _ => Ok(()),
        }
    }

    /// How it writes an image, if it does.
    pub fn options(&self) -> Option<&ImageOptions> {
        match self {
            Export::Image { options }
            | Export::Registry { options, .. }
            | Export::OciArchive { options, .. }
            | Export::OciDirectory { options, .. }
            | Export::DockerArchive { options, .. }
            | Export::Engine { options, .. } => Some(options),
            Export::Local { .. } | Export::Tar { .. } | Export::CacheOnly => None,
        }
    }

    /// Whether files keep their times in an image of it though there is an epoch.
    pub fn keeps_times(&self) -> bool {
        let options = self.options();
        options.is_some_and(|options| options.rewrite_timestamp == Some(false))
    }

    /// The same, to be changed; none for an engine, which keeps less.
    pub fn options_mut(&mut self) -> Option<&mut ImageOptions> {
        match self {
            Export::Image { options }
            | Export::Registry { options, .. }
            | Export::OciArchive { options, .. }
            | Export::OciDirectory { options, .. }
            | Export::DockerArchive { options, .. } => Some(options),
            Export::Engine { .. }
            | Export::Local { .. }
            | Export::Tar { .. }
            | Export::CacheOnly => None,
        }
    }

    /// The names that it adds to the build's.
    pub(super) fn names(&self) -> &[String] {
        self.options().map_or(&[], |options| &options.names)
    }

    /// Whether it writes blobs of layers.
    pub(super) fn has_blobs(&self) -> bool {
        match self {
            Export::Image { options } => options.is_packed(),
            Export::Engine { .. } => false,
            _ => self.options().is_some(),
        }
    }

    /// Whether it needs no blobs here.
    pub(super) fn only_sends(&self) -> bool {
        match self {
            Export::Registry { options, keep, .. } => !keep || !options.is_packed(),
            _ => !self.has_blobs(),
        }
    }

    /// What people are told of it; nothing of an export to nowhere.
    pub(super) fn label(&self, names: &[Reference]) -> Option<String> {
        let named = match names.first() {
            Some(name) => format!(" {}", name.familiar()),
            None => String::new(),
        };
        Some(match self {
            Export::Image { .. } => format!("image{named}"),
            Export::Registry { .. } => {
                let hosts: BTreeSet<&str> = names.iter().map(Reference::domain).collect();
                let hosts: Vec<&str> = hosts.into_iter().collect();
                format!("registry {}", hosts.join(", "))
            }
            Export::OciArchive { destination, .. } => format!("oci archive {destination}"),
            Export::OciDirectory { destination, .. } => {
                format!("oci directory {}", destination.display())
            }
            Export::DockerArchive { destination, .. } => format!("docker archive {destination}"),
            Export::Local { destination, .. } => format!("directory {}", destination.display()),
            Export::Tar { destination, .. } => format!("tar {destination}"),
            // Which it is, is told when that is known.
            Export::Engine { .. } | Export::CacheOnly => return None,
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Stdout => f.write_str("standard output"),
            Destination::File(path) => path.display().fmt(f),
        }
    }
}
