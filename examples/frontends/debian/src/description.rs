//! `debian.toml`: what an image is to be.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use crate::relation::{self, Relation};
use crate::version::Version;

/// A description as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Document {
    suite: Option<Spanned<String>>,
    snapshot: Option<Spanned<String>>,
    #[serde(default)]
    sources: Vec<SourceTable>,
    #[serde(default)]
    packages: Vec<Spanned<String>>,
    #[serde(default)]
    exclude: Vec<Spanned<String>>,
    #[serde(default)]
    base: Base,
    #[serde(default)]
    recommends: bool,
    #[serde(default)]
    minimize: bool,
    #[serde(default)]
    groups: BTreeMap<Spanned<String>, GroupTable>,
    #[serde(default)]
    users: BTreeMap<Spanned<String>, UserTable>,
    #[serde(default)]
    directories: BTreeMap<Spanned<String>, DirectoryTable>,
    #[serde(default)]
    files: BTreeMap<Spanned<String>, FileTable>,
    #[serde(default)]
    symlinks: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    image: ImageTable,
}

/// What is there before anything is wished for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// Packages marked as essential, and what they need.
    #[default]
    Essential,
    /// Those of priority `required` too.
    Required,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SourceTable {
    url: Spanned<String>,
    suites: Option<Vec<Spanned<String>>>,
    components: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    keys: Vec<Spanned<String>>,
    #[serde(default = "yes")]
    check_valid_until: bool,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupTable {
    gid: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserTable {
    uid: u32,
    gid: Option<u32>,
    #[serde(default)]
    groups: Vec<Spanned<String>>,
    home: Option<Spanned<String>>,
    shell: Option<Spanned<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DirectoryTable {
    mode: Option<Spanned<String>>,
    owner: Option<Spanned<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTable {
    content: Option<String>,
    from: Option<Spanned<String>>,
    mode: Option<Spanned<String>>,
    owner: Option<Spanned<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct ImageTable {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: BTreeMap<String, String>,
    workdir: Option<Spanned<String>>,
    user: Option<String>,
    expose: Vec<Spanned<String>>,
    volumes: Vec<Spanned<String>>,
    labels: BTreeMap<String, String>,
    stop_signal: Option<String>,
}

/// What an image is to be.
#[derive(Clone, Debug)]
pub struct Description {
    /// Where packages come from, in the order of preference among equal versions.
    pub sources: Vec<Source>,
    /// The packages, as `name` or `name=version`.
    pub packages: Vec<Wish>,
    /// Packages that are not to come in.
    pub excluded: BTreeSet<String>,
    /// What is there anyway.
    pub base: Base,
    /// What packages recommend comes too.
    pub recommends: bool,
    /// Documentation and translations stay out.
    pub minimize: bool,
    /// Groups by name, with their numbers.
    pub groups: BTreeMap<String, u32>,
    /// Users by name.
    pub users: BTreeMap<String, User>,
    /// Directories by path.
    pub directories: BTreeMap<String, Directory>,
    /// Files by path.
    pub files: BTreeMap<String, File>,
    /// What links say, by their path.
    pub symlinks: BTreeMap<String, String>,
    /// How it is run.
    pub image: Image,
}

/// A suite of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The root of the archive, without a `/` at the end.
    pub url: String,
    /// The suite.
    pub suite: String,
    /// Its parts.
    pub components: Vec<String>,
    /// Files of keys in the context; none are those of Debian.
    pub keys: Vec<Placed>,
    /// It may expire.
    pub expires: bool,
    /// Where it is named; nothing for the ones of Debian.
    pub span: Range<usize>,
}

/// A text and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The text.
    pub text: String,
    /// Where.
    pub span: Range<usize>,
}

/// A package that is wished for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Its name.
    pub name: String,
    /// Exactly this version.
    pub version: Option<String>,
    /// Where.
    pub span: Range<usize>,
}

/// A user to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The group is made too.
    pub own_group: bool,
    /// Groups that it is in beside its own.
    pub groups: Vec<String>,
    /// Its home, which is made.
    pub home: Option<String>,
    /// What it logs in to.
    pub shell: String,
}

/// Permission bits and owner of something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// Permission bits.
    pub mode: Option<u32>,
    /// `user` or `user:group`.
    pub owner: Option<(String, Option<String>)>,
}

/// A file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its bytes.
    pub content: Content,
    /// Permission bits and owner.
    pub attributes: Directory,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// This.
    Inline(String),
    /// What is at a place in the context, which may be a directory.
    From(Placed),
}

