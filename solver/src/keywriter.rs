//! One walk over an op and its inputs, for the keys and for their explanation.
//!
//! [`write_op`] and its caller, which gives the inputs, decide what enters a key; who writes it down is a [`KeyWriter`]:
//! [`Hasher`](crate::hasher::Hasher) makes the key, [`Explainer`](crate::explainer::Explainer) keeps the same parts with the words people know. What
//! one sees the other sees, so that an explanation cannot drift from the key.
//!
//! | what | definition key | content key |
//! | --- | --- | --- |
//! | kind of op, its semantics revision, platform | yes | yes |
//! | exec: args, env, cwd, user, hostname, ulimits, names of extra hosts, valid exit codes, removal of mount stubs | yes | yes |
//! | exec: network and security mode *as requested*, devices | yes | yes |
//! | mounts: target, input, output, selector, read-only, kind, tmpfs size | yes | yes |
//! | secrets and ssh: ids, targets, variables, owner, mode, optional | yes | yes |
//! | file: every field of every action, with its indices | yes | yes |
//! | merge, diff, build, passthrough: every field | yes | yes |
//! | pinned source: identity, and the fields that shape what is fetched | yes | has none |
//! | input from a local source | digest of the selection | digest of the selection |
//! | any other input | definition key and output number | layer list, or digest of the selection |
//! | secret values, what cache mounts hold, their ids and sharing | no | no |
//! | proxy variables, addresses of extra hosts, parent cgroup, resource limits, jobs | no | no |
//! | clocks, host paths, mtimes of inputs, display data, include hints | no | no |
//!
//! A field at its default is not written, so that a new field leaves older keys as they were.
//! docs/formats/cache-key.md has the bytes.

use kiln_ir::{
    ActionInput, BlobSource, ExecOp, FileAction, FileActionKind, FileOp, GitSource, HttpSource,
    ImageSource, Mount, MountKind, NetworkMode, Node, OciLayoutSource, Op, Owner, Platform,
    SecretOpt, SecurityMode, SourceOp, UserRef,
};

use crate::{ContentId, DefinitionKey, Origin, PinnedSource, SelectionDigest};

