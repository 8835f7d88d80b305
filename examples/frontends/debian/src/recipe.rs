//! The plan of an image: packages are fetched, unpacked by busybox, installed by their own dpkg.
//!
//! Each package is a source of its own, with its digest, so that it is fetched once for all images.
//! The base is a step that all images of a suite share. What is installed beyond it is the next one;
//! people and files come after both, so that changing them installs nothing again.

use kiln_ir::build::{Action, BuildError, Builder, Tree, copy_with, mkdir, mkfile, rm, symlink};
use kiln_ir::{
    Config, CopyAction, HttpSource, ImageConfig, LocalSource, NetworkMode, Plan, Platform, SourceOp,
};

use crate::description::{Content, Description, Directory};

/// All that a plan is made of.
#[derive(Clone, Debug)]
pub struct Recipe<'a> {
    /// What the image is to be.
    pub description: &'a Description,
    /// Patterns of the context's ignore file.
    pub ignore: Vec<String>,
    /// For passwords, which have dates; nothing is the first day of all.
    pub epoch: Option<i64>,
    /// What is in it, for each platform that it is for.
    pub variants: Vec<Variant>,
}

/// The packages for one platform.
#[derive(Clone, Debug)]
pub struct Variant {
    /// What it runs on.
    pub platform: Platform,
    /// A static busybox for it.
    pub busybox: Vec<u8>,
    /// Packages that are there before anything is wished for.
    pub base: Vec<Download>,
    /// What is installed beyond them, batch by batch.
    pub batches: Vec<Vec<Download>>,
}

/// A package to be fetched.
#[derive(Clone, Debug)]
pub struct Download {
    /// Its name and its version, for people.
    pub title: String,
    /// It is wished for, not only needed.
    pub is_wished: bool,
    /// The name of its file.
    pub file: String,
    /// From where.
    pub url: String,
    /// What it is.
    pub sha256: String,
}

