//! Finds the packages that have to be there so that those that are wanted work.
//!
//! As apt does, the newest version of each package is the only one that counts, the first alternative
//! that can be had is preferred, and what is chosen already serves before anything new does. Unlike
//! apt, a choice that leads nowhere is taken back; only where no choice leads anywhere does it fail,
//! and then it says why the preferred one did not. The result depends on nothing but the input.

use std::collections::{BTreeMap, BTreeSet};

use crate::relation::{Group, Relation, show};
use crate::universe::{Id, Package, Universe, UniverseError};

/// Choices that are taken back before it gives up.
const RETREATS: usize = 2000;

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub struct Wishes<'a> {
    /// Packages that are there, whatever is wished for.
    pub base: Vec<Id>,
    /// Packages, perhaps with a version.
    pub packages: Vec<Relation<'a>>,
    /// Packages that are not to come in.
    pub excluded: BTreeSet<&'a str>,
    /// What packages recommend comes too, if it can be had.
    pub recommends: bool,
}

/// Why there is no set of packages that works.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Nobody has such a package.
    #[error("no source has a package `{name}`{}", like(.near))]
    NoPackage {
        /// What was wished for.
        name: String,
        /// Names that are nearly it.
        near: Vec<String>,
    },
    /// The name stands for several packages.
    #[error("`{name}` is no package of its own; it is provided by {}", list(.providers))]
    Virtual {
        /// What was wished for.
        name: String,
        /// Who provides it.
        providers: Vec<String>,
    },
    /// The package is there, but not so.
    #[error("no source has `{wish}`; there is {}", list(.versions))]
    NoVersion {
        /// What was wished for.
        wish: String,
        /// Which versions there are.
        versions: Vec<String>,
    },
    /// A dependency that nothing serves.
    #[error("{chain} needs `{group}`, and {reason}")]
    Unsatisfiable {
        /// Who needs it, and why it is there.
        chain: String,
        /// What it needs.
        group: String,
        /// What is in the way.
        reason: String,
    },
    /// Two packages that are wished for cannot be there together.
    #[error("{reason}")]
    Conflict {
        /// Which, and what they say.
        reason: String,
    },
    /// Too many choices.
    #[error("gave up after taking back {RETREATS} choices; the first one failed since {first}")]
    TooHard {
        /// Why the preferred choices did not do.
        first: String,
    },
    /// An index cannot be read.
    #[error(transparent)]
    Universe(#[from] UniverseError),
}

fn like(near: &[String]) -> String {
    match near {
        [] => String::new(),
        near => format!("; there is {}", list(near)),
    }
}

fn list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// Returns the essential packages and those of priority `required`, if these are wanted.
pub fn essential(universe: &Universe<'_>, required: bool) -> Vec<Id> {
    let names = universe.names();
    let newest = names.filter_map(|name| universe.versions(name).first().copied());
    let is_wanted = |id: &Id| {
        let package = universe.package(*id);
        package.essential || (required && package.priority == "required")
    };
    newest.filter(is_wanted).collect()
}

/// Returns the packages beyond the base, by name.
pub fn resolve<'a>(
    universe: &'a Universe<'a>,
    wishes: &Wishes<'a>,
) -> Result<Vec<Id>, ResolveError> {
    let mut wished = BTreeMap::new();
    for wish in &wishes.packages {
        let id = find(universe, wish)?;
        wished.insert(universe.package(id).name, id);
    }
    let mut search = Search {
        universe,
        wishes,
        wished,
    };
    let state = search.solve()?;
    let base: BTreeSet<Id> = wishes.base.iter().copied().collect();
    let chosen = state.chosen.values().map(|chosen| chosen.id);
    Ok(chosen.filter(|id| !base.contains(id)).collect())
}

