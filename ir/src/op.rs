//! The operations of a build graph: a superset of BuildKit's LLB.
//!
//! Field order and variant order are part of the canonical bytes: append, never reorder.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One operation. What it reads is named by the inputs of the node that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Op {
    /// Brings something in from outside the graph; one output, no inputs.
    Source(SourceOp),
    /// Runs a process; one output for each mount that has an output number.
    Exec(ExecOp),
    /// Changes files without running anything; one output for each action that has an output number.
    File(FileOp),
    /// Lays trees over each other, lowest first; one output.
    Merge(MergeOp),
    /// What `upper` has beyond `lower`; one output.
    Diff(DiffOp),
    /// Builds a plan that an input holds; one output.
    Build(BuildOp),
    /// Adds ordering without changing content.
    Passthrough(PassthroughOp),
}

/// Where a source comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SourceOp {
    /// An image of a registry or of a local store.
    Image(ImageSource),
    /// A directory of the client, such as the build context.
    Local(LocalSource),
    /// A git repository at a ref.
    Git(GitSource),
    /// One file over http or https.
    Http(HttpSource),
    /// An image in an OCI layout directory.
    OciLayout(OciLayoutSource),
    /// One blob of a registry or of an OCI layout, as a file.
    Blob(BlobSource),
}

/// How an image name becomes an identity.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ResolveMode {
    /// A name that the store holds is used without a request.
    #[default]
    Default,
    /// The registry is always asked.
    Pull,
    /// The registry is never asked.
    Local,
}

/// What a pulled image is for; kept for LLB, shown by `du`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum RecordType {
    /// A base image.
    #[default]
    Regular,
    /// An image that the builder itself needs.
    Internal,
    /// An image that holds a front end.
    Frontend,
}

/// An image by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageSource {
    /// Normalised reference: registry, repository, and tag or digest.
    pub reference: String,
    /// When the registry is asked.
    pub resolve_mode: ResolveMode,
    /// What the image is for.
    pub record_type: RecordType,
    /// Only the lowest so many layers.
    pub layer_limit: Option<u32>,
    /// The manifest digest that the image must have (`sha256:…`).
    pub checksum: Option<String>,
    /// Attributes that kiln does not know, refused by name when executed.
    pub attrs: BTreeMap<String, String>,
}

/// How a local source compares files.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Differ {
    /// The default of the client.
    #[default]
    Default,
    /// Every file is sent.
    None,
    /// Files with equal metadata are equal.
    Metadata,
}

/// A directory of the client, by name. Its host path is no part of the plan.
///
/// Include patterns are fetch hints and live beside the graph, in [`crate::Display`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalSource {
    /// The name the client gave it, such as `context`.
    pub name: String,
    /// Patterns of paths that are not there, last match wins, `!` brings back.
    pub exclude: Vec<String>,
    /// Paths whose links are followed.
    pub follow_paths: Vec<String>,
    /// Client session that must serve it (LLB).
    pub session: Option<String>,
    /// Salt of clients that want no sharing (LLB).
    pub unique: Option<String>,
    /// Hint for sharing transfers (LLB).
    pub shared_key_hint: Option<String>,
    /// How files are compared on transfer (LLB).
    pub differ: Differ,
    /// Only metadata is transferred (LLB).
    pub metadata_transfer: bool,
    /// Paths transferred whole nevertheless (LLB).
    pub metadata_transfer_exclude: Vec<String>,
    /// Attributes that kiln does not know, refused by name when executed.
    pub attrs: BTreeMap<String, String>,
}