const UNPACK: &str = include_str!("scripts/unpack.sh");
const INSTALL: &str = include_str!("scripts/install.sh");
const PEOPLE: &str = include_str!("scripts/people.sh");

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What Debian's own slim images leave out.
const MINIMIZE: &str = "\
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/bug/*
path-exclude /usr/share/groff/*
path-exclude /usr/share/linda/*
";

impl Recipe<'_> {
    /// Makes the plan.
    pub fn plan(&self) -> Result<Plan, BuildError> {
        let b = Builder::new();
        for variant in &self.variants {
            let name = match self.variants.len() {
                1 => String::new(),
                _ => variant.platform.to_string(),
            };
            let tree = self.tree(&b, variant);
            b.result(name, tree, self.config(&variant.platform));
        }
        b.finish()
    }

    fn tree<'b>(&self, b: &'b Builder, variant: &Variant) -> Tree<'b> {
        let base = self.base(b, variant);
        let mut tree = base;
        if !variant.batches.is_empty() {
            let packages = self.packages(b, variant.batches.iter().flatten());
            let names = variant.batches.iter().flat_map(|batch| {
                let names = batch.iter().map(|package| package.file.clone());
                names.chain(["--".to_owned()])
            });
            let title = format!("install {}", shorten(&variant.batches));
            tree = self.install(base, packages, "more", names, &variant.platform);
            tree = tree.named(title).in_stage("packages");
        }
        tree = self.people(tree, &variant.platform);
        self.files(b, tree)
    }

    /// The tree that holds packages, each a layer of its own.
    fn packages<'b, 'p>(
        &self,
        b: &'b Builder,
        packages: impl Iterator<Item = &'p Download>,
    ) -> Tree<'b> {
        b.merge(packages.map(|package| fetch(b, package)))
            .named("packages to install")
            .in_stage("packages")
    }

    /// The root that all images of a suite share.
    fn base<'b>(&self, b: &'b Builder, variant: &Variant) -> Tree<'b> {
        let mut packages = self.packages(b, variant.base.iter());
        if self.description.minimize {
            packages = packages.file([mkfile("/.minimize", MINIMIZE)]);
            packages = packages.named("what dpkg leaves out").in_stage("packages");
        }
        let busybox = mkfile("/bin/busybox", variant.busybox.clone()).mode(0o755);
        let tools = b.scratch().file([mkdir("/bin"), busybox]).named("busybox");
        let links = links(&variant.platform)
            .iter()
            .map(|link| (*link).to_owned());
        let arguments = ["/bin/busybox", "sh", "-c", UNPACK, "unpack"].map(str::to_owned);
        let unpacked = tools
            .exec(arguments.into_iter().chain(links))
            .platform(&variant.platform)
            .network(NetworkMode::None)
            .bind(packages, "/packages")
            .bind_writable(b.scratch(), "/target")
            .outputs()
            .mount(1);
        let unpacked = unpacked.named("unpack the base").in_stage("base");
        let names = variant.base.iter().map(|package| package.file.clone());
        let names = names.chain(["--".to_owned()]);
        let installed = self.install(unpacked, packages, "first", names, &variant.platform);
        let installed = installed.named("install the base").in_stage("base");
        // dpkg has written everything a second time; this leaves it there once.
        let whole = CopyAction {
            dest: "/".to_owned(),
            dir_copy_contents: true,
            create_dest_path: true,
            ..CopyAction::default()
        };
        let root = b.scratch().file([copy_with(installed.at("/"), whole)]);
        root.named("the base as one layer").in_stage("base")
    }

    fn install<'b>(
        &self,
        root: Tree<'b>,
        packages: Tree<'b>,
        options: &str,
        names: impl Iterator<Item = String>,
        platform: &Platform,
    ) -> Tree<'b> {
        let arguments = ["/bin/sh", "-c", INSTALL, "install", options].map(str::to_owned);
        // A day before which nobody would have to change a password.
        let epoch = self.epoch.unwrap_or(86_400).to_string();
        root.exec(arguments.into_iter().chain(names))
            .platform(platform)
            .network(NetworkMode::None)
            .env("PATH", PATH)
            .env("HOME", "/root")
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("DEBCONF_NONINTERACTIVE_SEEN", "true")
            .env("SOURCE_DATE_EPOCH", &epoch)
            .bind(packages, "/packages")
            .change(|op| op.meta.remove_mount_stubs_recursive = true)
            .root()
    }

    fn people<'b>(&self, tree: Tree<'b>, platform: &Platform) -> Tree<'b> {
        let description = self.description;
        let mut words: Vec<String> = Vec::new();
        let mut add = |kind: &str, first: &str, second: String| {
            words.extend([kind.to_owned(), first.to_owned(), second]);
        };
        let own = description.users.iter().filter(|(_, user)| user.own_group);
        let own = own.map(|(name, user)| (name, &user.gid));
        for (name, gid) in description.groups.iter().chain(own) {
            add("group", &gid.to_string(), format!("{name}:x:{gid}:"));
            add("gshadow", name, format!("{name}:!::"));
        }
        for (name, user) in &description.users {
            let home = user.home.as_deref().unwrap_or("/nonexistent");
            let line = format!("{name}:x:{}:{}::{home}:{}", user.uid, user.gid, user.shell);
            add("passwd", &user.uid.to_string(), line);
            add("shadow", name, format!("{name}:!:::::::"));
            for group in &user.groups {
                add("member", group, name.clone());
            }
        }
        if words.is_empty() {
            return tree;
        }
        let arguments = ["/bin/sh", "-c", PEOPLE, "people"].map(str::to_owned);
        let tree = tree
            .exec(arguments.into_iter().chain(words))
            .platform(platform)
            .network(NetworkMode::None)
            .env("PATH", PATH)
            .root();
        let tree = tree.named("users and groups").in_stage("image");
        let homes = description.users.values().filter_map(|user| {
            let home = mkdir(user.home.clone()?).mode(0o755).parents();
            Some(home.owner(user.uid).group(user.gid))
        });
        let homes: Vec<Action<'_>> = homes.collect();
        match homes.is_empty() {
            true => tree,
            false => tree.file(homes).named("homes").in_stage("image"),
        }
    }

    fn files<'b>(&self, b: &'b Builder, tree: Tree<'b>) -> Tree<'b> {
        let description = self.description;
        let mut actions = Vec::new();
        for (path, attributes) in &description.directories {
            let made = mkdir(path.clone()).parents();
            actions.push(with(
                made.mode(attributes.mode.unwrap_or(0o755)),
                attributes,
            ));
        }
        let context = || {
            let source = LocalSource {
                name: "context".to_owned(),
                exclude: self.ignore.clone(),
                ..LocalSource::default()
            };
            b.source(SourceOp::Local(source), None)
        };
        for (path, file) in &description.files {
            actions.extend(parent(path));
            let mode = file.attributes.mode;
            let action = match &file.content {
                Content::Inline(text) => {
                    let made = mkfile(path.clone(), text.as_bytes());
                    made.mode(mode.unwrap_or(0o644))
                }
                Content::From(from) => {
                    let options = CopyAction {
                        dest: path.clone(),
                        mode,
                        dir_copy_contents: true,
                        create_dest_path: true,
                        ..CopyAction::default()
                    };
                    copy_with(context().at(format!("/{}", from.text)), options)
                }
            };
            actions.push(with(action, &file.attributes));
        }
        for (path, target) in &description.symlinks {
            actions.extend(parent(path));
            actions.push(rm(path.clone()).if_there());
            actions.push(symlink(path.clone(), target.clone()));
        }
        match actions.is_empty() {
            true => tree,
            false => tree.file(actions).named("files").in_stage("image"),
        }
    }

    fn config(&self, platform: &Platform) -> ImageConfig {
        let image = &self.description.image;
        let mut env = vec![format!("PATH={PATH}")];
        env.retain(|_| !image.env.contains_key("PATH"));
        env.extend(
            image
                .env
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            config: Config {
                user: image.user.clone(),
                exposed_ports: image.expose.iter().cloned().collect(),
                env,
                entrypoint: image.entrypoint.clone(),
                cmd: image.cmd.clone(),
                volumes: image.volumes.iter().cloned().collect(),
                working_dir: image.workdir.clone(),
                labels: image.labels.clone(),
                stop_signal: image.stop_signal.clone(),
                ..Config::default()
            },
            ..ImageConfig::default()
        }
    }
}

/// A package as a tree of one file.
pub(crate) fn fetch<'b>(b: &'b Builder, package: &Download) -> Tree<'b> {
    let source = HttpSource {
        url: package.url.clone(),
        checksum: Some(format!("sha256:{}", package.sha256)),
        filename: Some(package.file.clone()),
        ..HttpSource::default()
    };
    let tree = b.source(SourceOp::Http(source), None);
    tree.named(format!("fetch {}", package.title))
        .in_stage("packages")
}

/// The directory that a file is in, unless that is the root.
fn parent<'b>(path: &str) -> Option<Action<'b>> {
    let (parent, _) = path.rsplit_once('/')?;
    (!parent.is_empty()).then(|| mkdir(parent).parents())
}

fn with<'b>(action: Action<'b>, attributes: &Directory) -> Action<'b> {
    let user = |name: &str| match name.parse::<u32>() {
        Ok(id) => kiln_ir::build::User::from(id),
        Err(_) => kiln_ir::build::User::from(name),
    };
    match &attributes.owner {
        None => action,
        Some((owner, None)) => action.owner(user(owner)),
        Some((owner, Some(group))) => action.owner(user(owner)).group(user(group)),
    }
}

/// The directories of the root that are links into `/usr`.
fn links(platform: &Platform) -> &'static [&'static str] {
    match platform.architecture.as_str() {
        // Where the program that starts others is looked for.
        "amd64" | "ppc64le" | "loong64" => &["bin", "lib", "lib64", "sbin"],
        _ => &["bin", "lib", "sbin"],
    }
}

/// A few packages of many, for people: some that are wished for.
fn shorten(batches: &[Vec<Download>]) -> String {
    let all = || batches.iter().flatten();
    let mut titles: Vec<&str> = all()
        .filter(|package| package.is_wished)
        .map(|package| package.title.as_str())
        .collect();
    titles.sort_unstable();
    titles.truncate(3);
    let shown = titles.join(", ");
    match (titles.len(), all().count()) {
        (0, count) => format!("{count} packages"),
        (few, count) if count > few => format!("{shown} and {} more", count - few),
        _ => shown,
    }
}
