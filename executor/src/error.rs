//! What the world can refuse, and what people can do about it.

use std::io;
use std::path::PathBuf;

use kiln_ir::pattern::PatternError;
use kiln_oci::reference::ReferenceError;
use kiln_oci::registry;
use kiln_store::{Store, StoreError};
use kiln_tree::context::ScanError;

use crate::cache::CacheError;
use crate::context::LAYOUT;
use crate::engines::Engine;
use crate::file::FileError;
use crate::ssh::AgentError;
use crate::users::AccountError;

/// Something could not be made real.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file operation cannot be done.
    #[error(transparent)]
    File(#[from] FileError),
    /// A registry refused.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A cache elsewhere cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The settings for registries cannot be used.
    #[error(transparent)]
    RegistryConfig(#[from] registry::ConfigError),
    /// What is to be loaded cannot be used.
    #[error("could not load `{name}`")]
    Load {
        /// The archive or the directory.
        name: String,
        /// Why not.
        #[source]
        source: Box<crate::load::LoadError>,
    },
    /// A list of images cannot be made or changed.
    #[error(transparent)]
    List(crate::lists::ListError),
    /// A registry that is none.
    #[error("{message}")]
    RegistryName {
        /// What is wrong with the name.
        message: String,
    },
    /// Credentials cannot be read or kept.
    #[error(transparent)]
    Accounts(registry::CredentialsError),
    /// A name that is no image reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A sandbox could not be made or used.
    #[error(transparent)]
    Sandbox(#[from] kiln_sandbox::Error),
    /// A user that nobody knows.
    #[error("could not find the user")]
    Account(#[from] AccountError),
    /// A build context cannot be opened.
    #[error("could not open the build context `{}`", path.display())]
    Context {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A build context cannot be scanned.
    #[error("could not read the build context `{}`", path.display())]
    Scan {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: ScanError,
    },
    /// Results were not exported for other machines.
    #[error("the cache to `{place}` was not exported")]
    CacheExport {
        /// Where.
        place: String,
        /// Why not.
        #[source]
        source: Box<Error>,
    },
    /// What is taken of a build context has a mark that overlays mean a deletion by.
    #[error(
        "`{path}` in the build context is the character device 0:0, which marks a deletion in an overlay"
    )]
    WhiteoutInContext {
        /// Where.
        path: kiln_tree::TreePath,
    },
    /// A pattern is malformed.
    #[error("could not use {of}")]
    Pattern {
        /// Whose.
        of: &'static str,
        /// Why not.
        #[source]
        source: PatternError,
    },
    /// Something that a plan may hold and that cannot be done yet.
    #[error("{what} is not supported yet: {value}")]
    Unsupported {
        /// What.
        what: &'static str,
        /// Which.
        value: String,
    },
    /// A name that nobody gave a directory.
    #[error("the plan reads the {kind} `{name}`, and nothing of that name was given")]
    UnknownLocal {
        /// Context or layout.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// An image that is not in the store.
    #[error("there is no image `{name}` in the store")]
    NoSuchImage {
        /// As asked for.
        name: String,
    },
    /// An image that is to be sent is not in the store.
    #[error("there is no image `{name}` in the store to push")]
    NothingToPush {
        /// As asked for.
        name: String,
        /// Names that are like it.
        near: Vec<String>,
    },
    /// An image that is to be sent was given by its id, and nobody said where to.
    #[error("`{image}` is an id, which says no registry to push to")]
    NoTarget {
        /// As asked for.
        image: String,
    },
    /// An image that is needed and may not be asked for.
    #[error("`{reference}` is not in the store, and --offline forbids asking for it")]
    Offline {
        /// The image.
        reference: String,
    },
    /// An image of another platform.
    #[error("`{reference}` is for {found}, and {wanted} is needed")]
    Platform {
        /// The image.
        reference: String,
        /// What there is.
        found: String,
        /// What is asked for.
        wanted: String,
    },
    /// A platform whose programs do not run on this host.
    #[error("programs for {platform} do not run on this {host} host: {reason}")]
    Foreign {
        /// The platform.
        platform: String,
        /// The host's.
        host: String,
        /// Why not.
        reason: String,
        /// What changes that, if anything does.
        remedy: Option<&'static str>,
    },
    /// An output that has no place for attestations.
    #[error("attestations cannot be written into {output}")]
    NoAttestations {
        /// What.
        output: &'static str,
    },
    /// Nothing is attached that is of this beside the image.
    #[error("no SBOM of `{scan}` is attached to `{image}`")]
    NoScan {
        /// The image.
        image: String,
        /// What the SBOM is to be of.
        scan: String,
        /// What there are SBOMs of.
        there: Vec<String>,
    },
    /// An image document that cannot be read.
    #[error("could not read the {what} of `{reference}`")]
    Document {
        /// Manifest or config.
        what: &'static str,
        /// The image.
        reference: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A layer that is not what its image says.
    #[error("layer {blob} of `{reference}` is damaged: {reason}")]
    Layer {
        /// The blob.
        blob: String,
        /// The image.
        reference: String,
        /// What is wrong.
        reason: String,
    },
    /// A layer that cannot be unpacked.
    #[error("could not unpack layer {blob} of `{reference}`")]
    Unpack {
        /// The blob.
        blob: String,
        /// The image.
        reference: String,
        /// Why not.
        #[source]
        source: kiln_tree::tar::ApplyError,
    },
    /// A file outside the store cannot be read or written.
    #[error("could not {attempt} `{}`", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A mount that cannot be given to a step.
    #[error("could not mount `{target}`: {reason}")]
    Mount {
        /// Where.
        target: String,
        /// Why not.
        reason: String,
    },
    /// A file that holds a secret cannot be read.
    #[error("could not read the secret `{id}` from `{}`", path.display())]
    SecretFile {
        /// The secret.
        id: String,
        /// Its file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A secret that is no secret.
    #[error("the secret `{id}` has more than 500 KiB")]
    SecretTooBig {
        /// The secret.
        id: String,
    },
    /// A secret that no variable can hold.
    #[error("the secret `{id}` cannot be the variable `{name}`: it has a zero byte")]
    SecretVariable {
        /// The secret.
        id: String,
        /// The variable.
        name: String,
    },
    /// A step requires a secret that nobody gave.
    #[error("the secret `{id}` is required, and was not given")]
    NoSecret {
        /// The secret.
        id: String,
    },
    /// A step requires an ssh agent that nobody gave.
    #[error("the ssh agent `{id}` is required, and was not given")]
    NoAgent {
        /// The agent.
        id: String,
    },
    /// An ssh agent cannot be forwarded.
    #[error("could not forward the ssh agent `{id}`")]
    Agent {
        /// The agent.
        id: String,
        /// Why not.
        #[source]
        source: AgentError,
    },
    /// A limit that the kernel does not have.
    #[error(transparent)]
    Ulimit(#[from] kiln_sandbox::UnknownResource),
    /// A layer that cannot be written as an archive.
    #[error("could not write a layer")]
    WriteLayer(#[from] kiln_tree::tar::WriteError),
    /// An archive that is to be imported cannot be used.
    #[error("could not import `{name}`")]
    Import {
        /// The file.
        name: String,
        /// Why not.
        #[source]
        source: kiln_tree::tar::ApplyError,
    },
    /// An archive that is to be the build context cannot be used.
    #[error("could not unpack the build context from `{name}`")]
    ContextArchive {
        /// Where it came from.
        name: String,
        /// Why not.
        #[source]
        source: kiln_tree::tar::ApplyError,
    },
    /// An OCI layout that cannot be used.
    #[error("could not use the OCI layout `{}`", path.display())]
    Layout {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: kiln_oci::layout::LayoutError,
    },
    /// An image that says no program, and a request that says none either.
    #[error("image `{image}` names no program, and none was given")]
    NothingToRun {
        /// As asked for.
        image: String,
    },
    /// A working directory that could mean anything.
    #[error("the working directory `{path}` is not an absolute path")]
    Workdir {
        /// As asked for.
        path: String,
    },
    /// A host name that is none.
    #[error("`{name}` is not a host name: it must be 1 to 64 of a-z, A-Z, 0-9, `-`, `.` and `_`")]
    Hostname {
        /// As asked for.
        name: String,
    },
    /// A layer of an image whose archive is gone, and cannot be made again from its files.
    #[error(
        "layer {layer} was packed by another tool, and the archive that it was pulled as is no longer in the store"
    )]
    ForeignLayer {
        /// The layer.
        layer: kiln_store::Content,
    },
    /// A blob that was left in a registry, and cannot be had from there.
    #[error("blob {blob} is not in the store, and {why}")]
    BlobElsewhere {
        /// The digest of the blob.
        blob: String,
        /// Why nobody can be asked for it.
        why: &'static str,
    },
    /// A layer whose files are not those that it was made of.
    #[error("layer {layer} is damaged: its archive has become {found}, and was {expected}")]
    DamagedLayer {
        /// The layer.
        layer: kiln_store::Content,
        /// The digest of its archive.
        expected: kiln_store::DiffId,
        /// What it is now.
        found: kiln_store::DiffId,
    },
    /// A directory that an image layout cannot be written to.
    #[error("`{}` is neither empty nor an OCI image layout", path.display())]
    NotALayout {
        /// The directory.
        path: PathBuf,
    },
    /// A directory that files cannot be written to.
    #[error("could not write to the directory `{}`", path.display())]
    Destination {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: kiln_tree::FsError,
    },
    /// An archive that cannot hold what was built.
    #[error("a docker archive holds an image for one platform, and this build is for {count}")]
    OnePlatform {
        /// How many there are.
        count: usize,
    },
    /// An image that a registry did not get.
    #[error("did not push {}", names.join(", "))]
    NotSent {
        /// The names that it did not get, in their short form.
        names: Vec<String>,
        /// The store has it under these.
        is_kept: bool,
        /// Why not.
        #[source]
        source: Box<Error>,
    },
    /// An image that a registry has now, without what refers to it.
    #[error("pushed {image}, but not what is attached to it")]
    NotAttached {
        /// Its name there.
        image: String,
        /// Why not.
        #[source]
        source: Box<Error>,
    },
    /// An image that is to be sent and has no name.
    #[error("an image without a name says no registry to push to")]
    NothingNamed,
    /// A name of one image where all of a repository are meant.
    #[error("`{name}` has a tag or a digest, and all tags of a repository are to be {action}ed")]
    TagAndAllTags {
        /// The name.
        name: String,
        /// Its repository.
        repository: String,
        /// `push` or `pull`.
        action: &'static str,
    },
    /// A name that says another thing than how the image is sent.
    #[error("`{name}` has a tag, and the image is to be pushed by its digest alone")]
    TagByDigest {
        /// The name.
        name: String,
    },
    /// An annotation of an index where there is none.
    #[error("the annotation `{key}` is for an index, and an image for one platform has none")]
    IndexAnnotation {
        /// Its key.
        key: String,
    },
    /// An annotation for a platform that the image is not for.
    #[error("the annotation `{key}` is for {wanted}, and the image is for {there}")]
    AnnotationPlatform {
        /// Its key.
        key: String,
        /// Its platform.
        wanted: String,
        /// What the image is for.
        there: String,
    },
    /// A level that a compression does not have.
    #[error("{compression} has no level {level}")]
    CompressionLevel {
        /// As asked for.
        level: u8,
        /// The compression.
        compression: &'static str,
        /// The lowest and the highest, if there is any.
        levels: Option<(u8, u8)>,
    },
    /// An engine that cannot be given what was built.
    #[error("an engine is given an image for one platform, and this build is for {count}")]
    OnePlatformToLoad {
        /// How many there are.
        count: usize,
    },
    /// No engine of this host can be given an image.
    #[error("{}", no_engine_words(*engine, tried))]
    NoEngine {
        /// The one that was asked for; by default any.
        engine: Option<Engine>,
        /// What was tried, and why not; never empty.
        tried: Vec<String>,
    },
    /// Two platforms that write the same file.
    #[error("`{path}` of {second} would be written over that of {first}")]
    PlatformClash {
        /// The file.
        path: kiln_tree::TreePath,
        /// The platform that has it.
        first: String,
        /// The platform that has it too.
        second: String,
    },
    /// A digest where a name for a new image is wanted.
    #[error("could not name an image `{name}`: its digest is not for anybody to choose")]
    NameWithDigest {
        /// The name.
        name: String,
    },
    /// A name that means something else wherever an image is asked for.
    #[error(
        "could not name an image `{name}`: `scratch` is the base of nothing, and ids begin with `sha256`"
    )]
    ReservedName {
        /// The name.
        name: String,
    },
    /// An image that others are made of.
    #[error("image `{image}` is part of {}; remove that", quoted(of))]
    PartOfIndex {
        /// Its id.
        image: String,
        /// What it is part of: names, or an id where there is none.
        of: Vec<String>,
    },
    /// A config that cannot be written.
    #[error("could not write the image config")]
    ImageConfig(#[from] kiln_ir::ImageConfigError),
    /// A user that has no id here.
    #[error("nothing can run as `{user}`: only one id is mapped here, and it is root's")]
    OneId {
        /// As asked for, or as the image says.
        user: String,
    },
    /// A step asked the kernel for ids that are not there, and may have gone on without.
    #[error("one id is mapped here, root's, which is too few for what the step did: {refused}")]
    OneIdRefused {
        /// What it asked for first.
        refused: kiln_sandbox::Refused,
    },
    /// A step did what takes more ids than there are.
    #[error(
        "one id is mapped here, root's, which is too few to tell whose a file is after this step"
    )]
    OneIdOwner {
        /// Which file.
        #[source]
        source: kiln_tree::OwnerDoubt,
    },
    /// A file over http cannot be had.
    #[error(transparent)]
    Web(#[from] kiln_oci::web::WebError),
    /// A file over http is another one than was asked for.
    #[error("`{url}` is not what was asked for: its digest is {found}, and {expected} is expected")]
    Checksum {
        /// The address.
        url: String,
        /// The digest that it should have.
        expected: String,
        /// The digest that it has.
        found: String,
    },
    /// A file over http was compressed for the way, and cannot be had out of that.
    #[error("what came from `{url}` with `Content-Encoding: gzip` is damaged")]
    Encoding {
        /// The address.
        url: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A name that no file can have.
    #[error("the file from `{url}` cannot be named `{name}`")]
    FileName {
        /// The name.
        name: String,
        /// The address.
        url: String,
    },
    /// A repository cannot be had.
    #[error(transparent)]
    Git(#[from] crate::git::GitError),
    /// A file is not here, and nothing may be fetched.
    #[error("`{url}` is not here, or is another file by now")]
    NotFetched {
        /// The address.
        url: String,
    },
    /// An image has another config than the one that its build was planned with.
    #[error("the config of `{reference}` is not what was recorded for {digest}")]
    OtherConfig {
        /// The image.
        reference: String,
        /// Its manifest.
        digest: String,
    },
    /// A limit that can mean nothing.
    #[error("no step can have {what} `{value}`")]
    Limit {
        /// Which, and what is wrong with it.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// Cache mounts cannot travel.
    #[error(transparent)]
    Mounts(#[from] crate::mounts::MountsError),
    /// A docker engine refused.
    #[error(transparent)]
    Daemon(#[from] kiln_oci::daemon::DaemonError),
    /// Another engine of this host did not do what it was asked.
    #[error("could not {attempt} with {engine}: {reason}")]
    Engine {
        /// Which.
        engine: Engine,
        /// What was tried.
        attempt: String,
        /// What it says, or what is wrong with that.
        reason: String,
    },
    /// Another engine of this host says nothing.
    #[error("{engine} did not answer within {seconds} s")]
    EngineSilent {
        /// Which.
        engine: Engine,
        /// How long it was given.
        seconds: u64,
    },
    /// A step was asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Returns a closure that makes an [`Error::Io`].
    pub(crate) fn io(
        attempt: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io {
            attempt,
            path,
            source,
        }
    }

    /// Makes an error of a blob that the store could not take.
    pub(crate) fn unwritten(store: &Store) -> impl FnOnce(io::Error) -> Error {
        let root = store.root().to_owned();
        |source| StoreError::io("write a blob into", root)(source).into()
    }

    /// A way out, where there is one to name.
    pub fn hint(&self) -> Option<String> {
        if let Some(owner) = kiln_tree::UnmappedOwner::of(self) {
            return kiln_sandbox::userns::wider_fix(owner.uid.max(owner.gid));
        }
        Some(match self {
            Error::Load { source, .. } => return source.hint(),
            Error::List(error) => return error.hint(),
            Error::NoAttestations { .. } => "type=image, oci and registry have them in an index, \
                 type=local as files; or leave --provenance and --sbom out"
                .to_owned(),
            Error::NoScan { there, .. } if there.is_empty() => "`kiln build --sbom` attaches those that a \
                 Dockerfile asks for by BUILDKIT_SBOM_SCAN_CONTEXT and BUILDKIT_SBOM_SCAN_STAGE"
                .to_owned(),
            Error::NoScan { there, .. } => {
                let there: Vec<String> = there.iter().map(|scan| format!("`{scan}`")).collect();
                format!("there is {}", there.join(", "))
            }
            Error::Cache(error) => return error.hint(),
            Error::NoSuchImage { .. } => "`kiln images` lists those that are there".to_owned(),
            Error::NothingToPush { name, near } if near.is_empty() => {
                format!(
                    "build it with `kiln build -t {name}`; `kiln images` lists those that are there"
                )
            }
            Error::NothingToPush { near, .. } => format!("there is {}", near.join(", ")),
            Error::NoTarget { image } => {
                format!("say where to: kiln push {image} HOST/NAME:TAG")
            }
            Error::Offline { reference } => {
                format!("build once without --offline, or import `{reference}`")
            }
            Error::UnknownLocal { kind: LAYOUT, name } => {
                format!("give one with --build-context {name}=oci-layout://DIR")
            }
            Error::UnknownLocal { name, .. } => format!("give one with --build-context {name}=DIR"),
            Error::Platform { found, .. } => {
                let found = found.split(", ").next().unwrap_or_default();
                format!("`--platform {found}` asks for what there is")
            }
            Error::Foreign { remedy, .. } => return remedy.map(str::to_owned),
            Error::Sandbox(kiln_sandbox::Error::Cgroup { remedy, .. }) => {
                return remedy.map(str::to_owned);
            }
            Error::Sandbox(error) => error.misplaced()?.to_owned(),
            Error::OnePlatform { .. } => {
                "`-o type=oci` holds several; `--platform` chooses one".to_owned()
            }
            Error::NotSent {
                source,
                is_kept: false,
                ..
            }
            | Error::NotAttached { source, .. } => return source.hint(),
            Error::NotSent { names, source, .. } => {
                let commands = names.iter().map(|name| format!("`kiln push {name}`"));
                let push = format!(
                    "the image is kept: {} {} it without building it again",
                    commands.collect::<Vec<_>>().join(", "),
                    if names.len() == 1 { "sends" } else { "send" }
                );
                return Some(match source.hint() {
                    Some(hint) => format!("{hint}; {push}"),
                    None => push,
                });
            }
            Error::NothingNamed => {
                "give it one with -t HOST/NAME:TAG, or with name=HOST/NAME:TAG of the output"
                    .to_owned()
            }
            Error::TagAndAllTags {
                name,
                repository,
                action,
            } => {
                format!(
                    "`kiln {action} -a {repository}` takes all, `kiln {action} {name}` that one"
                )
            }
            Error::TagByDigest { name } => {
                let end = name.rfind(':').unwrap_or(name.len());
                format!("leave the tag out: {}", &name[..end])
            }
            Error::IndexAnnotation { .. } => {
                "`manifest:KEY=VALUE` says it of the image; several platforms make an index"
                    .to_owned()
            }
            Error::CompressionLevel { levels, .. } => match levels {
                Some((first, last)) => format!("it has levels {first} to {last}"),
                None => "leave `compression-level` out, or compress with gzip or zstd".to_owned(),
            },
            Error::OnePlatformToLoad { .. } => {
                "`--platform` chooses one; `-o type=oci` holds several".to_owned()
            }
            Error::NoEngine { .. } => {
                "start one (as in `systemctl start docker`), or write an archive that \
                 `docker load` and `podman load` read: `-o type=docker,dest=FILE`"
                    .to_owned()
            }
            Error::Engine { attempt, .. } if attempt == LOAD => return None,
            Error::Engine { .. } | Error::EngineSilent { .. } => {
                "`--engines none` leaves the engines of this host out".to_owned()
            }
            Error::PlatformClash { .. } => {
                "leave `platform-split=false` out, and each platform has a directory".to_owned()
            }
            Error::File(FileError::ContextChanged { .. }) => {
                "build again when nothing writes there".to_owned()
            }
            Error::OneId { .. } | Error::OneIdRefused { .. } | Error::OneIdOwner { .. } => {
                return kiln_sandbox::userns::single_id_fix();
            }
            Error::NoSecret { id } => {
                format!("give it with --secret id={id},src=FILE or --secret id={id},env=VARIABLE")
            }
            Error::NoAgent { id } => {
                format!(
                    "give it with --ssh {id} (the agent of SSH_AUTH_SOCK) or --ssh {id}=KEYFILE"
                )
            }
            Error::Agent { source, .. } => return source.hint(),
            Error::NothingToRun { image } => {
                format!("say what to run: kiln run {image} PROGRAM [ARGUMENT...]")
            }
            Error::ForeignLayer { .. } => {
                "pull its image again with `kiln pull`, or build it without --offline, so that the layer \
                 can be asked for again"
                    .to_owned()
            }
            Error::CacheExport { source, .. } => return source.hint(),
            Error::Mounts(error) => return error.hint(),
            Error::Web(error) => return error.hint(),
            Error::Git(error) => return error.hint(),
            Error::Checksum { .. } => {
                "if the new file is the right one, give its digest as the checksum".to_owned()
            }
            Error::WhiteoutInContext { .. } => {
                "exclude it in the ignore file, or copy what is beside it".to_owned()
            }
            Error::NotALayout { .. } => {
                "choose another place, or remove what is in this one".to_owned()
            }
            _ => return None,
        })
    }

    /// Whether a registry answered that it has no such image for whoever asks.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Error::Registry(
                registry::Error::NotFound { .. }
                    | registry::Error::Denied { .. }
                    | registry::Error::Unauthorized { .. }
            )
        )
    }

    /// Whether a registry could not be asked, or did not know better than to fail: what it has is not known.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            Error::Registry(
                registry::Error::Unreachable { .. }
                    | registry::Error::Page { .. }
                    | registry::Error::RateLimited { .. }
                    | registry::Error::Interrupted { .. }
                    | registry::Error::Status { status: 500.., .. }
            )
        )
    }

    /// Whether a source is not there, or not as it was pinned.
    pub fn is_other_source(&self) -> bool {
        self.is_refusal()
            || matches!(
                self,
                Error::Checksum { .. }
                    | Error::OtherConfig { .. }
                    | Error::Offline { .. }
                    | Error::Web(kiln_oci::web::WebError::Status { .. })
                    | Error::Git(
                        crate::git::GitError::NoCommit { .. }
                            | crate::git::GitError::Checksum { .. }
                    )
            )
    }

    /// Whether this host lacks something, as against a build that is wrong.
    pub fn is_environment(&self) -> bool {
        match self {
            // It says that the request is wrong.
            Error::Store(StoreError::ImageOfIndex { .. }) => false,
            Error::Sandbox(error) => error.misplaced().is_none(),
            Error::Store(_)
            | Error::Accounts(_)
            | Error::NoEngine { .. }
            | Error::Foreign { .. } => true,
            Error::RegistryConfig(error) => !error.is_usage(),
            Error::Git(error) => error.is_environment(),
            _ => false,
        }
    }
}

/// Names as people read several.
fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// What sending an image to an engine is called.
pub(crate) const LOAD: &str = "load the image";

fn no_engine_words(engine: Option<Engine>, tried: &[String]) -> String {
    let tried = tried.join("; ");
    match engine {
        Some(engine) => format!("there is no {engine} to load into ({tried})"),
        None => format!("there is no engine to load into ({tried})"),
    }
}

/// An error with its causes in one line; a cause that the line ends with already is left out.
pub fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !words.ends_with(&next) {
            words.push_str(": ");
            words.push_str(&next);
        }
        cause = error.source();
    }
    words
}