/// A git repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GitSource {
    /// Normalised remote, without scheme.
    pub remote: String,
    /// Branch, tag or commit; empty is the default branch.
    pub reference: String,
    /// Directory within the repository; empty is all of it.
    pub subdir: String,
    /// What to fetch, with scheme.
    pub full_url: Option<String>,
    /// The `.git` directory is kept.
    pub keep_git_dir: bool,
    /// Submodules are left out.
    pub skip_submodules: bool,
    /// The commit that the reference must have.
    pub checksum: Option<String>,
    /// Modification times are the commit's instead of the checkout's.
    pub mtime_from_commit: bool,
    /// The commit is fetched by its hash.
    pub fetch_by_commit: bool,
    /// Secret that holds a token.
    pub auth_token_secret: Option<String>,
    /// Secret that holds an authorization header.
    pub auth_header_secret: Option<String>,
    /// Lines for `known_hosts`.
    pub known_ssh_hosts: Option<String>,
    /// The ssh agent socket to use.
    pub mount_ssh_sock: Option<String>,
    /// Attributes that kiln does not know (`git.bundle`, `git.sig.*`), refused by name when executed.
    pub attrs: BTreeMap<String, String>,
}

/// One file over http.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSource {
    /// The URL.
    pub url: String,
    /// The digest that the body must have (`sha256:…`).
    pub checksum: Option<String>,
    /// The name of the file; by default the last part of the URL's path.
    pub filename: Option<String>,
    /// Permission bits of the file.
    pub perm: Option<u32>,
    /// Owner of the file.
    pub uid: Option<u32>,
    /// Group of the file.
    pub gid: Option<u32>,
    /// Secret that holds an authorization header.
    pub auth_header_secret: Option<String>,
    /// Request headers, lower case.
    pub headers: BTreeMap<String, String>,
    /// Attributes that kiln does not know (`http.sig.*`), refused by name when executed.
    pub attrs: BTreeMap<String, String>,
}

/// An image in an OCI layout directory of the client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OciLayoutSource {
    /// The name that the client gave the layout, with a tag or digest.
    pub reference: String,
    /// Client session that must serve it (LLB).
    pub session: Option<String>,
    /// Content store of that session (LLB).
    pub store: Option<String>,
    /// Only the lowest so many layers.
    pub layer_limit: Option<u32>,
    /// Attributes that kiln does not know, refused by name when executed.
    pub attrs: BTreeMap<String, String>,
}

/// One blob as a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlobSource {
    /// Repository and digest.
    pub reference: String,
    /// The blob is in an OCI layout instead of a registry.
    pub oci_layout: bool,
    /// Client session that must serve it (LLB).
    pub session: Option<String>,
    /// Content store of that session (LLB).
    pub store: Option<String>,
    /// The name of the file.
    pub filename: Option<String>,
    /// Permission bits of the file.
    pub perm: Option<u32>,
    /// Owner of the file.
    pub uid: Option<u32>,
    /// Group of the file.
    pub gid: Option<u32>,
    /// Attributes that kiln does not know, refused by name when executed.
    pub attrs: BTreeMap<String, String>,
}

/// A process and what it sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecOp {
    /// The process.
    pub meta: Meta,
    /// What it sees; exactly one mount has the target `/`.
    pub mounts: Vec<Mount>,
    /// The network it asks for.
    pub network: NetworkMode,
    /// The privileges it asks for.
    pub security: SecurityMode,
    /// Secrets given as environment variables.
    pub secret_env: Vec<SecretEnv>,
    /// CDI devices.
    pub devices: Vec<Device>,
}

/// The process of an [`ExecOp`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Meta {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// `user[:group]`, by name or number; empty is root.
    pub user: String,
    /// Proxy variables; in no cache key.
    pub proxy: Option<ProxyEnv>,
    /// Lines for `/etc/hosts`; the addresses are in no cache key.
    pub extra_hosts: Vec<HostIp>,
    /// Host name; empty is the default.
    pub hostname: String,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// Parent cgroup.
    pub cgroup_parent: String,
    /// Mount points made for the step are removed with the parents made for them.
    pub remove_mount_stubs_recursive: bool,
    /// Exit codes that are no failure; empty means only 0.
    pub valid_exit_codes: Vec<i32>,
}

/// Proxy settings of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyEnv {
    /// `http_proxy`.
    pub http: String,
    /// `https_proxy`.
    pub https: String,
    /// `ftp_proxy`.
    pub ftp: String,
    /// `no_proxy`.
    pub no: String,
    /// `all_proxy`.
    pub all: String,
}

/// One line of `/etc/hosts`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostIp {
    /// The name.
    pub host: String,
    /// Its address.
    pub ip: String,
}

