//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::limits::LimitArgs;
use super::listing::ImagesArgs;
use super::mounts::{MountsCommand, TravelArgs};
use super::plan::PlanArgs;
use super::reproduce::{DiffArgs, ReproduceArgs};
use super::run::RunArgs;

/// Builds container images: `docker build` as one binary, without a daemon and without root.
#[derive(Debug, Parser)]
#[command(
    name = "kiln",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  kiln build -t app .              build the Dockerfile in this directory
  kiln run app                     run what was built
  kiln plan .                      see what a build would do, without running anything
  kiln why                         why each step of the last build ran, or did not

Environment:
  KILN_ROOT                        where images, layers and cache are kept
                                   [/var/lib/kiln; for ordinary users ~/.local/share/kiln]
  KILN_CONFIG                      the configuration file [~/.config/kiln/config.toml over
                                   /etc/kiln/config.toml]
  KILN_REGISTRY_MIRROR             docker.io=URL: ask this mirror first
  KILN_INSECURE_REGISTRIES         HOST,...: registries that speak plain http
  KILN_ENGINES                     NAME,...: engines of this host whose images count before a
                                   registry's [docker,podman,containerd]; none asks nobody
  DOCKER_CONFIG                    directory of docker's config.json (credentials)
  SOURCE_DATE_EPOCH                seconds since 1970: the time of all that is built, so that
                                   equal content has equal digests
  NO_COLOR, BUILDKIT_PROGRESS, DOCKER_DEFAULT_PLATFORM, SSL_CERT_FILE

Registries, with every command (docs/configuration.md):
  --config FILE                    the only configuration file that is read
  --mirror REGISTRY=URL            ask this mirror first; may be given several times
  --plain-http HOST                speak plain http with this registry
  --tls-ca FILE                    trust the certificate authorities in this PEM file too

Exit codes: 0 done, 1 the build failed, 2 usage or Dockerfile error,
3 the environment lacks something, 101 a bug, 130 interrupted. `kiln run` passes on the
program's; its own are 125, 126 (cannot be executed) and 127 (not found)."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) registries: RegistryArgs,
}

/// How registries are spoken to; the help of `kiln` itself lists them.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RegistryArgs {
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[arg(long, global = true, hide = true, value_name = "REGISTRY=URL")]
    pub(crate) mirror: Vec<String>,
    #[arg(long, global = true, hide = true, value_name = "HOST")]
    pub(crate) plain_http: Vec<String>,
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub(crate) tls_ca: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// Show what a build would do, without running anything
    Plan(Box<PlanArgs>),
    /// Pin what a Dockerfile takes from elsewhere: write kiln.lock, or move its pins
    Lock(Box<LockArgs>),
    /// Say why each step of a build ran, or did not
    Why(WhyArgs),
    /// Build twice without cache in different conditions, and say what differs
    Reproduce(Box<ReproduceArgs>),
    /// Say what differs between two images, file by file
    Diff(DiffArgs),
    /// Run a program in an image
    Run(Box<RunArgs>),
    /// List images
    #[command(visible_alias = "ls")]
    Images(ImagesArgs),
    /// Bring images from a registry
    Pull(Box<PullArgs>),
    /// Send an image to a registry
    Push(Box<PushArgs>),
    /// Give an image another name
    Tag {
        /// Name or id of the image
        image: String,
        /// The new name
        name: String,
    },
    /// Remove names, and images that have none left; an id removes the image with all its names
    Rmi {
        /// Names or ids
        #[arg(required = true)]
        images: Vec<String>,
        /// What is not there is no error
        #[arg(short, long)]
        force: bool,
    },
    /// Make an image from the tar of a root file system
    #[command(after_help = "\
Examples:
  kiln import rootfs.tar.gz mybase
  mmdebstrap --variant=minbase bookworm | kiln import - debian-base")]
    Import {
        /// The archive (plain, gzip, zstd, bzip2 or xz), or - for standard input
        file: String,
        /// Name of the image
        name: String,
    },
    /// Show an image's manifest, config and layers as JSON; of several images as a list
    Inspect {
        /// Names or ids
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        /// Show what is said of it instead: its attestations, by platform
        #[arg(long)]
        attestations: bool,
    },
    /// Show what software is in an image: packages of its distribution, and of languages
    #[command(after_help = "\
