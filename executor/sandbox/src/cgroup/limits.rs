//! What limits become in the hierarchies of a host: pure data.

use std::path::{Component, Path, PathBuf};

use super::hierarchy::{Hierarchies, Hierarchy};
use crate::error::Error;
use crate::spec::{Cgroup, Limits, Swap};

/// Everything that is made and written for one sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CgroupPlan {
    /// One in each hierarchy that is needed.
    pub(crate) places: Vec<Place>,
}

/// A cgroup below a parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// No cgroup above this one is touched.
    pub(crate) root: PathBuf,
    /// Made where it is missing.
    pub(crate) parent: PathBuf,
    pub(crate) unified: bool,
    /// Whether the parent is this process's own cgroup.
    pub(crate) is_own: bool,
    /// What it is for, as people call it.
    pub(crate) what: String,
    /// Controllers that the new cgroup must have.
    pub(crate) controllers: Vec<&'static str>,
    /// Written in this order.
    pub(crate) writes: Vec<Write>,
}

/// One value for one file of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) file: &'static str,
    pub(crate) value: String,
    /// Whether it is left out where the kernel has no such file.
    pub(crate) optional: bool,
}

/// What one limit needs.
pub(super) struct Need {
    what: &'static str,
    controller: &'static str,
    v1: Vec<Write>,
    v2: Vec<Write>,
}

const MEMORY: &str = "memory";
const TIME: &str = "processor time";
const PROCESSORS: &str = "processors";
const PROCESSES: &str = "the number of processes";
const MOUNT: &str = "mount cgroup2 on /sys/fs/cgroup, or do without limits";
const DELEGATE: &str = "as an ordinary user, start kiln by `systemd-run --user --scope -p Delegate=yes`; \
                        elsewhere name a cgroup that is yours with --cgroup-parent";
/// As docker has it: with less not even a shell starts.
const LEAST_MEMORY: u64 = 6 << 20;
const DEFAULT_PERIOD_MICROS: u64 = 100_000;

/// Makes the plan of a cgroup.
///
/// Errors if a value can mean nothing, or if what it needs is not mounted.
pub(crate) fn plan(hierarchies: &Hierarchies, wanted: &Cgroup) -> Result<CgroupPlan, Error> {
    validate(&wanted.limits)?;
    plan_for(hierarchies, wanted.parent.as_deref(), needs(&wanted.limits))
}

/// The plan of an empty cgroup with one controller, for finding out what can be had.
pub(super) fn probe(
    hierarchies: &Hierarchies,
    what: &'static str,
    controller: &'static str,
) -> Result<CgroupPlan, Error> {
    let need = Need {
        what,
        controller,
        v1: Vec::new(),
        v2: Vec::new(),
    };
    plan_for(hierarchies, None, vec![need])
}

/// What can be limited, with the controller behind it.
pub(super) const ALL: [(&str, &str); 4] = [
    (MEMORY, "memory"),
    (TIME, "cpu"),
    (PROCESSORS, "cpuset"),
    (PROCESSES, "pids"),
];

fn plan_for(
    hierarchies: &Hierarchies,
    parent: Option<&str>,
    needs: Vec<Need>,
) -> Result<CgroupPlan, Error> {
    // By the root of its hierarchy.
    let mut places: Vec<(&Path, Place)> = Vec::new();
    for need in needs {
        let Some(hierarchy) = serving(hierarchies, need.controller) else {
            return Err(lacking(hierarchies, &need));
        };
        let known = places.iter().position(|(root, _)| *root == hierarchy.root);
        let known = match known {
            Some(known) => known,
            None => {
                places.push((&hierarchy.root, place(hierarchy, parent, need.what)?));
                places.len() - 1
            }
        };
        let (_, place) = &mut places[known];
        if !place.what.contains(need.what) {
            place.what = format!("{} and {}", place.what, need.what);
        }
        if !place.controllers.contains(&need.controller) {
            place.controllers.push(need.controller);
        }
        place.writes.extend(match hierarchy.unified {
            true => need.v2,
            false => need.v1,
        });
    }
    // Limits of a parent hold in any hierarchy, so that its children are made in all of them.
    if let Some(text) = parent {
        if hierarchies.is_empty() {
            let what = format!("the parent cgroup `{text}`");
            return Err(Error::Cgroup {
                what,
                reason: "no cgroup hierarchy is mounted".to_owned(),
                remedy: Some(MOUNT),
            });
        }
        for hierarchy in hierarchies {
            if places.iter().all(|(root, _)| *root != hierarchy.root) {
                let what = format!("the parent cgroup `{text}`");
                places.push((&hierarchy.root, place(hierarchy, parent, &what)?));
            }
        }
    }
    Ok(CgroupPlan {
        places: places.into_iter().map(|(_, place)| place).collect(),
    })
}

