//! The plan of a small archive, as it is.
#![allow(clippy::unwrap_used)]

use kiln_debian::description::Description;
use kiln_debian::recipe::Recipe;
use kiln_debian::selection::select;
use kiln_debian::universe::Universe;
use kiln_ir::Platform;

/// A paragraph of an index.
fn package(name: &str, version: &str, more: &str) -> String {
    let digit = name.len() % 10;
    format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: pool/{name}.deb\n\
         SHA256: {}\n{more}\n",
        digit.to_string().repeat(64)
    )
}

fn archive() -> String {
    [
        package("libc6", "2.36-9", ""),
        package("dash", "0.5", "Essential: yes\nPre-Depends: libc6\n"),
        package(
            "redis-server",
            "5:7.0-1",
            "Depends: redis-tools, adduser\nPre-Depends: init-helpers\n",
        ),
        package("redis-tools", "5:7.0-1", "Depends: libc6\n"),
        package("init-helpers", "1", "Depends: later\n"),
        package("later", "1", ""),
        package("adduser", "3", "Depends: libc6\n"),
    ]
    .concat()
}

/// The text form of a plan.
fn plan(description: &str, platforms: &[&str]) -> String {
    let archive = archive();
    let mut universe = Universe::new("amd64");
    universe.add(0, &archive).unwrap();
    let head = "[[sources]]\nurl = 'http://mirror.test/debian'\nsuites = ['x']\n";
    let description = Description::parse(&format!("{description}\n{head}")).unwrap();
    let selection = select(&universe, &description).unwrap();
    let variants = platforms.iter().map(|platform| {
        let platform = Platform::parse(platform).unwrap();
        selection.clone().variant(platform, b"ELF".to_vec())
    });
    let recipe = Recipe {
        description: &description,
        ignore: vec!["*.log".to_owned()],
        epoch: None,
        variants: variants.collect(),
    };
    let text = recipe.plan().unwrap().to_string();
    // What the scripts do is seen where they run.
    let lines = text.lines().map(|line| {
        let words: Vec<&str> = line.split("\"-c\", ").collect();
        match words[..] {
            [before, after] => {
                let after = after.split_once("\", \"").map_or("", |(_, after)| after);
                format!("{before}\"-c\", SCRIPT, \"{after}\n")
            }
            _ => format!("{line}\n"),
        }
    });
    lines.collect()
}

#[test]
fn a_base_alone() {
    insta::assert_snapshot!(plan("", &["linux/amd64"]));
}

#[test]
fn packages_people_and_files() {
    let description = "
        packages = ['redis-server']
        minimize = true
        [users.app]
        uid = 1000
        groups = ['adm']
        home = '/srv/app'
        [groups.web]
        gid = 900
        [directories.'/data']
        mode = '0700'
        owner = 'app:web'
        [files.'/etc/redis/redis.conf']
        content = 'port 1'
        owner = 'redis'
        [files.'/opt']
        from = 'opt'
        [symlinks]
        '/etc/localtime' = '/usr/share/zoneinfo/UTC'
        [image]
        cmd = ['redis-server']
        env = { TZ = 'UTC' }
        expose = ['6379']
        user = 'redis'";
    insta::assert_snapshot!(plan(description, &["linux/amd64"]));
}

#[test]
fn a_result_for_each_platform() {
    let text = plan("packages = ['adduser']", &["linux/amd64", "linux/arm64"]);
    let results = text.lines().filter(|line| line.starts_with("result"));
    assert_eq!(results.count(), 2, "{text}");
}

/// Adding a package leaves the base as it was.
#[test]
fn the_base_is_shared() {
    let nodes = |text: String| {
        let lines = text
            .lines()
            .filter(|line| line.contains("install\", \"first\""));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let without = nodes(plan("", &["linux/amd64"]));
    let with = nodes(plan("packages = ['redis-server']", &["linux/amd64"]));
    assert_eq!((without.len(), &without), (1, &with));
}
