//! In which steps packages are installed.

use std::collections::{BTreeMap, BTreeSet};

use crate::relation::Group;
use crate::universe::{Id, Universe, UniverseError};

/// Packages that need each other in a way that no order serves.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// A package would have to be configured before it is unpacked.
    #[error("`{0}` pre-depends, through others, on itself")]
    Cycle(String),
    /// An index cannot be read.
    #[error(transparent)]
    Universe(#[from] UniverseError),
}

/// Splits packages so that each batch can be unpacked and then configured after those before it.
///
/// A batch holds whatever its packages depend on, unless an earlier one does; what one of them
/// pre-depends on is in an earlier one. What is not among `packages` is there already.
pub fn batches(universe: &Universe<'_>, packages: &[Id]) -> Result<Vec<Vec<Id>>, OrderError> {
    let mut needs: Vec<(BTreeSet<usize>, BTreeSet<usize>)> = Vec::new();
    let find = |groups: Vec<Group<'_>>| {
        let mut found = BTreeSet::new();
        for group in groups {
            let relations = group.iter();
            found.extend(relations.flat_map(|relation| {
                let all = packages.iter().enumerate();
                all.filter(|(_, id)| universe.satisfies(**id, relation))
                    .map(|(at, _)| at)
            }));
        }
        found
    };
    for id in packages {
        let package = universe.package(*id);
        needs.push((find(package.pre_depends()?), find(package.depends()?)));
    }
    let mut batch = vec![0; packages.len()];
    loop {
        let mut moved = false;
        for (at, (before, with)) in needs.iter().enumerate() {
            let after = before.iter().map(|other| batch[*other] + 1);
            let beside = with.iter().map(|other| batch[*other]);
            let least = after.chain(beside).max().unwrap_or(0);
            if least > batch[at] {
                if least > packages.len() {
                    let name = universe.package(packages[at]).name;
                    return Err(OrderError::Cycle(name.to_owned()));
                }
                batch[at] = least;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let mut batches: BTreeMap<usize, Vec<Id>> = BTreeMap::new();
    for (at, number) in batch.into_iter().enumerate() {
        batches.entry(number).or_default().push(packages[at]);
    }
    Ok(batches.into_values().collect())
}