fn serving<'h>(hierarchies: &'h Hierarchies, controller: &str) -> Option<&'h Hierarchy> {
    hierarchies
        .iter()
        .find(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller))
}

fn lacking(hierarchies: &Hierarchies, need: &Need) -> Error {
    let controller = need.controller;
    let (reason, remedy) = match hierarchies.iter().find(|hierarchy| hierarchy.unified) {
        None if hierarchies.is_empty() => ("no cgroup hierarchy is mounted".to_owned(), MOUNT),
        None => (
            format!("no cgroup hierarchy of `{controller}` is mounted"),
            MOUNT,
        ),
        Some(hierarchy) => {
            let root = hierarchy.root.display();
            let reason = format!("the cgroups at `{root}` have no controller `{controller}`");
            (reason, DELEGATE)
        }
    };
    Error::Cgroup {
        what: need.what.to_owned(),
        reason,
        remedy: Some(remedy),
    }
}

/// Where in a hierarchy the parent is: a path from its root, or one from this process's own cgroup.
fn place(hierarchy: &Hierarchy, parent: Option<&str>, what: &str) -> Result<Place, Error> {
    let refuse = |reason: String| {
        Err(Error::Cgroup {
            what: what.to_owned(),
            reason,
            remedy: Some("`--cgroup-parent /NAME` is found from the root"),
        })
    };
    let slice = parent.and_then(slice);
    let parent = slice.as_deref().or(parent).unwrap_or_default();
    let path = Path::new(parent);
    let is_plain = |part: Component<'_>| {
        matches!(
            part,
            Component::RootDir | Component::CurDir | Component::Normal(_)
        )
    };
    if parent.contains('\0') || !path.components().all(is_plain) {
        return refuse(format!(
            "`{}` is no path of a cgroup",
            parent.escape_debug()
        ));
    }
    let start = match path.is_absolute() {
        true => hierarchy.root.clone(),
        false => match &hierarchy.own {
            Some(own) => own.clone(),
            None => {
                let root = hierarchy.root.display();
                return refuse(format!("the cgroup of kiln itself is not below `{root}`"));
            }
        },
    };
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    let parent = names.fold(start.clone(), |path, name| path.join(name));
    Ok(Place {
        is_own: hierarchy.own.as_ref() == Some(&parent),
        // What lies above this process's own cgroup is somebody else's.
        root: match path.is_absolute() {
            true => hierarchy.root.clone(),
            false => start,
        },
        parent,
        unified: hierarchy.unified,
        what: what.to_owned(),
        controllers: Vec::new(),
        writes: Vec::new(),
    })
}

/// The path of a systemd slice: `a-b.slice` lies in `a.slice`.
fn slice(name: &str) -> Option<String> {
    let stem = name.strip_suffix(".slice")?;
    if name.contains('/') || stem.is_empty() || stem.split('-').any(str::is_empty) {
        return None;
    }
    let mut path = String::new();
    for (at, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
        path.push_str(&format!("/{}.slice", &stem[..at]));
    }
    Some(path)
}

