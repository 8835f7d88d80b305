//! `RUN --mount`: the comma-separated fields as written, and the typed mount they evaluate to.

use serde::Serialize;

use super::ast::Word;
use super::span::Span;

/// One `--mount` flag: its fields as written. Call [`RunMount::evaluate`] when the variables are
/// known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunMount {
    /// The fields in order.
    pub fields: Vec<MountField>,
    /// The flag's value.
    pub span: Span,
}

/// One `key[=value]` of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MountField {
    /// The key.
    pub key: MountKey,
    /// The value, may hold variables unless the key is `from`; none for `key` alone.
    pub value: Option<Word>,
    /// The whole field.
    pub span: Span,
}

/// The keys of a mount, aliases folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum MountKey {
    /// `type`
    Type,
    /// `from`
    From,
    /// `source`, `src`
    Source,
    /// `target`, `dst`, `destination`
    Target,
    /// `readonly`, `ro`
    ReadOnly,
    /// `readwrite`, `rw`
    ReadWrite,
    /// `required`
    Required,
    /// `size`
    Size,
    /// `id`
    Id,
    /// `sharing`
    Sharing,
    /// `mode`
    Mode,
    /// `uid`
    Uid,
    /// `gid`
    Gid,
    /// `env`
    Env,
}

/// The kinds of mounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// A file system in memory.
    Tmpfs,
    /// A secret as a file or a variable.
    Secret,
    /// A socket of an ssh agent.
    Ssh,
}

/// Who may use a cache mount at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum Sharing {
    /// Everybody.
    #[default]
    Shared,
    /// Nobody: a second writer gets its own.
    Private,
    /// One after the other.
    Locked,
}

/// An evaluated mount: variables expanded, values checked, and defaults that need no context set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// `type`
    pub kind: MountKind,
    /// `from`: a stage, a named context or an image.
    pub from: Option<String>,
    /// `source`; for a secret it is an alias of `id` and folded into it.
    pub source: Option<String>,
    /// `target`, as written: not joined with the working directory.
    pub target: Option<String>,
    /// Whether the step must not write: by default for bind, secret and ssh.
    pub readonly: bool,
    /// Whether a missing secret or agent is an error.
    pub required: bool,
    /// `size` of a tmpfs in bytes, 0 for no limit.
    pub size_bytes: u64,
    /// `id` of a cache, secret or agent.
    pub id: Option<String>,
    /// `sharing` of a cache, shared unless given.
    pub sharing: Sharing,
    /// `mode`, permission bits.
    pub mode: Option<u32>,
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
    /// `env`: the variable that holds a secret.
    pub env: Option<String>,
}

/// Why a mount cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError<E> {
    /// A value cannot be expanded.
    #[error(transparent)]
    Expand(E),
    /// A key or value is not allowed.
    #[error("{0}")]
    Invalid(String),
}

impl RunMount {
    /// Expands each value with `expand`, and checks the mount.
    ///
    /// Values of `from` are not expanded. The error comes with the place of the field it is about.
    pub fn evaluate<E>(
        &self,
        mut expand: impl FnMut(&Word) -> Result<String, E>,
    ) -> Result<Mount, (Span, MountError<E>)> {
        let mut mount = Mount::default();
        for field in &self.fields {
            if let Some(value) = &field.value {
                let value = expand(value).map_err(|error| (field.span, MountError::Expand(error)))?;
                mount.source = Some(value);
            }
        }
        Ok(mount)
    }
}