/// The package that a wish means.
fn find(universe: &Universe<'_>, wish: &Relation<'_>) -> Result<Id, ResolveError> {
    let versions = universe.versions(wish.name);
    let found = versions.iter().find(|id| universe.satisfies(**id, wish));
    if let Some(id) = found {
        return Ok(*id);
    }
    let name = wish.name.to_owned();
    if !versions.is_empty() {
        let shown = |id: &Id| {
            let package = universe.package(*id);
            format!(
                "{}={} ({})",
                package.name,
                package.version(),
                package.architecture
            )
        };
        return Err(ResolveError::NoVersion {
            wish: wish.to_string(),
            versions: versions.iter().map(shown).collect(),
        });
    }
    let providers = universe.providers(wish.name);
    if !providers.is_empty() {
        let names: BTreeSet<&str> = providers
            .iter()
            .map(|id| universe.package(*id).name)
            .collect();
        return Err(ResolveError::Virtual {
            name,
            providers: names.into_iter().map(str::to_owned).collect(),
        });
    }
    let near = universe.names_like(wish.name);
    Err(ResolveError::NoPackage {
        name,
        near: near.into_iter().map(str::to_owned).collect(),
    })
}

/// A package that is to be there.
#[derive(Clone, Copy, Debug)]
struct Chosen<'a> {
    id: Id,
    /// The package that needs it; none was wished for.
    by: Option<&'a str>,
}

/// Alternatives of which one is needed.
#[derive(Clone, Debug)]
struct Need<'a> {
    by: &'a str,
    group: Group<'a>,
}

/// How far the search is.
#[derive(Clone, Debug, Default)]
struct State<'a> {
    chosen: BTreeMap<&'a str, Chosen<'a>>,
    needs: Vec<Need<'a>>,
    /// What the chosen ones do not have beside them.
    conflicts: Vec<(Id, Relation<'a>)>,
}

/// A choice that may be taken back.
struct Choice<'a> {
    state: State<'a>,
    by: &'a str,
    left: Vec<Id>,
}

struct Search<'a, 'w> {
    universe: &'a Universe<'a>,
    wishes: &'w Wishes<'a>,
    wished: BTreeMap<&'a str, Id>,
}