/// Takes down what enters a key.
pub(crate) trait KeyWriter {
    /// The kind of op and its semantics revision; comes first.
    fn kind(&mut self, kind: &str, revision: u32);
    /// The platform.
    fn platform(&mut self, platform: &Platform);
    /// A field with its values, in order; never called for a field at its default.
    fn field(&mut self, name: &str, values: &[&[u8]]);
    /// One `NAME=value` of the environment.
    fn env(&mut self, name: &str, value: &str);
    /// The identity of a pinned source.
    fn identity(&mut self, identity: &[u8], source: &PinnedSource);
    /// One input.
    fn input(&mut self, index: u32, input: &KeyInput<'_>);
}

/// What stands for an input in a key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum KeyInput<'a> {
    /// Its definition.
    Definition {
        key: DefinitionKey,
        output: u32,
        from: &'a Origin,
    },
    /// What is read of a local source.
    Files {
        source: &'a str,
        selected: &'a SelectionDigest,
    },
    /// All its layers.
    Layers(&'a [ContentId]),
    /// What is read of its layers.
    Selected(&'a SelectionDigest),
}

/// Writes the op and the platform of a node.
pub(crate) fn write_op(node: &Node, to: &mut impl KeyWriter) {
    let (kind, revision) = kind_of(&node.op);
    to.kind(kind, revision);
    if let Some(platform) = &node.platform {
        to.platform(platform);
    }
    match &node.op {
        Op::Source(source) => write_source(source, to),
        Op::Exec(exec) => write_exec(exec, to),
        Op::File(file) => write_file(file, to),
        Op::Merge(merge) => {
            let inputs: Vec<String> = merge
                .inputs
                .iter()
                .map(|&input| or_scratch(input))
                .collect();
            list(to, "inputs", &inputs);
        }
        Op::Diff(diff) => {
            text(to, "lower", &or_scratch(diff.lower));
            text(to, "upper", &or_scratch(diff.upper));
        }
        Op::Build(build) => {
            number(to, "builder", build.builder);
            for (name, input) in &build.inputs {
                text(to, &format!("inputs.{name}"), &input.to_string());
            }
            if let Some(definition) = &build.definition {
                to.field("definition", &[definition]);
            }
            attrs(to, &build.attrs);
        }
        Op::Passthrough(pass) => {
            text(to, "id", &pass.id);
            let outputs: Vec<String> = pass.outputs.iter().map(u32::to_string).collect();
            list(to, "outputs", &outputs);
        }
    }
}

/// The name of each kind of op, and how often what kiln does for it has changed since version 0.
fn kind_of(op: &Op) -> (&'static str, u32) {
    match op {
        Op::Source(SourceOp::Image(_)) => ("image", 0),
        Op::Source(SourceOp::Local(_)) => ("local", 0),
        Op::Source(SourceOp::Git(_)) => ("git", 0),
        Op::Source(SourceOp::Http(_)) => ("http", 0),
        Op::Source(SourceOp::OciLayout(_)) => ("oci-layout", 0),
        Op::Source(SourceOp::Blob(_)) => ("blob", 0),
        Op::Exec(_) => ("exec", 3),
        Op::File(_) => ("file", 2),
        Op::Merge(_) => ("merge", 0),
        Op::Diff(_) => ("diff", 0),
        Op::Build(_) => ("build", 0),
        Op::Passthrough(_) => ("passthrough", 0),
    }
}

/// What shapes the bytes of a source once its identity is fixed; names and credentials do not.
fn write_source(source: &SourceOp, to: &mut impl KeyWriter) {
    match source {
        SourceOp::Image(ImageSource {
            layer_limit,
            attrs: extra,
            ..
        })
        | SourceOp::OciLayout(OciLayoutSource {
            layer_limit,
            attrs: extra,
            ..
        }) => {
            number(to, "layer_limit", *layer_limit);
            attrs(to, extra);
        }
        // Consumers take the digest of what they select instead.
        SourceOp::Local(_) => {}
        SourceOp::Git(GitSource {
            remote,
            reference,
            subdir,
            keep_git_dir,
            skip_submodules,
            mtime_from_commit,
            attrs: extra,
            ..
        }) => {
            text(to, "subdir", subdir);
            flag(to, "keep_git_dir", *keep_git_dir);
            // What is kept names where it came from.
            if *keep_git_dir {
                text(to, "remote", remote);
                text(to, "reference", reference);
            }
            flag(to, "skip_submodules", *skip_submodules);
            flag(to, "mtime_from_commit", *mtime_from_commit);
            attrs(to, extra);
        }
        SourceOp::Http(HttpSource {
            url,
            filename,
            perm,
            uid,
            gid,
            attrs: extra,
            ..
        }) => {
            let path = url.split(['?', '#']).next().unwrap_or_default();
            let last = path.rsplit('/').next().unwrap_or_default();
            text(to, "filename", filename.as_deref().unwrap_or(last));
            number(to, "perm", *perm);
            number(to, "uid", *uid);
            number(to, "gid", *gid);
            attrs(to, extra);
        }
        SourceOp::Blob(BlobSource {
            filename,
            perm,
            uid,
            gid,
            attrs: extra,
            ..
        }) => {
            text(to, "filename", filename.as_deref().unwrap_or_default());
            number(to, "perm", *perm);
            number(to, "uid", *uid);
            number(to, "gid", *gid);
            attrs(to, extra);
        }
    }
}

fn write_exec(exec: &ExecOp, to: &mut impl KeyWriter) {
    let meta = &exec.meta;
    list(to, "args", &meta.args);
    for entry in &meta.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        to.env(name, value);
    }
    text(to, "cwd", &meta.cwd);
    text(to, "user", &meta.user);
    text(to, "hostname", &meta.hostname);
    let hosts: Vec<&str> = meta
        .extra_hosts
        .iter()
        .map(|host| host.host.as_str())
        .collect();
    list(to, "extra_hosts", &hosts);
    let ulimits: Vec<String> = meta
        .ulimits
        .iter()
        .map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard))
        .collect();
    list(to, "ulimits", &ulimits);
    flag(
        to,
        "remove_mount_stubs_recursive",
        meta.remove_mount_stubs_recursive,
    );
    let codes: Vec<String> = meta.valid_exit_codes.iter().map(i32::to_string).collect();
    list(to, "valid_exit_codes", &codes);
    match exec.network {
        NetworkMode::Default => {}
        NetworkMode::Host => text(to, "network", "host"),
        NetworkMode::None => text(to, "network", "none"),
    }
    match exec.security {
        SecurityMode::Sandbox => {}
        SecurityMode::Insecure => text(to, "security", "insecure"),
    }
    for (i, mount) in exec.mounts.iter().enumerate() {
        write_mount(&format!("mounts[{i}]"), mount, to);
    }
    for (i, secret) in exec.secret_env.iter().enumerate() {
        let name = format!("secret_env[{i}]");
        to.field(&name, &[secret.name.as_bytes(), secret.id.as_bytes()]);
        flag(to, &format!("{name}.optional"), secret.optional);
    }
    for (i, device) in exec.devices.iter().enumerate() {
        let name = format!("devices[{i}]");
        to.field(&name, &[device.name.as_bytes()]);
        flag(to, &format!("{name}.optional"), device.optional);
    }
}