/// How an image is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The program.
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments.
    pub cmd: Option<Vec<String>>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Where it starts.
    pub workdir: String,
    /// As whom.
    pub user: String,
    /// Ports with their protocol.
    pub expose: BTreeSet<String>,
    /// Directories of its own.
    pub volumes: BTreeSet<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What ends it.
    pub stop_signal: String,
}

/// Something wrong in a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// One sentence.
    pub message: String,
    /// Where; empty is nowhere.
    pub span: Range<usize>,
    /// What to do about it.
    pub help: Option<String>,
}

/// Where Debian is, and where it was.
const MAIN_MIRROR: &str = "http://deb.debian.org";
const SNAPSHOTS: &str = "http://snapshot.debian.org/archive";
/// Suites without updates of their own.
const ROLLING: [&str; 4] = ["sid", "unstable", "testing", "experimental"];

impl Description {
    /// Reads a description, or says all that is wrong with it.
    pub fn parse(text: &str) -> Result<Description, Vec<Problem>> {
        let document: Document = toml::from_str(text).map_err(|error| {
            vec![Problem {
                message: error.message().trim().replace('\n', "; "),
                span: error.span().unwrap_or_default(),
                help: None,
            }]
        })?;
        let mut check = Check::default();
        let description = check.description(document);
        match check.problems.is_empty() {
            true => Ok(description),
            false => Err(check.problems),
        }
    }
}

