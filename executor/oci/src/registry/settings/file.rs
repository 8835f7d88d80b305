//! The configuration file: TOML, each key known, each mistake with its place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Url;

use super::super::config::{ClientCertificate, Mirror};
use super::{ConfigError, Given, HostSettings, Origin, host_name};

/// No configuration file is larger.
const LIMIT_BYTES: u64 = 1 << 20;

/// All that stands at the top.
const TOP: [&str; 1] = ["registry"];

/// All that can be said of a registry.
pub(super) const KEYS: [&str; 6] = [
    "mirrors",
    "plain-http",
    "ca",
    "cert",
    "key",
    "insecure-skip-verify",
];

/// Reads a file; `home` is what `~` stands for.
pub(super) fn read(
    path: &Path,
    home: Option<&Path>,
) -> Result<BTreeMap<String, HostSettings>, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > LIMIT_BYTES {
        let kind = std::io::ErrorKind::FileTooLarge;
        return Err(failed(std::io::Error::new(kind, "more than 1 MiB")));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    parse(&text, path, home)
}

/// Parses what a file says.
pub(super) fn parse(
    text: &str,
    path: &Path,
    home: Option<&Path>,
) -> Result<BTreeMap<String, HostSettings>, ConfigError> {
    let reader = Reader { text, path, home };
    let document = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        reader.wrong(span, error.message().to_owned())
    })?;
    let mut hosts = BTreeMap::new();
    for (key, value) in document.get_ref() {
        reader.known(key, &TOP)?;
        for (name, settings) in reader.table(key, value)? {
            let host = host_name(name.get_ref()).map_err(|what| reader.wrong(name.span(), what))?;
            let read = reader.host(reader.table(name, settings)?)?;
            if hosts.insert(host, read).is_some() {
                let what = format!("`{}` is the same registry as one above", name.get_ref());
                return Err(reader.wrong(name.span(), what));
            }
        }
    }
    Ok(hosts)
}

struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
    home: Option<&'a Path>,
}

type Key<'i> = Spanned<std::borrow::Cow<'i, str>>;

