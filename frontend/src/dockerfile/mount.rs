//! `RUN --mount`: the comma-separated fields as written, and the typed mount they evaluate to.

use std::borrow::Cow;
use std::ops::Range;

use serde::Serialize;

use super::ast::Word;
use super::csv::{self, Field};
use super::flags::parse_bool;
use super::span::Span;
use super::{size, suggest};

/// One `--mount` flag: its fields as written. Call [`RunMount::evaluate`] when the variables are
/// known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunMount {
    /// The fields in order.
    pub fields: Box<[MountField]>,
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

impl MountKey {
    /// The spellings of each key; the first is the one to suggest.
    const SPELLINGS: [(MountKey, &[&str]); 14] = [
        (MountKey::Type, &["type"]),
        (MountKey::From, &["from"]),
        (MountKey::Source, &["source", "src"]),
        (MountKey::Target, &["target", "dst", "destination"]),
        (MountKey::ReadOnly, &["readonly", "ro"]),
        (MountKey::ReadWrite, &["readwrite", "rw"]),
        (MountKey::Required, &["required"]),
        (MountKey::Size, &["size"]),
        (MountKey::Id, &["id"]),
        (MountKey::Sharing, &["sharing"]),
        (MountKey::Mode, &["mode"]),
        (MountKey::Uid, &["uid"]),
        (MountKey::Gid, &["gid"]),
        (MountKey::Env, &["env"]),
    ];

    fn parse(name: &str) -> Option<Self> {
        let is_name = |spelling: &&str| spelling.eq_ignore_ascii_case(name);
        let mut keys = Self::SPELLINGS.into_iter();
        let (key, _) = keys.find(|(_, spellings)| spellings.iter().any(is_name))?;
        Some(key)
    }

    /// Returns the key's main spelling.
    pub fn name(self) -> &'static str {
        let mut keys = Self::SPELLINGS.into_iter();
        keys.find(|(key, _)| *key == self)
            .map_or("", |(_, spellings)| spellings[0])
    }
}

impl MountKind {
    const NAMES: [(MountKind, &str); 5] = [
        (MountKind::Bind, "bind"),
        (MountKind::Cache, "cache"),
        (MountKind::Tmpfs, "tmpfs"),
        (MountKind::Secret, "secret"),
        (MountKind::Ssh, "ssh"),
    ];

    /// Returns the kind as `type=` spells it.
    pub fn name(self) -> &'static str {
        let mut names = Self::NAMES.into_iter();
        names
            .find(|(kind, _)| *kind == self)
            .map_or("", |(_, name)| name)
    }
}

impl RunMount {
    /// Reads the value of a `--mount` flag; `place` maps a part of it to the source.
    ///
    /// An error comes with its place.
    pub(super) fn parse(
        value: &Word,
        place: impl Fn(Range<usize>) -> Span,
    ) -> Result<Self, (Span, String)> {
        let fields = csv::fields(&value.text)
            .map_err(|error| (value.span, format!("failed to parse csv mounts: {error}")))?;
        let mut typed = Vec::with_capacity(fields.len());
        for field in &fields {
            typed.push(MountField::parse(field, value, &place)?);
        }
        Ok(RunMount {
            fields: typed.into(),
            span: value.span,
        })
    }

    /// Says whether the mount can be evaluated without knowing any variable.
    pub(super) fn is_constant(&self) -> bool {
        let mut values = self.fields.iter().filter_map(|field| field.value.as_ref());
        values.all(|value| !value.text.contains('$'))
    }

    /// Expands each value with `expand`, and checks the mount.
    ///
    /// `expand` is asked for `from` too, which never holds a variable. An error comes with the
    /// place of the field it is about, or of the whole mount.
    pub fn evaluate<'a, E>(
        &'a self,
        mut expand: impl FnMut(&'a Word) -> Result<Cow<'a, str>, E>,
    ) -> Result<Mount, (Span, MountError<E>)> {
        let mut draft = Draft::default();
        for field in &self.fields {
            let value = match &field.value {
                Some(value) => {
                    let value =
                        expand(value).map_err(|error| (value.span, MountError::Expand(error)))?;
                    Some(value)
                }
                None => None,
            };
            draft
                .set(field.key, value.as_deref())
                .map_err(|message| (field.span, MountError::Invalid(message)))?;
        }
        draft
            .finish()
            .map_err(|message| (self.span, MountError::Invalid(message)))
    }
}