fn validate(limits: &Limits) -> Result<(), Error> {
    let invalid = |what, value: String| Err(Error::Invalid { what, value });
    if let Some(bytes) = limits.memory_bytes.filter(|bytes| *bytes < LEAST_MEMORY) {
        return invalid("so little memory (6 MiB is the least):", bytes.to_string());
    }
    if let Some(Swap::Total(total)) = limits.swap {
        match limits.memory_bytes {
            None => {
                return invalid(
                    "a limit of memory and swap without one of memory:",
                    total.to_string(),
                );
            }
            Some(memory) if total < memory => {
                return invalid("less memory and swap than memory:", total.to_string());
            }
            Some(_) => {}
        }
    }
    if let Some(period) = limits
        .cpu_period_micros
        .filter(|period| !(1000..=1_000_000).contains(period))
    {
        return invalid(
            "a period that is not from 1000 to 1000000:",
            period.to_string(),
        );
    }
    if let Some(quota) = limits.cpu_quota_micros.filter(|quota| *quota < 1000) {
        return invalid("a quota below 1000:", quota.to_string());
    }
    for list in [&limits.cpuset_cpus, &limits.cpuset_mems] {
        if !list.is_empty() && !is_list(list) {
            return invalid("the list of numbers", list.clone());
        }
    }
    Ok(())
}

/// `0-3,5`.
fn is_list(text: &str) -> bool {
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<u16>().ok()).flatten()
    };
    text.split(',').all(|part| match part.split_once('-') {
        None => number(part).is_some(),
        Some((first, last)) => {
            matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last)
        }
    })
}