impl Reader<'_> {
    fn host(&self, table: &DeTable<'_>) -> Result<HostSettings, ConfigError> {
        let mut host = HostSettings::default();
        let (mut cert, mut key) = (None, None);
        for (name, value) in table {
            self.known(name, &KEYS)?;
            match name.get_ref().as_ref() {
                "mirrors" => host.mirrors = Some(self.given(name, self.mirrors(name, value)?)),
                "plain-http" => host.plain_http = Some(self.given(name, self.flag(name, value)?)),
                "ca" => host.ca = Some(self.given(name, self.paths(name, value)?)),
                "cert" => cert = Some((name, self.file(name, value, "a string")?)),
                "key" => key = Some((name, self.file(name, value, "a string")?)),
                _ => host.skip_verify = Some(self.given(name, self.flag(name, value)?)),
            }
        }
        host.client = match (cert, key) {
            (Some((name, cert)), Some((_, key))) => {
                Some(self.given(name, ClientCertificate { cert, key }))
            }
            (Some((name, _)), None) => {
                return Err(self.wrong(name.span(), "`cert` needs a `key` beside it".to_owned()));
            }
            (None, Some((name, _))) => {
                return Err(self.wrong(name.span(), "`key` needs a `cert` beside it".to_owned()));
            }
            (None, None) => None,
        };
        // What would be ignored is refused.
        let plain = table.iter().find(|(name, value)| {
            name.get_ref() == "plain-http" && value.get_ref().as_bool() == Some(true)
        });
        let useless = table.iter().find(|(name, _)| {
            matches!(
                name.get_ref().as_ref(),
                "ca" | "cert" | "insecure-skip-verify"
            )
        });
        if let (Some(_), Some((name, _))) = (plain, useless) {
            let what = format!(
                "`{}` means nothing beside `plain-http = true`",
                name.get_ref()
            );
            return Err(self.wrong(name.span(), what));
        }
        Ok(host)
    }

    fn given<T>(&self, name: &Key<'_>, value: T) -> Given<T> {
        let origin = Origin::File {
            path: self.path.to_owned(),
            line: self.place(name.span().start).0,
        };
        Given { value, origin }
    }

    fn known(&self, key: &Key<'_>, known: &[&str]) -> Result<(), ConfigError> {
        let name = key.get_ref().as_ref();
        if known.contains(&name) {
            return Ok(());
        }
        let nearest = known
            .iter()
            .map(|known| (distance(name, known), known))
            .filter(|(distance, known)| *distance <= known.len().max(name.len()) / 2)
            .min();
        let way_out = match nearest {
            Some((_, known)) => format!("did you mean `{known}`?"),
            None => format!("what is known here is `{}`", known.join("`, `")),
        };
        let shown: String = name.chars().take(60).collect();
        Err(self.wrong(key.span(), format!("there is no key `{shown}`; {way_out}")))
    }

    fn table<'v, 'i>(
        &self,
        name: &Key<'_>,
        value: &'v Spanned<DeValue<'i>>,
    ) -> Result<&'v DeTable<'i>, ConfigError> {
        let found = value.get_ref().as_table();
        found.ok_or_else(|| self.kind(name, value, "a table"))
    }

    fn flag(&self, name: &Key<'_>, value: &Spanned<DeValue<'_>>) -> Result<bool, ConfigError> {
        let found = value.get_ref().as_bool();
        found.ok_or_else(|| self.kind(name, value, "true or false"))
    }

    fn file(
        &self,
        name: &Key<'_>,
        value: &Spanned<DeValue<'_>>,
        wanted: &str,
    ) -> Result<PathBuf, ConfigError> {
        let text = value.get_ref().as_str();
        let text = text.ok_or_else(|| self.kind(name, value, wanted))?;
        if text.is_empty() || text.contains('\0') {
            return Err(self.wrong(value.span(), format!("`{}` names no file", name.get_ref())));
        }
        Ok(match (text.strip_prefix("~/"), self.home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => self.path.parent().unwrap_or(Path::new("")).join(text),
        })
    }

    fn paths(
        &self,
        name: &Key<'_>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Vec<PathBuf>, ConfigError> {
        self.list(name, value)?
            .map(|entry| self.file(name, entry, "a list of strings"))
            .collect()
    }

    fn mirrors(
        &self,
        name: &Key<'_>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Vec<Url>, ConfigError> {
        let url = |entry: &Spanned<DeValue<'_>>| {
            let text = entry.get_ref().as_str();
            let text = text.ok_or_else(|| self.kind(name, entry, "a list of strings"))?;
            Mirror::url(text).map_err(|why| {
                let what = format!("`{text}` is no mirror: {why}");
                self.wrong(entry.span(), what)
            })
        };
        self.list(name, value)?.map(url).collect()
    }

    fn list<'v, 'i: 'v>(
        &self,
        name: &Key<'_>,
        value: &'v Spanned<DeValue<'i>>,
    ) -> Result<impl Iterator<Item = &'v Spanned<DeValue<'i>>> + use<'v, 'i>, ConfigError> {
        let found = value.get_ref().as_array().map(|list| list.iter());
        found.ok_or_else(|| self.kind(name, value, "a list of strings"))
    }

    fn kind(&self, name: &Key<'_>, value: &Spanned<DeValue<'_>>, wanted: &str) -> ConfigError {
        let found = match value.get_ref().type_str() {
            "boolean" => "true or false",
            "array" => "a list",
            "table" => "a table",
            "string" => "a string",
            _ => "a number or a date",
        };
        let what = format!("`{}` must be {wanted}, and is {found}", name.get_ref());
        self.wrong(value.span(), what)
    }

    fn wrong(&self, span: Range<usize>, what: String) -> ConfigError {
        let (line, column) = self.place(span.start);
        ConfigError::File {
            path: self.path.to_owned(),
            line,
            column,
            what,
        }
    }

    /// The line and the column, counted from 1, of a byte.
    fn place(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (line, before[start..].chars().count() + 1)
    }
}

/// How many characters are to be added, dropped or changed to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    // Nobody means a key by a word of another length by far.
    if from.len() > 64 {
        return usize::MAX;
    }
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, have) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, want) in to.iter().enumerate() {
            let changed = diagonal + usize::from(have != *want);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}