fn write_mount(name: &str, mount: &Mount, to: &mut impl KeyWriter) {
    // Written even if empty: it tells where one mount ends and the next begins.
    to.field(&format!("{name}.target"), &[mount.target.as_bytes()]);
    number(to, &format!("{name}.input"), mount.input);
    text(
        to,
        &format!("{name}.selector"),
        mount.selector.trim_matches('/'),
    );
    number(to, &format!("{name}.output"), mount.output);
    flag(to, &format!("{name}.readonly"), mount.readonly);
    match &mount.kind {
        MountKind::Bind => {}
        MountKind::Cache { .. } => text(to, &format!("{name}.kind"), "cache"),
        MountKind::Tmpfs { size_bytes } => {
            text(to, &format!("{name}.kind"), "tmpfs");
            number(
                to,
                &format!("{name}.size_bytes"),
                Some(*size_bytes).filter(|&size| size != 0),
            );
        }
        MountKind::Secret(secret) => write_secret(name, "secret", secret, to),
        MountKind::Ssh(secret) => write_secret(name, "ssh", secret, to),
    }
    text(to, &format!("{name}.result_id"), &mount.result_id);
}

fn write_secret(name: &str, kind: &str, secret: &SecretOpt, to: &mut impl KeyWriter) {
    text(to, &format!("{name}.kind"), kind);
    text(to, &format!("{name}.id"), &secret.id);
    text(
        to,
        &format!("{name}.owner"),
        &format!("{}:{} {:o}", secret.uid, secret.gid, secret.mode),
    );
    flag(to, &format!("{name}.optional"), secret.optional);
}

fn write_file(file: &FileOp, to: &mut impl KeyWriter) {
    for (i, action) in file.actions.iter().enumerate() {
        write_action(&format!("actions[{i}]"), action, to);
    }
}