/// One resource limit, as `setrlimit` has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ulimit {
    /// Name without `RLIMIT_`, lower case, such as `nofile`.
    pub name: String,
    /// Soft limit; -1 is unlimited.
    pub soft: i64,
    /// Hard limit; -1 is unlimited.
    pub hard: i64,
}

/// One mount of an [`ExecOp`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mount {
    /// Absolute path in the container; `/` is the root.
    pub target: String,
    /// Index into the node's inputs; none is an empty directory.
    pub input: Option<u32>,
    /// Path within the input that is mounted; empty is all of it.
    pub selector: String,
    /// The number of the output that holds what the process wrote here.
    pub output: Option<u32>,
    /// The process can't write here.
    pub readonly: bool,
    /// What kind of mount it is.
    pub kind: MountKind,
    /// Whether the input's content may stand for its definition in the cache.
    pub content_cache: ContentCache,
    /// Result of a gateway container (LLB).
    pub result_id: String,
}

/// What kind of mount it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum MountKind {
    /// The input, or a directory of its own.
    #[default]
    Bind,
    /// A directory that stays between builds.
    Cache {
        /// Its identity.
        id: String,
        /// Who may use it at the same time.
        sharing: CacheSharing,
    },
    /// Memory.
    Tmpfs {
        /// Size limit in bytes; 0 is the default.
        size_bytes: u64,
    },
    /// A file with a secret.
    Secret(SecretOpt),
    /// An ssh agent socket.
    Ssh(SecretOpt),
}

/// Who may use a cache mount at the same time.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CacheSharing {
    /// Everybody.
    #[default]
    Shared,
    /// Others get a new one.
    Private,
    /// Others wait.
    Locked,
}

/// A secret or an agent socket in a mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretOpt {
    /// Its name at the client.
    pub id: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Its absence is no error.
    pub optional: bool,
}

/// Whether a mount's content may stand for its definition in the cache.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ContentCache {
    /// As the op's rules say.
    #[default]
    Default,
    /// Always.
    On,
    /// Never.
    Off,
}

/// The network a process asks for.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum NetworkMode {
    /// The builder's default.
    #[default]
    Default,
    /// The host's, by right (`network.host`).
    Host,
    /// Loopback only.
    None,
}

/// The privileges a process asks for.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SecurityMode {
    /// A container's.
    #[default]
    Sandbox,
    /// All (`security.insecure`).
    Insecure,
}

/// A secret given as an environment variable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretEnv {
    /// Its name at the client.
    pub id: String,
    /// The variable.
    pub name: String,
    /// Its absence is no error.
    pub optional: bool,
}

/// A CDI device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Device {
    /// Its qualified name.
    pub name: String,
    /// Its absence is no error.
    pub optional: bool,
}

/// A list of file actions, each on the result of an earlier one or on an input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileOp {
    /// In order.
    pub actions: Vec<FileAction>,
}

/// What an action reads: LLB's index space, spelled out.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ActionInput {
    /// Nothing: an empty tree.
    #[default]
    Scratch,
    /// An input of the node.
    Input(u32),
    /// The tree that an earlier action of this op made.
    Action(u32),
}

/// One file action.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileAction {
    /// The tree that it changes.
    #[serde(default)]
    pub input: ActionInput,
    /// The tree that it copies from.
    #[serde(default)]
    pub secondary: ActionInput,
    /// The number of the op's output that its tree is; none is intermediate.
    #[serde(default)]
    pub output: Option<u32>,
    /// What it does.
    pub kind: FileActionKind,
}

/// What a file action does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FileActionKind {
    /// Copies from the secondary input.
    Copy(CopyAction),
    /// Writes a file.
    Mkfile(MkfileAction),
    /// Makes a directory.
    Mkdir(MkdirAction),
    /// Removes.
    Rm(RmAction),
    /// Makes a symbolic link.
    Symlink(SymlinkAction),
}