The SBOM that is attached to the image is shown if there is one, else its layers are read, as
--anew does in any case. An image that is not here is pulled.

Examples:
  kiln sbom app                          a table
  kiln sbom --format spdx -o app.spdx.json app")]
    Sbom(SbomArgs),
    /// Show how an image was made
    History {
        /// Name or id
        image: String,
        /// Show whole instructions
        #[arg(long)]
        no_trunc: bool,
        /// Of an image for several platforms, the one for this one [default: this host's]
        #[arg(long, value_name = "OS/ARCH")]
        platform: Option<String>,
    },
    /// Write images to an archive
    Save(SaveArgs),
    /// Take images from an archive
    Load(LoadArgs),
    /// Put images for several platforms together by hand
    Manifest {
        #[command(subcommand)]
        command: ManifestCommand,
    },
    /// Log in to a registry
    Login(LoginArgs),
    /// Forget the account of a registry
    Logout {
        /// The registry, or a part of one such as quay.io/team [default: Docker Hub]
        registry: Option<String>,
    },
    /// Look at earlier builds
    Builds {
        #[command(subcommand)]
        command: Option<BuildsCommand>,
    },
    /// Show what takes up the store
    Du,
    /// Remove cache and untagged images
    #[command(after_help = "\
Without options it removes cached results, untagged images and pulled bases, but nothing that an
image with a name needs or a running build uses; cache mounts stay unless --all.")]
    Prune {
        /// Remove cache mounts too
        #[arg(short, long)]
        all: bool,
        /// Keep what was used within this time (such as 24h or 7d)
        #[arg(long, value_name = "DURATION", conflicts_with = "keep_storage")]
        keep_duration: Option<String>,
        /// Keep at most about this much cache (such as 10GB)
        #[arg(long, value_name = "SIZE")]
        keep_storage: Option<String>,
    },
    /// Look at cache mounts, send them elsewhere and bring them here
    Mounts {
        #[command(subcommand)]
        command: MountsCommand,
    },
    /// Show what kiln finds on this host and what it falls back to
    Info,
    /// Wait until what was built would outlive a loss of power
    ///
    /// Every build starts this in the background; it ends as soon as the disk has it all.
    #[command(hide = true)]
    Settle,
    /// Print a shell's completion script
    #[command(after_help = "\