fn write_action(name: &str, action: &FileAction, to: &mut impl KeyWriter) {
    let field = |suffix: &str| format!("{name}.{suffix}");
    let kind = match &action.kind {
        FileActionKind::Copy(_) => "copy",
        FileActionKind::Mkfile(_) => "mkfile",
        FileActionKind::Mkdir(_) => "mkdir",
        FileActionKind::Rm(_) => "rm",
        FileActionKind::Symlink(_) => "symlink",
    };
    text(to, &field("kind"), kind);
    text(to, &field("input"), &action_input(action.input));
    text(to, &field("secondary"), &action_input(action.secondary));
    number(to, &field("output"), action.output);
    match &action.kind {
        FileActionKind::Copy(copy) => {
            text(to, &field("src"), &copy.src);
            text(to, &field("dest"), &copy.dest);
            write_owner(&field("owner"), &copy.owner, to);
            number(to, &field("mode"), copy.mode);
            text(to, &field("mode_str"), &copy.mode_str);
            flag(to, &field("follow_symlink"), copy.follow_symlink);
            flag(to, &field("dir_copy_contents"), copy.dir_copy_contents);
            flag(to, &field("attempt_unpack"), copy.attempt_unpack);
            flag(to, &field("create_dest_path"), copy.create_dest_path);
            flag(to, &field("allow_wildcard"), copy.allow_wildcard);
            flag(
                to,
                &field("allow_empty_wildcard"),
                copy.allow_empty_wildcard,
            );
            number(to, &field("timestamp"), copy.timestamp);
            list(to, &field("include_patterns"), &copy.include_patterns);
            list(to, &field("exclude_patterns"), &copy.exclude_patterns);
            flag(
                to,
                &field("always_replace_existing_dest_paths"),
                copy.always_replace_existing_dest_paths,
            );
            list(to, &field("required_paths"), &copy.required_paths);
        }
        FileActionKind::Mkfile(mkfile) => {
            text(to, &field("path"), &mkfile.path);
            number(to, &field("mode"), Some(mkfile.mode));
            if !mkfile.data.is_empty() {
                to.field(&field("data"), &[&mkfile.data]);
            }
            write_owner(&field("owner"), &mkfile.owner, to);
            number(to, &field("timestamp"), mkfile.timestamp);
        }
        FileActionKind::Mkdir(mkdir) => {
            text(to, &field("path"), &mkdir.path);
            number(to, &field("mode"), Some(mkdir.mode));
            flag(to, &field("make_parents"), mkdir.make_parents);
            write_owner(&field("owner"), &mkdir.owner, to);
            number(to, &field("timestamp"), mkdir.timestamp);
        }
        FileActionKind::Rm(rm) => {
            text(to, &field("path"), &rm.path);
            flag(to, &field("allow_not_found"), rm.allow_not_found);
            flag(to, &field("allow_wildcard"), rm.allow_wildcard);
        }
        FileActionKind::Symlink(link) => {
            text(to, &field("target"), &link.target);
            text(to, &field("path"), &link.path);
            write_owner(&field("owner"), &link.owner, to);
            number(to, &field("timestamp"), link.timestamp);
        }
    }
}

fn write_owner(name: &str, owner: &Option<Owner>, to: &mut impl KeyWriter) {
    let Some(owner) = owner else { return };
    for (suffix, user) in [("user", &owner.user), ("group", &owner.group)] {
        let name = format!("{name}.{suffix}");
        match user {
            None => to.field(&name, &[b"0"]),
            Some(UserRef::Id(id)) => to.field(&name, &[id.to_string().as_bytes()]),
            Some(UserRef::Name { name: user, input }) => {
                to.field(&name, &[user.as_bytes(), action_input(*input).as_bytes()]);
            }
        }
    }
}

fn action_input(input: ActionInput) -> String {
    match input {
        ActionInput::Scratch => String::new(),
        ActionInput::Input(index) => format!("input {index}"),
        ActionInput::Action(index) => format!("action {index}"),
    }
}

fn or_scratch(input: Option<u32>) -> String {
    input.map_or_else(|| "scratch".to_owned(), |index| index.to_string())
}

fn text(to: &mut impl KeyWriter, name: &str, value: &str) {
    if !value.is_empty() {
        to.field(name, &[value.as_bytes()]);
    }
}

fn flag(to: &mut impl KeyWriter, name: &str, value: bool) {
    if value {
        to.field(name, &[b"yes"]);
    }
}

fn number(to: &mut impl KeyWriter, name: &str, value: Option<impl ToString>) {
    if let Some(value) = value {
        to.field(name, &[value.to_string().as_bytes()]);
    }
}

fn list(to: &mut impl KeyWriter, name: &str, values: &[impl AsRef<str>]) {
    if !values.is_empty() {
        let values: Vec<&[u8]> = values
            .iter()
            .map(|value| value.as_ref().as_bytes())
            .collect();
        to.field(name, &values);
    }
}

fn attrs(to: &mut impl KeyWriter, attrs: &std::collections::BTreeMap<String, String>) {
    for (name, value) in attrs {
        to.field(&format!("attrs.{name}"), &[value.as_bytes()]);
    }
}