fn needs(limits: &Limits) -> Vec<Need> {
    let write = |file, value: String| Write {
        file,
        value,
        optional: false,
    };
    let mut needs = Vec::new();
    if let Some(bytes) = limits.memory_bytes {
        // As docker has it: as much swap as memory, unless something else is said.
        let total = match limits.swap {
            Some(Swap::Unlimited) => None,
            Some(Swap::Total(total)) => Some(total),
            None => Some(bytes.saturating_mul(2)),
        };
        // Kernels may account for no swap; who asked for a limit of it is to know.
        let swap = |file, value: String| Write {
            optional: limits.swap.is_none(),
            ..write(file, value)
        };
        let total_text = total.map_or("-1".to_owned(), |total| total.to_string());
        let swap_text = total.map_or("max".to_owned(), |total| (total - bytes).to_string());
        needs.push(Need {
            what: MEMORY,
            controller: "memory",
            v1: vec![
                write("memory.limit_in_bytes", bytes.to_string()),
                swap("memory.memsw.limit_in_bytes", total_text),
            ],
            v2: vec![
                write("memory.max", bytes.to_string()),
                swap("memory.swap.max", swap_text),
            ],
        });
    }
    let mut time = Need {
        what: TIME,
        controller: "cpu",
        v1: Vec::new(),
        v2: Vec::new(),
    };
    if let Some(shares) = limits.cpu_shares {
        let shares = shares.clamp(2, 262_144);
        time.v1.push(write("cpu.shares", shares.to_string()));
        // The two ranges, 2 to 262144 and 1 to 10000, laid over each other as runc does.
        let weight = 1 + (shares - 2) * 9999 / 262_142;
        time.v2.push(write("cpu.weight", weight.to_string()));
    }
    if limits.cpu_period_micros.is_some() || limits.cpu_quota_micros.is_some() {
        let period = limits.cpu_period_micros.unwrap_or(DEFAULT_PERIOD_MICROS);
        let quota = limits.cpu_quota_micros;
        time.v1.push(write("cpu.cfs_period_us", period.to_string()));
        let quota_v1 = quota.map_or("-1".to_owned(), |quota| quota.to_string());
        time.v1.push(write("cpu.cfs_quota_us", quota_v1));
        let quota_v2 = quota.map_or("max".to_owned(), |quota| quota.to_string());
        time.v2
            .push(write("cpu.max", format!("{quota_v2} {period}")));
    }
    if !time.v1.is_empty() {
        needs.push(time);
    }
    let lists = [
        ("cpuset.cpus", &limits.cpuset_cpus),
        ("cpuset.mems", &limits.cpuset_mems),
    ];
    let lists: Vec<Write> = lists
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(file, list)| write(file, list.clone()))
        .collect();
    if !lists.is_empty() {
        needs.push(Need {
            what: PROCESSORS,
            controller: "cpuset",
            v1: lists.clone(),
            v2: lists,
        });
    }
    if let Some(count) = limits.processes {
        let writes = vec![write("pids.max", count.to_string())];
        needs.push(Need {
            what: PROCESSES,
            controller: "pids",
            v1: writes.clone(),
            v2: writes,
        });
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unified() -> Hierarchies {
        vec![Hierarchy {
            root: "/sys/fs/cgroup".into(),
            own: Some("/sys/fs/cgroup/user.slice/app.scope".into()),
            unified: true,
            controllers: ["cpuset", "cpu", "memory", "pids"]
                .map(str::to_owned)
                .to_vec(),
        }]
    }

    fn separate() -> Hierarchies {
        let one = |name: &str| Hierarchy {
            root: Path::new("/sys/fs/cgroup").join(name),
            own: Some(Path::new("/sys/fs/cgroup").join(name).join("a")),
            unified: false,
            controllers: name.split(',').map(str::to_owned).collect(),
        };
        ["cpu,cpuacct", "cpuset", "memory", "pids", "blkio"]
            .map(one)
            .to_vec()
    }

    fn everything() -> Cgroup {
        Cgroup {
            parent: None,
            limits: Limits {
                memory_bytes: Some(64 << 20),
                swap: None,
                cpu_shares: Some(512),
                cpu_period_micros: Some(50_000),
                cpu_quota_micros: Some(25_000),
                cpuset_cpus: "0-1".to_owned(),
                cpuset_mems: "0".to_owned(),
                processes: Some(100),
            },
        }
    }

    fn render(hierarchies: &Hierarchies, wanted: &Cgroup) -> String {
        let plan = match plan(hierarchies, wanted) {
            Ok(plan) => plan,
            Err(error) => return error.to_string(),
        };
        let mut text = String::new();
        for place in plan.places {
            text += &format!(
                "{} in {} ({}){}\n",
                place.what,
                place.parent.display(),
                place.controllers.join(", "),
                if place.is_own { ", kiln's own" } else { "" }
            );
            for write in place.writes {
                let optional = if write.optional {
                    " if it is there"
                } else {
                    ""
                };
                text += &format!("  {} <- {}{optional}\n", write.file, write.value);
            }
        }
        text
    }

    #[test]
    fn in_the_unified_hierarchy() {
        insta::assert_snapshot!(render(&unified(), &everything()));
    }

    #[test]
    fn in_hierarchies_of_their_own() {
        insta::assert_snapshot!(render(&separate(), &everything()));
    }

    #[test]
    fn below_a_parent() {
        let below = |parent: &str| {
            let wanted = Cgroup {
                parent: Some(parent.to_owned()),
                limits: Limits {
                    memory_bytes: Some(64 << 20),
                    swap: Some(Swap::Unlimited),
                    ..Limits::default()
                },
            };
            format!("{parent}\n{}", render(&separate(), &wanted))
        };
        let all = ["/builds/ci", "ci", "user-1000.slice", "../up", "/"].map(below);
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn a_parent_alone() {
        let wanted = Cgroup {
            parent: Some("/builds".to_owned()),
            limits: Limits::default(),
        };
        insta::assert_snapshot!(render(&unified(), &wanted));
    }

    #[test]
    fn what_cannot_be_had() {
        let memory_only = vec![Hierarchy {
            controllers: vec!["memory".to_owned()],
            ..unified().remove(0)
        }];
        let mut hidden = unified();
        hidden[0].own = None;
        let all = [
            render(&Vec::new(), &everything()),
            render(&memory_only, &everything()),
            render(&separate()[..2].to_vec(), &everything()),
            render(&hidden, &everything()),
        ];
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn what_means_nothing() {
        let refused = |change: fn(&mut Limits)| {
            let mut wanted = everything();
            change(&mut wanted.limits);
            plan(&unified(), &wanted).unwrap_err().to_string()
        };
        let all = [
            refused(|limits| limits.memory_bytes = Some(4096)),
            refused(|limits| limits.swap = Some(Swap::Total(1 << 20))),
            refused(|limits| {
                limits.memory_bytes = None;
                limits.swap = Some(Swap::Total(64 << 20));
            }),
            refused(|limits| limits.cpu_period_micros = Some(1)),
            refused(|limits| limits.cpu_quota_micros = Some(999)),
            refused(|limits| limits.cpuset_cpus = "3-1".to_owned()),
            refused(|limits| limits.cpuset_mems = "0,\n".to_owned()),
        ];
        insta::assert_snapshot!(all.join("\n"));
    }
}