/// A copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CopyAction {
    /// Path in the secondary input, perhaps with wildcards.
    pub src: String,
    /// Path in the input; a trailing `/` is significant.
    pub dest: String,
    /// New owner; none keeps the source's (0:0 for a local source).
    pub owner: Option<Owner>,
    /// New permission bits; none keeps.
    pub mode: Option<u32>,
    /// New permission bits in symbolic form, such as `u=rwX,go=rX`.
    pub mode_str: String,
    /// A link as the source is followed.
    pub follow_symlink: bool,
    /// Of a directory, what is in it is copied.
    pub dir_copy_contents: bool,
    /// An archive is unpacked.
    pub attempt_unpack: bool,
    /// Missing parents of `dest` are made.
    pub create_dest_path: bool,
    /// `src` is a pattern.
    pub allow_wildcard: bool,
    /// A pattern may match nothing.
    pub allow_empty_wildcard: bool,
    /// Modification time in nanoseconds since the epoch; none keeps.
    pub timestamp: Option<i64>,
    /// Only paths that match.
    pub include_patterns: Vec<String>,
    /// No paths that match.
    pub exclude_patterns: Vec<String>,
    /// What is at `dest` gives way, whatever its type.
    pub always_replace_existing_dest_paths: bool,
    /// Paths that must be there.
    pub required_paths: Vec<String>,
}

/// A new file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MkfileAction {
    /// Where.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Its bytes.
    #[serde(with = "crate::bytes::required")]
    pub data: Vec<u8>,
    /// Its owner; none is 0:0.
    pub owner: Option<Owner>,
    /// Modification time in nanoseconds since the epoch; none is now.
    pub timestamp: Option<i64>,
}

/// A new directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MkdirAction {
    /// Where.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Missing parents are made, and a directory that is there is no error.
    pub make_parents: bool,
    /// Its owner; none is 0:0.
    pub owner: Option<Owner>,
    /// Modification time in nanoseconds since the epoch; none is now.
    pub timestamp: Option<i64>,
}

/// A removal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RmAction {
    /// What, perhaps with wildcards.
    pub path: String,
    /// Its absence is no error.
    pub allow_not_found: bool,
    /// `path` is a pattern.
    pub allow_wildcard: bool,
}

/// A new symbolic link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SymlinkAction {
    /// What it points to, as written.
    pub target: String,
    /// Where.
    pub path: String,
    /// Its owner; none is 0:0.
    pub owner: Option<Owner>,
    /// Modification time in nanoseconds since the epoch; none is now.
    pub timestamp: Option<i64>,
}

/// An owner. A user that is not given is 0; a group that is not given is the primary one of a user
/// given by name, else 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Owner {
    /// The user.
    pub user: Option<UserRef>,
    /// The group.
    pub group: Option<UserRef>,
}

/// A user or group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum UserRef {
    /// By number.
    Id(u32),
    /// By name, looked up in `/etc/passwd` or `/etc/group` of a tree.
    Name {
        /// The name.
        name: String,
        /// The tree.
        input: ActionInput,
    },
}

/// Trees over each other, lowest first. A parent directory that an input merely passed through does
/// not override what lies below.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MergeOp {
    /// Indices into the node's inputs; none is an empty tree.
    pub inputs: Vec<Option<u32>>,
}

/// What `upper` has beyond `lower`, as a tree with deletions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiffOp {
    /// Index into the node's inputs; none is an empty tree.
    pub lower: Option<u32>,
    /// Index into the node's inputs; none is an empty tree.
    pub upper: Option<u32>,
}

/// A plan within the graph.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuildOp {
    /// Index of the input that holds the front end; none builds a definition directly.
    pub builder: Option<u32>,
    /// What the plan sees, by name: indices into the node's inputs.
    pub inputs: BTreeMap<String, u32>,
    /// An embedded definition, as its front end wrote it.
    #[serde(with = "crate::bytes::optional")]
    pub definition: Option<Vec<u8>>,
    /// Options.
    pub attrs: BTreeMap<String, String>,
}

/// Ordering without content: output `i` is input `outputs[i]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PassthroughOp {
    /// Tells equal ones apart.
    pub id: String,
    /// Indices into the node's inputs.
    pub outputs: Vec<u32>,
}