#[derive(Default)]
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn say(&mut self, span: Range<usize>, message: String, help: &str) {
        self.problems.push(Problem {
            message,
            span,
            help: (!help.is_empty()).then(|| help.to_owned()),
        });
    }

    fn description(&mut self, document: Document) -> Description {
        let sources = self.sources(&document);
        let packages = document
            .packages
            .into_iter()
            .filter_map(|wish| self.wish(wish))
            .collect();
        let mut excluded = BTreeSet::new();
        for name in document.exclude {
            if relation::is_name(name.get_ref()) {
                excluded.insert(name.into_inner());
            } else {
                let message = format!("`{}` is no name of a package", name.get_ref());
                self.say(name.span(), message, "");
            }
        }
        let mut groups = BTreeMap::new();
        for (name, table) in document.groups {
            self.account(&name, "group");
            groups.insert(name.into_inner(), table.gid);
        }
        let mut users = BTreeMap::new();
        for (name, table) in document.users {
            self.account(&name, "user");
            let user = self.user(name.get_ref(), table, &groups);
            users.insert(name.into_inner(), user);
        }
        let mut directories = BTreeMap::new();
        for (path, table) in document.directories {
            self.path(&path);
            let attributes = self.attributes(table.mode, table.owner);
            directories.insert(path.into_inner(), attributes);
        }
        let mut files = BTreeMap::new();
        for (path, table) in document.files {
            self.path(&path);
            let attributes = self.attributes(table.mode, table.owner);
            let content = self.content(&path, table.content, table.from);
            let file = File {
                content,
                attributes,
            };
            files.insert(path.into_inner(), file);
        }
        let mut symlinks = BTreeMap::new();
        for (path, target) in document.symlinks {
            self.path(&path);
            if target.get_ref().is_empty() || target.get_ref().contains('\0') {
                self.say(target.span(), "a link cannot say this".to_owned(), "");
            }
            if files.contains_key(path.get_ref()) || directories.contains_key(path.get_ref()) {
                let message = format!("`{}` is a link and something else", path.get_ref());
                self.say(path.span(), message, "");
            }
            symlinks.insert(path.into_inner(), target.into_inner());
        }
        Description {
            sources,
            packages,
            excluded,
            base: document.base,
            recommends: document.recommends,
            minimize: document.minimize,
            groups,
            users,
            directories,
            files,
            symlinks,
            image: self.image(document.image),
        }
    }

    fn sources(&mut self, document: &Document) -> Vec<Source> {
        let suite = document.suite.as_ref().map(|suite| suite.get_ref().clone());
        let snapshot = document.snapshot.as_ref();
        if let Some(suite) = &document.suite {
            self.suite(suite);
        }
        if let Some(date) = snapshot {
            let is_stamp = date.get_ref().len() == 16
                && date.get_ref().bytes().enumerate().all(|(at, c)| match at {
                    8 => c == b'T',
                    15 => c == b'Z',
                    _ => c.is_ascii_digit(),
                });
            if !is_stamp {
                let message = format!("`{}` is no time of a snapshot", date.get_ref());
                self.say(date.span(), message, "write it as `20260711T000000Z`");
            }
            if !document.sources.is_empty() {
                let message =
                    "a snapshot is of Debian's own archive, and `sources` are given".to_owned();
                self.say(
                    date.span(),
                    message,
                    "give the URLs of snapshots as `sources`",
                );
            }
        }
        if document.sources.is_empty() {
            let Some(suite) = suite else {
                let message = "there is neither a `suite` nor one of `sources`".to_owned();
                self.say(0..0, message, "begin with `suite = \"bookworm\"`");
                return Vec::new();
            };
            return of_debian(&suite, snapshot.map(|date| date.get_ref().as_str()));
        }
        let mut sources = Vec::new();
        for table in &document.sources {
            let url = table.url.get_ref().trim_end_matches('/').to_owned();
            let is_url = url.strip_prefix("http://").or(url.strip_prefix("https://"));
            if is_url.is_none_or(|rest| rest.is_empty() || rest.contains(['?', '#', ' '])) {
                let message = format!("`{url}` is no URL of an archive");
                self.say(
                    table.url.span(),
                    message,
                    "it begins with `http://` or `https://`",
                );
            }
            let suites = match (&table.suites, &suite) {
                (Some(suites), _) => {
                    suites.iter().for_each(|suite| self.suite(suite));
                    suites.iter().map(|suite| suite.get_ref().clone()).collect()
                }
                (None, Some(suite)) => vec![suite.clone()],
                (None, None) => {
                    let message = "the source has no `suites`, and there is no `suite`".to_owned();
                    self.say(table.url.span(), message, "");
                    Vec::new()
                }
            };
            let components = match &table.components {
                None => vec!["main".to_owned()],
                Some(components) => {
                    components
                        .iter()
                        .for_each(|component| self.suite(component));
                    components
                        .iter()
                        .map(|component| component.get_ref().clone())
                        .collect()
                }
            };
            let keys = table.keys.iter().map(placed);
            let keys: Vec<Placed> = keys.collect();
            for key in &keys {
                self.from(key);
            }
            sources.extend(suites.into_iter().map(|suite| Source {
                url: url.clone(),
                suite,
                components: components.clone(),
                keys: keys.clone(),
                expires: table.check_valid_until,
                span: table.url.span(),
            }));
        }
        sources
    }

    /// Checks the name of a suite or a component, which becomes a part of a URL.
    fn suite(&mut self, name: &Spanned<String>) {
        let is_part = |part: &str| {
            let plain = part
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || b"-_.+~".contains(&c));
            plain && !part.is_empty() && !part.starts_with('.')
        };
        if !name.get_ref().split('/').all(is_part) {
            let message = format!("`{}` is no name of a suite or component", name.get_ref());
            self.say(name.span(), message, "");
        }
    }

    fn wish(&mut self, wish: Spanned<String>) -> Option<Wish> {
        let span = wish.span();
        let text = wish.into_inner();
        let (name, version) = match text.split_once('=') {
            Some((name, version)) => (name.trim(), Some(version.trim())),
            None => (text.trim(), None),
        };
        if !Relation::parse(name).is_ok_and(|relation| relation.versions.is_none()) {
            let message = format!("`{text}` is no package");
            self.say(span, message, "write `name` or `name=version`");
            return None;
        }
        if let Some(version) = version
            && let Err(error) = Version::parse(version)
        {
            self.say(span, format!("`{version}` is no version: {error}"), "");
            return None;
        }
        Some(Wish {
            name: name.to_owned(),
            version: version.map(str::to_owned),
            span,
        })
    }

    fn account(&mut self, name: &Spanned<String>, what: &str) {
        let text = name.get_ref();
        let starts = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        if !starts || !text.chars().all(plain) || text.len() > 32 {
            let help = "names have lower-case letters, digits, `_` and `-`";
            self.say(
                name.span(),
                format!("`{text}` is no name of a {what}"),
                help,
            );
        }
    }

    fn user(&mut self, name: &str, table: UserTable, groups: &BTreeMap<String, u32>) -> User {
        let plain = |text: &str| text.starts_with('/') && !text.contains([':', '\n', '\0']);
        for path in table.home.iter().chain(&table.shell) {
            if !plain(path.get_ref()) {
                let message = format!("`{}` is no absolute path", path.get_ref());
                self.say(path.span(), message, "");
            }
        }
        for group in &table.groups {
            self.account(group, "group");
        }
        let gid = table.gid.or(groups.get(name).copied()).unwrap_or(table.uid);
        let shell = table.shell.map(Spanned::into_inner);
        User {
            uid: table.uid,
            gid,
            own_group: table.gid.is_none() && !groups.contains_key(name),
            groups: table.groups.into_iter().map(Spanned::into_inner).collect(),
            home: table.home.map(Spanned::into_inner),
            shell: shell.unwrap_or_else(|| "/usr/sbin/nologin".to_owned()),
        }
    }

    fn path(&mut self, path: &Spanned<String>) {
        let text = path.get_ref();
        let is_clean = text.strip_prefix('/').is_some_and(|rest| {
            rest.split('/').all(|part| !matches!(part, "" | "." | "..")) && !rest.contains('\0')
        });
        if !is_clean {
            let help = "paths begin with `/` and have no `.`, `..` or empty part";
            self.say(
                path.span(),
                format!("`{text}` is no path in an image"),
                help,
            );
        }
    }

    /// Checks a path in the context.
    fn from(&mut self, from: &Placed) {
        let is_clean = from.text.split('/').all(|part| !matches!(part, "" | ".."));
        if !is_clean || from.text.contains('\0') {
            let help = "it is relative to the context and does not lead out of it";
            self.say(
                from.span.clone(),
                format!("`{}` is no path in the context", from.text),
                help,
            );
        }
    }

    fn attributes(
        &mut self,
        mode: Option<Spanned<String>>,
        owner: Option<Spanned<String>>,
    ) -> Directory {
        let mut attributes = Directory::default();
        if let Some(mode) = mode {
            match u32::from_str_radix(mode.get_ref(), 8) {
                Ok(bits) if bits <= 0o7777 => attributes.mode = Some(bits),
                _ => {
                    let message = format!("`{}` are no permission bits", mode.get_ref());
                    self.say(mode.span(), message, "write them as `\"0644\"`");
                }
            }
        }
        if let Some(owner) = owner {
            let text = owner.get_ref();
            let (user, group) = match text.split_once(':') {
                Some((user, group)) => (user, Some(group)),
                None => (text.as_str(), None),
            };
            let is_one = |name: &str| {
                let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
                !name.is_empty() && name.chars().all(plain)
            };
            if !is_one(user) || !group.is_none_or(is_one) {
                let message = format!("`{text}` is no owner");
                self.say(owner.span(), message, "write `user` or `user:group`");
            }
            attributes.owner = Some((user.to_owned(), group.map(str::to_owned)));
        }
        attributes
    }

    fn content(
        &mut self,
        path: &Spanned<String>,
        content: Option<String>,
        from: Option<Spanned<String>>,
    ) -> Content {
        match (content, from) {
            (Some(content), None) => Content::Inline(content),
            (None, Some(from)) => {
                let from = placed(&from);
                self.from(&from);
                Content::From(from)
            }
            (content, _) => {
                let message = format!("`{}` needs either `content` or `from`", path.get_ref());
                self.say(path.span(), message, "");
                Content::Inline(content.unwrap_or_default())
            }
        }
    }

    fn image(&mut self, table: ImageTable) -> Image {
        let mut expose = BTreeSet::new();
        for port in table.expose {
            let text = port.get_ref();
            let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            let is_known = matches!(protocol, "tcp" | "udp" | "sctp");
            match number.parse::<u16>() {
                Ok(number) if is_known && number > 0 => {
                    expose.insert(format!("{number}/{protocol}"));
                }
                _ => {
                    let message = format!("`{text}` is no port");
                    self.say(port.span(), message, "write `\"6379\"` or `\"53/udp\"`");
                }
            }
        }
        for path in table.volumes.iter().chain(&table.workdir) {
            if path.get_ref() != "/" {
                self.path(path);
            }
        }
        Image {
            entrypoint: table.entrypoint,
            cmd: table.cmd,
            env: table.env,
            workdir: table.workdir.map(Spanned::into_inner).unwrap_or_default(),
            user: table.user.unwrap_or_default(),
            expose,
            volumes: table.volumes.into_iter().map(Spanned::into_inner).collect(),
            labels: table.labels,
            stop_signal: table.stop_signal.unwrap_or_default(),
        }
    }
}

fn placed(text: &Spanned<String>) -> Placed {
    Placed {
        text: text.get_ref().clone(),
        span: text.span(),
    }
}

/// A suite of Debian with its updates, now or at some time.
fn of_debian(suite: &str, snapshot: Option<&str>) -> Vec<Source> {
    let place = |archive: &str| match snapshot {
        Some(date) => format!("{SNAPSHOTS}/{archive}/{date}"),
        None => format!("{MAIN_MIRROR}/{archive}"),
    };
    let source = |archive: &str, suite: String| Source {
        url: place(archive),
        suite,
        components: vec!["main".to_owned()],
        keys: Vec::new(),
        // Yesterday's releases have expired today.
        expires: snapshot.is_none(),
        span: 0..0,
    };
    let mut sources = vec![source("debian", suite.to_owned())];
    if !ROLLING.contains(&suite) {
        sources.push(source("debian", format!("{suite}-updates")));
        sources.push(source("debian-security", format!("{suite}-security")));
    }
    sources
}

#[cfg(test)]
mod tests;