Example:
  kiln completion bash > ~/.local/share/bash-completion/completions/kiln")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BuildsCommand {
    /// List earlier builds, newest first
    Ls {
        /// At most so many
        #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// How to write it: text, or json with one build a line
        #[arg(long, value_enum, default_value = "text", hide_possible_values = true)]
        format: RecordFormat,
    },
    /// Show one build: its steps with times, bytes and reasons; * marks the critical path
    Show {
        /// The beginning of its id, latest, or latest~N for the one N before
        #[arg(default_value = "latest")]
        id: String,
        /// How to write it: text or json
        #[arg(long, value_enum, default_value = "text", hide_possible_values = true)]
        format: RecordFormat,
    },
    /// Print what steps wrote, as far as it is kept
    ///
    /// Of each step the first 32 kB and the last 96 kB are kept, of a build at most 8 MB. What a step
    /// prints is kept as it is: a secret that it prints is in there.
    Logs {
        /// The beginning of its id, latest, or latest~N for the one N before
        #[arg(default_value = "latest")]
        id: String,
        /// Only the step with this number, the steps of this stage, or whose text holds this
        step: Option<String>,
        /// How to write it: text, or json with one step a line
        #[arg(long, value_enum, default_value = "text", hide_possible_values = true)]
        format: RecordFormat,
    },
    /// Write one HTML page of a build: graph, timeline, costs, reasons and output
    ///
    /// The page needs nothing but a browser: it loads nothing and runs no script. What steps printed is in
    /// it, as in `kiln builds logs`.
    Report {
        /// The beginning of its id, latest, or latest~N for the one N before
        #[arg(default_value = "latest")]
        id: String,
        /// Where to write it; - is standard output [default: kiln-build-ID.html]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Forget builds, with what their steps wrote; images and cache stay
    Rm {
        /// The beginnings of their ids
        ids: Vec<String>,
        /// Forget all
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RecordFormat {
    /// For people
    Text,
    /// For other programs: docs/formats/build-json.md
    Json,
}

/// What lowering needs to know; the same for `build` and `plan`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SourceArgs {
    /// The Dockerfile, relative to the working directory (within the context if that is no
    /// directory here); - is standard input, and a URL works too [default: PATH/Dockerfile]
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Read the file with a front end from outside (docs/frontends.md): a program, as in ./x, or
    /// image:REF, run in a sandbox
    #[arg(long, value_name = "PROGRAM|image:REF")]
    pub(crate) frontend: Option<String>,
    /// How long a front end may say nothing while it waits for nothing [default: 60s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) frontend_timeout: Option<String>,
    /// Build this stage instead of the last
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Set a build argument; without a value it is taken from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Another context, by name (or NAME::PLATFORM): a directory, docker-image://REF,
    /// oci-layout://DIR[:TAG], a git repository or a URL
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_context: Vec<String>,
    /// Platforms of the image, as in linux/amd64,linux/arm64; several make an index
    /// [default of builds: DOCKER_DEFAULT_PLATFORM, else this host's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Vec<String>,
    /// Add a label to the image
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Network of RUN steps: default, none or host
    #[arg(long, value_name = "MODE")]
    pub(crate) network: Option<String>,
    /// Add a line to /etc/hosts of RUN steps; the address alone never runs a step again
    #[arg(long, value_name = "HOST:IP")]
    pub(crate) add_host: Vec<String>,
    /// Limit a resource of RUN steps, such as nofile=1024:4096; -1 is unlimited
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Size of /dev/shm of RUN steps, such as 64m
    #[arg(long, value_name = "SIZE")]
    pub(crate) shm_size: Option<String>,
    /// Run every step, whatever is cached
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Run every step of these stages, whatever is cached
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// Ask the registry for every base image that no lock pins, even one that is here
    #[arg(long)]
    pub(crate) pull: bool,
    /// Refuse whatever the lock does not pin, as a build in CI should
    #[arg(long)]
    pub(crate) locked: bool,
    /// The lock [default: kiln.lock beside the Dockerfile; NAME.kiln.lock beside one called NAME]
    #[arg(long, value_name = "FILE")]
    pub(crate) lock_file: Option<PathBuf>,
    /// Never ask a registry
    #[arg(long, conflicts_with = "pull")]
    pub(crate) offline: bool,
    /// Engines of this host whose images count before a registry's, in this order, or none
    /// [default: KILN_ENGINES, else docker,podman,containerd]
    #[arg(long, value_name = "NAME,..")]
    pub(crate) engines: Option<String>,
    /// The build context, which has the Dockerfile and what COPY reads: a directory, a git
    /// repository (URL#REF:SUBDIR), the URL of an archive or of a Dockerfile, or - for an archive
    /// or a Dockerfile on standard input
    #[arg(value_name = "PATH|URL|-")]
    pub(crate) context: Option<String>,
}

/// What the steps of a build are trusted with.
#[derive(Debug, Args)]
pub(crate) struct TrustArgs {
    /// Let steps have a secret that nothing keeps: id=ID,src=FILE or id=ID,env=VARIABLE
    #[arg(long, value_name = "SPEC")]
    pub(crate) secret: Vec<String>,
    /// Let steps use an ssh agent: the one of SSH_AUTH_SOCK, that of a socket, or keys in files
    #[arg(long, value_name = "ID[=SOCKET|KEY[,KEY]]")]
    pub(crate) ssh: Vec<String>,
    /// Let steps have what they ask for by name: network.host, security.insecure; frontend.exec lets
    /// the file name a program of this host as its front end
    #[arg(long, value_name = "ENTITLEMENT")]
    pub(crate) allow: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Outputs (-o), several in one build:
  type=image,name=NAME             kiln's own store (the default)
  type=registry                    the registries of its names; type=image,push=true keeps it, too
  type=oci,dest=FILE[,tar=false]   an OCI archive, or a layout directory
  type=docker,dest=FILE            an archive for docker load
  type=docker|podman|containerd    that engine of this host; --load takes the first that runs
  type=local,dest=DIR              the files; -o DIR says the same
  type=tar,dest=FILE               the files as a tar; -o - writes it to standard output
  type=cacheonly                   nothing: only the cache is filled

Images also take, with commas between: name=NAME (several as \"name=A,B\"), oci-mediatypes=false,
compression=gzip|zstd|uncompressed, compression-level=N, force-compression=true (what came
otherwise, too), annotation.KEY=VALUE, rewrite-timestamp=false (with SOURCE_DATE_EPOCH keep the
times of files). kiln's store and registries also take name-canonical=true,
dangling-name-prefix=NAME and push-by-digest=true.

Of several platforms, local and tar write a directory each, such as linux_arm64, unless
platform-split=false. RUN steps of a foreign platform need qemu-user-static on this host.

The image id is all that standard output gets, so id=$(kiln build .) works.

Questions (--call METHOD[,format=FORMAT][,ignorestatus=true]), which run nothing:
  check                            what is wrong or doubtful in the Dockerfile, all stages unless
                                   --target names one; exit code 1 if there are warnings, 2 if
                                   it cannot be built
  outline                          arguments, secrets, ssh agents and caches that the target takes
  targets                          the stages, with their descriptions
  context                          what the build sees of its context; with FILEs, why each is or
                                   is not in it
  describe                         this list")]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Name the image; may be given several times
    #[arg(short = 't', long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<String>,
    /// Where the result goes, instead of kiln's own store; may be given several times
    #[arg(short = 'o', long = "output", value_name = "SPEC")]
    pub(crate) outputs: Vec<String>,
    /// Say something in the image's manifest; before KEY also where: manifest:, index:,
    /// manifest-descriptor:, index-descriptor:, or of one platform as in manifest[linux/arm64]:
    #[arg(long = "annotation", value_name = "[PLACE:]KEY=VALUE")]
    pub(crate) annotations: Vec<String>,
    /// Push the image to the registries of its names: short for -o type=registry, or push=true where
    /// an output is type=image
    #[arg(long)]
    pub(crate) push: bool,
    /// Load the image into the docker, podman or containerd of this host: the first that runs, or the
    /// one that is named; it is sent what it lacks
    #[arg(long, value_name = "ENGINE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) load: Option<String>,
    /// Build a plan in kiln's text or JSON form instead of a Dockerfile; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "target", "build_arg", "locked", "lock_file", "LimitArgs", "frontend"])]
    pub(crate) plan: Option<String>,
    /// Use results of other machines: a reference, or type=registry|local|s3,... (docs/cache.md); may
    /// be given several times
    #[arg(long, value_name = "REF|SPEC")]
    pub(crate) cache_from: Vec<String>,
    /// Leave results for other machines: type=registry|local|s3|inline,... (docs/cache.md); may be
    /// given several times
    #[arg(long, value_name = "REF|SPEC")]
    pub(crate) cache_to: Vec<String>,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    #[command(flatten)]
    pub(crate) travel: TravelArgs,
    /// Run at most so many steps at once [default: 16, or twice the cores]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// After a failure, finish what does not need the failed step
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Say of the image how it was built (SLSA v1): true, false, mode=min or mode=max; as a part of an
    /// index beside it (docs/attestations.md)
    #[arg(long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) provenance: Option<String>,
    /// Say of the image what software is in it (SPDX)
    #[arg(long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) sbom: Option<String>,
    /// The same as --provenance and --sbom: type=provenance,mode=max or type=sbom
    #[arg(long, value_name = "SPEC")]
    pub(crate) attest: Vec<String>,
    /// How to show progress
    #[arg(long, value_enum, default_value = "auto", env = "BUILDKIT_PROGRESS")]
    pub(crate) progress: Progress,
    /// Say of each step all that its reason goes by, as soon as it is known
    #[arg(long)]
    pub(crate) explain: bool,
    /// Print nothing but the image id
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write the image id to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write the build's results as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Check the Dockerfile and build nothing: short for --call check
    #[arg(long, conflicts_with_all = ["call", "plan"])]
    pub(crate) check: bool,
    /// Answer a question instead of building: check, outline, targets, context or describe
    #[arg(long, value_name = "METHOD", conflicts_with = "plan")]
    pub(crate) call: Option<String>,
    /// How to write the answer: text, json as BuildKit does, or sarif (checks only)
    #[arg(long, value_enum, hide_possible_values = true)]
    pub(crate) format: Option<AnswerFormat>,
    /// With --call context: say whether and why these are in the context
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<String>,
    #[command(flatten)]
    pub(crate) not_yet: NotYet,
}

/// Flags of `docker buildx build` that are known and refused by name.
#[derive(Debug, Args)]
pub(crate) struct NotYet {
    #[arg(long, hide = true, value_name = "X")]
    builder: Option<String>,
}

impl NotYet {
    /// The first flag that was given, if any.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let given = [(self.builder.is_some(), "--builder")];
        given.into_iter().find_map(|(is, name)| is.then_some(name))
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
What the registry has already is not sent, and what another of its repositories has is taken from
there. Standard output gets one line for each name, NAME:TAG@DIGEST, and nothing else.

Examples:
  kiln push registry.example/app:1              the image of that name
  kiln push app registry.example/app:1          the image `app`, under this name there
  kiln push -a registry.example/app             all tags of that repository
  kiln push --platform linux/arm64 registry.example/app:1
                                                of an image for several, the one for this")]
pub(crate) struct PushArgs {
    /// Name or id of the image; without a target it is also where to push to
    #[arg(required_unless_present = "cache")]
    pub(crate) image: Option<String>,
    /// Push under these names instead
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// Push all tags of the repository
    #[arg(short, long, conflicts_with = "targets")]
    pub(crate) all_tags: bool,
    /// Push no image but the results of the build that made it, or of the latest build, as build's
    /// --cache-to does; may be given several times
    #[arg(long, value_name = "REF|SPEC", conflicts_with_all = [
        "targets", "all_tags", "platform", "compression", "compression_level", "force_compression", "annotations",
    ])]
    pub(crate) cache: Vec<String>,
    /// Of an image for several platforms, push only the one for this one
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// How to pack layers that were made here: gzip, zstd or uncompressed; pulled ones stay as they are
    #[arg(long, value_enum, default_value = "gzip", hide_possible_values = true)]
    pub(crate) compression: Packed,
    /// How hard: gzip 0 to 9, zstd 0 to 22
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) compression_level: Option<String>,
    /// Pack layers anew that are packed in another way, pulled ones too
    #[arg(long)]
    pub(crate) force_compression: bool,
    /// Say something more in manifests (the default PLACE), in the index, or where it lists manifests
    /// (manifest-descriptor), as build's --annotation does; may be given several times
    #[arg(long = "annotation", value_name = "[PLACE:]KEY=VALUE")]
    pub(crate) annotations: Vec<String>,
    /// How attestations go along: in the image's index, as referrers, or none
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        default_value = "index",
        hide_possible_values = true
    )]
    pub(crate) attestations: Attached,
    /// Ask for every layer and manifest, also where the registry has the image, and send again what it lost
    #[arg(long, conflicts_with = "cache")]
    pub(crate) verify: bool,
    /// How to show progress
    #[arg(long, value_enum, default_value = "auto", env = "BUILDKIT_PROGRESS")]
    pub(crate) progress: Progress,
    /// Print nothing but the names
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A registry is asked even for an image that is here; what is here already is not fetched again.
Standard output gets one line for each image, its name and its id.