impl MountField {
    /// Reads a field of `record`, the value of the flag.
    fn parse(
        field: &Field<'_>,
        record: &Word,
        place: impl Fn(Range<usize>) -> Span,
    ) -> Result<Self, (Span, String)> {
        let span = place(field.place.clone());
        let (name, value) = match field.text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (&*field.text, None),
        };
        let Some(key) = MountKey::parse(name) else {
            let name = name.to_ascii_lowercase();
            let message = match value {
                Some(_) => format!("unexpected key '{name}' in '{}'", field.text),
                None => format!("invalid field '{}' must be a key=value pair", field.text),
            };
            let keys = MountKey::SPELLINGS.into_iter().flat_map(|(_, names)| names);
            return Err((
                span,
                suggest::with_suggestion(message, &name, keys.copied()),
            ));
        };
        let alone = matches!(
            key,
            MountKey::ReadOnly | MountKey::ReadWrite | MountKey::Required
        );
        if value.is_none() && !alone {
            let message = format!("invalid field '{}' must be a key=value pair", field.text);
            return Err((span, message));
        }
        if key == MountKey::From && value.is_some_and(has_variable) {
            let message = "'from' doesn't support variable expansion, define alias stage instead";
            return Err((span, message.to_owned()));
        }
        // A field with quotes has its value somewhere inside; the field's place is good enough.
        let exact = field.place.len() == field.text.len();
        let value = value.map(|value| Word {
            text: field.share(value, &record.text),
            span: match exact {
                true => place(field.place.end - value.len()..field.place.end),
                false => span,
            },
        });
        Ok(MountField { key, value, span })
    }
}

/// Says whether a `$` has something after it.
fn has_variable(text: &str) -> bool {
    text.find('$').is_some_and(|at| at + 1 < text.len())
}

/// A mount whose fields are still coming.
#[derive(Default)]
struct Draft {
    mount: Mount,
    readonly: Option<bool>,
    sharing: Option<Sharing>,
}

impl Draft {
    fn set(&mut self, key: MountKey, value: Option<&str>) -> Result<(), String> {
        let mount = &mut self.mount;
        let name = key.name();
        let text = value.unwrap_or("");
        let flag = || match value {
            None => Ok(true),
            Some(text) => {
                parse_bool(text).ok_or_else(|| format!("invalid value for {name}: {text}"))
            }
        };
        let filled = || Some(text.to_owned()).filter(|text| !text.is_empty());
        let kind = mount.kind;
        let unexpected = || format!("unexpected key '{name}' for mount type '{}'", kind.name());
        match key {
            MountKey::Type => mount.kind = kind_of(text)?,
            MountKey::From => mount.from = filled(),
            MountKey::Source => mount.source = filled(),
            MountKey::Target => mount.target = filled(),
            MountKey::ReadOnly => self.readonly = Some(flag()?),
            MountKey::ReadWrite => self.readonly = Some(!flag()?),
            MountKey::Required => {
                if !matches!(kind, MountKind::Secret | MountKind::Ssh) {
                    return Err(unexpected());
                }
                mount.required = flag()?;
            }
            MountKey::Size => {
                if kind != MountKind::Tmpfs {
                    return Err(unexpected());
                }
                mount.size_bytes =
                    size::parse(text).ok_or_else(|| format!("invalid value for {name}: {text}"))?;
            }
            MountKey::Id => mount.id = filled(),
            MountKey::Sharing => self.sharing = Some(sharing_of(text)?),
            MountKey::Mode => mount.mode = Some(number(text, 8, name)?),
            MountKey::Uid => mount.uid = Some(number(text, 10, name)?),
            MountKey::Gid => mount.gid = Some(number(text, 10, name)?),
            MountKey::Env => mount.env = filled(),
        }
        Ok(())
    }

    fn finish(self) -> Result<Mount, String> {
        let mut mount = self.mount;
        let kind = mount.kind.name();
        let owned = matches!(
            mount.kind,
            MountKind::Secret | MountKind::Ssh | MountKind::Cache
        );
        let owner = [
            ("mode", mount.mode.is_some()),
            ("uid", mount.uid.is_some()),
            ("gid", mount.gid.is_some()),
        ];
        if let Some((name, _)) = owner.iter().find(|(_, given)| *given && !owned) {
            return Err(format!("{name} not allowed for \"{kind}\" type mounts"));
        }
        let writable = matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs);
        mount.readonly = self.readonly.unwrap_or(!writable);
        if mount.kind == MountKind::Secret {
            if mount.from.is_some() {
                return Err("secret mount should not have a from".to_owned());
            }
            if self.sharing.is_some() {
                return Err("secret mount should not define sharing".to_owned());
            }
            if mount.source.is_none() && mount.target.is_none() && mount.id.is_none() {
                return Err("invalid secret mount. one of source, target required".to_owned());
            }
            if mount.source.is_some() && mount.id.is_some() {
                return Err("both source and id can't be set".to_owned());
            }
            mount.id = mount.source.take().or(mount.id);
        }
        if mount.env.is_some() && mount.kind != MountKind::Secret {
            return Err(format!("env not allowed for \"{kind}\" type mounts"));
        }
        if mount.kind == MountKind::Ssh && mount.source.is_some() {
            return Err("ssh mount should not have a source".to_owned());
        }
        if self.sharing.is_some() && mount.kind != MountKind::Cache {
            return Err(format!("invalid cache sharing set for {kind} mount"));
        }
        mount.sharing = self.sharing.unwrap_or_default();
        Ok(mount)
    }
}