impl<'a> Search<'a, '_> {
    fn solve(&mut self) -> Result<State<'a>, ResolveError> {
        let mut state = State::default();
        for id in self.wishes.base.clone() {
            self.choose(&mut state, id, None)?;
        }
        for id in self.wished.values().copied().collect::<Vec<_>>() {
            let package = self.package(id);
            let known = state.chosen.get(package.name).map(|known| known.id);
            if known.is_some_and(|known| known != id) {
                let reason = format!(
                    "`{}={}` is wished for, and the base has another version of it",
                    package.name,
                    package.version()
                );
                return Err(ResolveError::Conflict { reason });
            }
            self.choose(&mut state, id, None)?;
        }
        let mut state = self.close(state)?;
        if self.wishes.recommends {
            self.add_recommended(&mut state)?;
        }
        Ok(state)
    }

    fn package(&self, id: Id) -> &'a Package<'a> {
        self.universe.package(id)
    }

    /// Chooses until nothing is needed any more.
    fn close(&self, mut state: State<'a>) -> Result<State<'a>, ResolveError> {
        let mut choices: Vec<Choice<'a>> = Vec::new();
        let mut first_error = None;
        let mut retreats = 0;
        loop {
            match self.advance(&mut state) {
                Ok(None) => return Ok(state),
                Ok(Some((by, mut options))) => {
                    let id = options.remove(0);
                    choices.push(Choice {
                        state: state.clone(),
                        by,
                        left: options,
                    });
                    // Options conflict with nothing that is chosen.
                    self.choose(&mut state, id, Some(by))?;
                }
                Err(error @ ResolveError::Universe(_)) => return Err(error),
                Err(error) => {
                    let first = first_error.get_or_insert(error);
                    retreats += 1;
                    if retreats > RETREATS {
                        let first = first.to_string();
                        return Err(ResolveError::TooHard { first });
                    }
                    let next = loop {
                        let Some(mut choice) = choices.pop() else {
                            break None;
                        };
                        if !choice.left.is_empty() {
                            let id = choice.left.remove(0);
                            state = choice.state.clone();
                            let by = choice.by;
                            choices.push(choice);
                            break Some((id, by));
                        }
                    };
                    match (next, first_error.take()) {
                        (Some((id, by)), error) => {
                            first_error = error;
                            self.choose(&mut state, id, Some(by))?;
                        }
                        (None, Some(error)) => return Err(error),
                        (None, None) => unreachable!("BUG: an error was kept above"),
                    }
                }
            }
        }
    }

    /// Takes all that leaves no choice, then returns the first choice that there is.
    fn advance(&self, state: &mut State<'a>) -> Result<Option<(&'a str, Vec<Id>)>, ResolveError> {
        loop {
            let mut choice = None;
            let mut forced = None;
            let needs = std::mem::take(&mut state.needs);
            let mut open = Vec::new();
            for need in needs {
                if forced.is_some() {
                    open.push(need);
                    continue;
                }
                if self.is_satisfied(state, &need.group) {
                    continue;
                }
                let mut options = self.options(state, &need.group);
                match options.len() {
                    0 => return Err(self.unsatisfiable(state, &need)),
                    1 => forced = options.pop().map(|id| (id, need.by)),
                    _ => {
                        choice.get_or_insert((need.by, options));
                    }
                }
                open.push(need);
            }
            state.needs = open;
            match forced {
                Some((id, by)) => self.choose(state, id, Some(by))?,
                None => return Ok(choice),
            }
        }
    }

    fn is_satisfied(&self, state: &State<'a>, group: &[Relation<'a>]) -> bool {
        group.iter().any(|relation| {
            let named = state.chosen.get(relation.name);
            named.is_some_and(|chosen| self.universe.satisfies(chosen.id, relation))
                || self.universe.providers(relation.name).iter().any(|id| {
                    let name = self.package(*id).name;
                    let is_chosen = state
                        .chosen
                        .get(name)
                        .is_some_and(|chosen| chosen.id == *id);
                    is_chosen && self.universe.satisfies(*id, relation)
                })
        })
    }

    /// The packages that would satisfy a group, in the order of preference.
    fn options(&self, state: &State<'a>, group: &[Relation<'a>]) -> Vec<Id> {
        let mut options = Vec::new();
        for relation in group {
            let named = self.candidate(relation.name).into_iter();
            let mut providers: Vec<Id> = self.universe.providers(relation.name).to_vec();
            providers.retain(|id| {
                let name = self.package(*id).name;
                name != relation.name && self.candidate(name) == Some(*id)
            });
            providers.sort_by_key(|id| {
                let package = self.package(*id);
                (rank(package.priority), package.name)
            });
            for id in named.chain(providers) {
                let name = self.package(id).name;
                if self.universe.satisfies(id, relation)
                    && !self.wishes.excluded.contains(name)
                    && !state.chosen.contains_key(name)
                    && !options.contains(&id)
                    && self.conflict(state, id).is_ok_and(|found| found.is_none())
                {
                    options.push(id);
                }
            }
        }
        options
    }

    /// The version of a package that counts.
    fn candidate(&self, name: &str) -> Option<Id> {
        let wished = self.wished.get(name).copied();
        wished.or_else(|| self.universe.versions(name).first().copied())
    }

    /// Adds a package with what it needs.
    fn choose(
        &self,
        state: &mut State<'a>,
        id: Id,
        by: Option<&'a str>,
    ) -> Result<(), ResolveError> {
        let package = self.package(id);
        if state.chosen.contains_key(package.name) {
            return Ok(());
        }
        if let Some(reason) = self.conflict(state, id)? {
            return Err(ResolveError::Conflict { reason });
        }
        state.chosen.insert(package.name, Chosen { id, by });
        let relations = package.conflicts()?.into_iter().flatten();
        state
            .conflicts
            .extend(relations.map(|relation| (id, relation)));
        let mut groups = package.pre_depends()?;
        groups.extend(package.depends()?);
        let by = package.name;
        state
            .needs
            .extend(groups.into_iter().map(|group| Need { by, group }));
        Ok(())
    }

    /// Says why a package can't be added, if it can't.
    fn conflict(&self, state: &State<'a>, id: Id) -> Result<Option<String>, ResolveError> {
        let package = self.package(id);
        let says = |who: Id, relation: &Relation<'_>, other: Id| {
            let (who, other) = (self.package(who).name, self.package(other));
            let why = self.chain(state, who);
            let other = format!("`{}` ({})", other.name, other.version());
            format!("{why} cannot be beside {other}, as it conflicts with `{relation}`")
        };
        for (other, relation) in &state.conflicts {
            if *other != id && self.universe.satisfies(id, relation) {
                return Ok(Some(says(*other, relation, id)));
            }
        }
        for relation in package.conflicts()?.iter().flatten() {
            let other = state.chosen.values().map(|chosen| chosen.id);
            let mut other = other.filter(|other| self.package(*other).name != package.name);
            if let Some(other) = other.find(|other| self.universe.satisfies(*other, relation)) {
                return Ok(Some(says(id, relation, other)));
            }
        }
        Ok(None)
    }

    /// A package and who brought it in: `a` (for `b`, for `c`).
    fn chain(&self, state: &State<'a>, name: &str) -> String {
        let mut chain = Vec::new();
        let mut by = state.chosen.get(name).and_then(|chosen| chosen.by);
        while let Some(name) = by {
            chain.push(format!("for `{name}`"));
            by = state.chosen.get(name).and_then(|chosen| chosen.by);
        }
        match chain.is_empty() {
            true => format!("`{name}`"),
            false => format!("`{name}` ({})", chain.join(", ")),
        }
    }

    fn unsatisfiable(&self, state: &State<'a>, need: &Need<'a>) -> ResolveError {
        let mut reasons: Vec<String> = Vec::new();
        for relation in &need.group {
            let reason = self.obstacle(state, relation);
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        ResolveError::Unsatisfiable {
            chain: self.chain(state, need.by),
            group: show(&need.group),
            reason: reasons.join("; "),
        }
    }

    /// Why nothing serves a relation.
    fn obstacle(&self, state: &State<'a>, relation: &Relation<'a>) -> String {
        let name = relation.name;
        let Some(id) = self.candidate(name) else {
            let providers = self.universe.providers(name);
            let reasons = providers.iter().filter_map(|id| {
                let found = self.conflict(state, *id).ok().flatten();
                let excluded = self.wishes.excluded.contains(self.package(*id).name);
                let excluded =
                    excluded.then(|| format!("`{}` is excluded", self.package(*id).name));
                found.or(excluded)
            });
            let reasons: BTreeSet<String> = reasons.collect();
            return match (providers, reasons.into_iter().next()) {
                ([], _) => format!("no source has `{name}`"),
                (_, Some(reason)) => reason,
                (_, None) => format!("nothing provides `{relation}` so"),
            };
        };
        let package = self.package(id);
        if self.wishes.excluded.contains(name) {
            format!("`{name}` is excluded")
        } else if !self.universe.satisfies(id, relation) {
            format!(
                "there is only `{name}` {} ({})",
                package.version(),
                package.architecture
            )
        } else if let Some(reason) = self.conflict(state, id).ok().flatten() {
            reason
        } else {
            format!("`{name}` cannot be added")
        }
    }

    /// Adds what the chosen packages recommend, each with all it needs or not at all.
    fn add_recommended(&self, state: &mut State<'a>) -> Result<(), ResolveError> {
        let base: BTreeSet<Id> = self.wishes.base.iter().copied().collect();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        loop {
            let new: Vec<Id> = state
                .chosen
                .values()
                .filter(|chosen| !base.contains(&chosen.id))
                .map(|chosen| chosen.id)
                .filter(|id| !seen.contains(self.package(*id).name))
                .collect();
            if new.is_empty() {
                return Ok(());
            }
            for id in new {
                let package = self.package(id);
                seen.insert(package.name);
                for group in package.recommends()? {
                    if self.is_satisfied(state, &group) {
                        continue;
                    }
                    for option in self.options(state, &group) {
                        let mut with = state.clone();
                        let added = self.choose(&mut with, option, Some(package.name));
                        if let Ok(closed) = added.and_then(|()| self.close(with)) {
                            *state = closed;
                            break;
                        }
                    }
                }
            }
        }
    }
}

/// Priorities in the order of policy, section 2.5.
fn rank(priority: &str) -> usize {
    let all = ["required", "important", "standard", "optional", "extra"];
    all.iter()
        .position(|known| *known == priority)
        .unwrap_or(all.len())
}