Examples:
  kiln pull alpine
  kiln pull --platform linux/arm64 alpine
  kiln pull --all-platforms registry.example/app:1   all of an index, with its attestations")]
pub(crate) struct PullArgs {
    /// Names, with a tag or a digest
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// Of an image for several platforms, the one for this one [default:
    /// DOCKER_DEFAULT_PLATFORM, else this host's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// All platforms of an image, with what is attested of them
    #[arg(long, conflicts_with = "platform")]
    pub(crate) all_platforms: bool,
    /// All tags of each repository
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// How to show progress
    #[arg(long, value_enum, default_value = "auto", env = "BUILDKIT_PROGRESS")]
    pub(crate) progress: Progress,
    /// Print nothing but the ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// How attestations go along with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attached {
    /// In its index
    Index,
    /// As referrers of its manifests
    Referrers,
    /// Not at all
    None,
}

impl From<Attached> for kiln::AttestAs {
    fn from(attached: Attached) -> kiln::AttestAs {
        match attached {
            Attached::Index => kiln::AttestAs::Index,
            Attached::Referrers => kiln::AttestAs::Referrers,
            Attached::None => kiln::AttestAs::Nothing,
        }
    }
}

/// How layers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Packed {
    /// gzip, which everything reads
    Gzip,
    /// zstd: smaller and faster, not read by old tools
    Zstd,
    /// Not at all
    Uncompressed,
}