fn kind_of(text: &str) -> Result<MountKind, String> {
    let mut names = MountKind::NAMES.into_iter();
    match names.find(|(_, name)| text.eq_ignore_ascii_case(name)) {
        Some((kind, _)) => Ok(kind),
        None => Err(suggest::with_suggestion(
            format!("unsupported mount type {text:?}"),
            text,
            MountKind::NAMES.into_iter().map(|(_, name)| name),
        )),
    }
}

fn sharing_of(text: &str) -> Result<Sharing, String> {
    match text.to_ascii_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => Err(suggest::with_suggestion(
            format!("unsupported sharing value {text:?}"),
            text,
            ["shared", "private", "locked"],
        )),
    }
}

fn number(text: &str, radix: u32, name: &str) -> Result<u32, String> {
    // from_str_radix would take a sign.
    let digits = text.chars().all(|letter| letter.is_digit(radix));
    u32::from_str_radix(text, radix)
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| format!("invalid value {text} for {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Evaluates with `$v` as `value`, which must be `bind`, a number, or whatever the case needs.
    fn evaluate(text: &str, value: &str) -> Result<Mount, String> {
        let word = Word {
            text: text.into(),
            span: Span::default(),
        };
        let mount = RunMount::parse(&word, |part| Span::new(part.start as u32, part.end as u32));
        let mount = mount.map_err(|(_, message)| message)?;
        let expand = |word: &Word| Ok::<_, String>(word.text.replace("$v", value).into());
        mount
            .evaluate(expand)
            .map_err(|(_, error)| error.to_string())
    }

    #[track_caller]
    fn check(text: &str, value: &str, expected: Mount) {
        assert_eq!(evaluate(text, value), Ok(expected), "{text:?}");
    }

    #[track_caller]
    fn fails(text: &str, value: &str, expected: &str) {
        assert_eq!(evaluate(text, value), Err(expected.to_owned()), "{text:?}");
    }

    fn mount(kind: MountKind) -> Mount {
        Mount {
            kind,
            readonly: !matches!(kind, MountKind::Cache | MountKind::Tmpfs),
            ..Mount::default()
        }
    }

    #[test]
    fn kinds() {
        check("type=$v", "bind", mount(MountKind::Bind));
        check("type=$v", "CACHE", mount(MountKind::Cache));
        check("TYPE=tmpfs", "", mount(MountKind::Tmpfs));
        check("type=ssh", "", mount(MountKind::Ssh));
        fails(
            "type=$v",
            "bond",
            "unsupported mount type \"bond\" (did you mean bind?)",
        );
    }

    #[test]
    fn values() {
        let target = Some("/t".to_owned());
        let cache = Mount {
            target: target.clone(),
            id: Some("i".to_owned()),
            sharing: Sharing::Private,
            mode: Some(0o755),
            uid: Some(7),
            gid: Some(8),
            readonly: true,
            ..mount(MountKind::Cache)
        };
        let text = "type=cache,dst=/t,id=i,sharing=Private,mode=755,uid=$v,gid=8,ro";
        check(text, "7", cache);
        let bind = Mount {
            target,
            from: Some("f".to_owned()),
            source: Some("/s".to_owned()),
            readonly: false,
            ..mount(MountKind::Bind)
        };
        check("from=f,src=/s,destination=/t,rw=$v", "true", bind);
        let secret = Mount {
            id: Some("s".to_owned()),
            env: Some("E".to_owned()),
            required: true,
            ..mount(MountKind::Secret)
        };
        check("env=E,type=secret,source=s,required=$v", "1", secret);
        let tmpfs = Mount {
            size_bytes: 64 << 20,
            ..mount(MountKind::Tmpfs)
        };
        check("type=tmpfs,size=$v", "64m", tmpfs);
    }

    #[test]
    fn refused() {
        fails("uid=$v", "-1", "invalid value -1 for uid");
        fails("mode=$v", "8", "invalid value 8 for mode");
        fails("ro=$v", "x", "invalid value for readonly: x");
        fails(
            "required",
            "",
            "unexpected key 'required' for mount type 'bind'",
        );
        fails("size=1", "", "unexpected key 'size' for mount type 'bind'");
        fails("type=tmpfs,size=$v", "x", "invalid value for size: x");
        fails(
            "sharing=locked",
            "",
            "invalid cache sharing set for bind mount",
        );
        fails(
            "type=secret",
            "",
            "invalid secret mount. one of source, target required",
        );
    }
}