impl From<Packed> for kiln::Compression {
    fn from(packed: Packed) -> kiln::Compression {
        match packed {
            Packed::Gzip => kiln::Compression::Gzip,
            Packed::Zstd => kiln::Compression::Zstd,
            Packed::Uncompressed => kiln::Compression::None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AnswerFormat {
    /// For people
    Text,
    /// As BuildKit's subrequests
    Json,
    /// SARIF 2.1.0, for editors and code hosts
    Sarif,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// Live on a terminal, else plain
    Auto,
    /// Live
    Tty,
    /// Line by line, nothing clipped
    Plain,
    /// Only warnings, errors and the id
    Quiet,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The lock holds digests and configs of images, commits of git repositories and checksums of
files, of all stages (or with --target of those that it needs), for the platforms that it is
given (by default those that it has, else this host's). `kiln build` and `kiln plan` take from
it whatever it has; with --locked nothing else. What is locked already stays as it is, unless
--update names it; what no stage names any more is dropped, unless --keep says otherwise.

Examples:
  kiln lock .                                        write kiln.lock, or add what it lacks
  kiln lock --update alpine:3 .                      move one image to what its tag means now
  kiln lock --platform linux/amd64,linux/arm64 .     for both
  kiln build --locked .                              take nothing but what is locked

Exit codes: 0 done, 1 the lock is not up to date (--check), 2 usage, Dockerfile or lock error.")]
pub(crate) struct LockArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Ask again for this image, repository or file; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) update: Vec<String>,
    /// Ask again for all of them
    #[arg(long)]
    pub(crate) update_all: bool,
    /// Keep what this build does not name
    #[arg(long)]
    pub(crate) keep: bool,
    /// Write nothing and ask nobody: say what is not up to date, and exit with 1 if anything is not;
    /// --locked says the same
    #[arg(long, conflicts_with_all = ["update", "update_all"])]
    pub(crate) check: bool,
    /// A proof for private sources, as of a build: id=ID,src=FILE or id=ID,env=VARIABLE
    #[arg(long, value_name = "SPEC")]
    pub(crate) secret: Vec<String>,
    /// An ssh agent for sources over ssh, as of a build
    #[arg(long, value_name = "ID[=SOCKET|KEY[,KEY]]")]
    pub(crate) ssh: Vec<String>,
}

/// What an archive of images is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SavedAs {
    /// What `docker load` reads, and readers of OCI layouts too
    DockerArchive,
    /// An OCI layout in a tar
    OciArchive,
    /// An OCI layout in a directory
    OciDir,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Images that were pulled or loaded leave in the bytes that they came in. Of an image for several
platforms a docker archive has one: this host's, or that of --platform.

Examples:
  kiln save app | ssh host docker load
  kiln save -o images.tar app:1 app:2 base
  kiln save --format oci-dir -o layout app")]
pub(crate) struct SaveArgs {
    /// The archive or directory; - is standard output [default: -]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// What to write: docker-archive, oci-archive or oci-dir
    #[arg(
        long,
        value_enum,
        default_value = "docker-archive",
        hide_possible_values = true,
        value_name = "FORMAT"
    )]
    pub(crate) format: SavedAs,
    /// Of images for several platforms, the one for this one
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Reads archives of docker, podman, buildah, skopeo and kiln (docker archives and OCI layouts), plain
or compressed, and directories with an OCI layout. Names are kept, and taken from images that
have them.")]
pub(crate) struct LoadArgs {
    /// The archive or directory; - is standard input [default: -]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Of images for several platforms, only the one for this one
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Print what was loaded, and nothing about what was not
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Make a list of images, one for each platform
    #[command(after_help = "\
Members are images of the store or of registries; all platforms of a member that is for several
are taken, with what is attested of them. Of what is only in a registry nothing but manifest and
config is brought here; its layers go from registry to registry when the list is pushed.

Example:
  kiln manifest create registry.example/app:1 app-amd64 registry.example/app@sha256:...
  kiln manifest push registry.example/app:1")]
    Create {
        /// The name of the list
        name: String,
        /// Names or ids of its members
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        /// Add to the list that has the name already
        #[arg(short, long)]
        amend: bool,
        /// Annotate the list
        #[arg(long, value_name = "KEY=VALUE")]
        annotation: Vec<String>,
    },
    /// Show the manifest or index of an image, here or in a registry, as JSON
    Inspect {
        /// Its name
        name: String,
        /// Print the very bytes
        #[arg(long)]
        raw: bool,
        /// Ask the registry, even if the image is here
        #[arg(long)]
        remote: bool,
    },
    /// Send a list with all its members to a registry
    Push {
        /// Its name
        name: String,
        /// Where to [default: its name]
        destination: Option<String>,
        /// How to pack layers that were made here: gzip, zstd or uncompressed; others stay as they are
        #[arg(long, value_enum, default_value = "gzip", hide_possible_values = true)]
        compression: Packed,
        /// How to show progress
        #[arg(long, value_enum, default_value = "auto", env = "BUILDKIT_PROGRESS")]
        progress: Progress,
        /// Print nothing but the name
        #[arg(short, long)]
        quiet: bool,
    },
    /// Change what a list says of a member
    Annotate {
        /// The name of the list
        name: String,
        /// The member: its digest, its platform, or the image
        member: String,
        /// Its operating system
        #[arg(long, value_name = "OS")]
        os: Option<String>,
        /// Its architecture
        #[arg(long, value_name = "ARCH")]
        arch: Option<String>,
        /// The variant of its architecture
        #[arg(long, value_name = "VARIANT")]
        variant: Option<String>,
        /// Annotate it
        #[arg(long, value_name = "KEY=VALUE")]
        annotation: Vec<String>,
    },
    /// Remove lists; the images stay
    Rm {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
The registry is asked first whether it takes the account. What it takes is kept as docker keeps
it: with the credential helper that docker's config.json names (credHelpers, credsStore), else in
that file itself, as text. A registry that is logged in to with docker needs no login here.

Examples:
  kiln login                                             Docker Hub; asks for name and password
  kiln login -u ann --password-stdin ghcr.io < token     for scripts")]
pub(crate) struct LoginArgs {
    /// The account
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// The password; better is --password-stdin, since other users see the command line
    #[arg(
        short,
        long,
        value_name = "PASSWORD",
        conflicts_with = "password_stdin"
    )]
    pub(crate) password: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,
    /// The registry, or a part of one such as quay.io/team [default: Docker Hub]
    pub(crate) registry: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Only the steps of this stage, whose text holds this, or the one with this number; with all
    /// that was compared, and every changed file
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Another build than the last: the beginning of its id in `kiln builds ls`, or latest~N
    #[arg(long, value_name = "ID")]
    pub(crate) build: Option<String>,
    /// How to write it: text or json
    #[arg(long, value_enum, default_value = "text", hide_possible_values = true)]
    pub(crate) format: RecordFormat,
}

#[derive(Debug, Args)]
pub(crate) struct SbomArgs {
    /// Name or id
    pub(crate) image: String,
    /// How to write it: table, or spdx (SPDX 2.3 as JSON)
    #[arg(long, value_enum, hide_possible_values = true)]
    pub(crate) format: Option<SbomFormat>,
    /// Of an image for several platforms, the one for this one [default: this host's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Read the layers, whatever is attached
    #[arg(long, conflicts_with = "scan")]
    pub(crate) anew: bool,
    /// What is attached about the build context, or about this stage of the build
    #[arg(long, value_name = "context|STAGE")]
    pub(crate) scan: Option<String>,
    /// Write it to this file; then it is spdx by default
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SbomFormat {
    /// For people
    Table,
    /// SPDX 2.3 as JSON
    #[value(alias = "spdx-json", alias = "json")]
    Spdx,
}
