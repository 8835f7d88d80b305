//! Owners on disk to owners in a container.

/// A mapping of numeric ids, as in `/proc/self/uid_map`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdMap {
    uids: Vec<IdRange>,
    gids: Vec<IdRange>,
}

/// A contiguous range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first id inside.
    pub inside: u32,
    /// The first id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The id that stands for owners that are not mapped: `nobody`.
pub const UNMAPPED: u32 = 65534;

impl IdMap {
    /// Ids are the same inside and outside.
    pub fn identity() -> Self {
        let all = vec![IdRange {
            inside: 0,
            outside: 0,
            count: u32::MAX,
        }];
        Self {
            uids: all.clone(),
            gids: all,
        }
    }

    /// Maps ids by these ranges.
    pub fn new(uids: Vec<IdRange>, gids: Vec<IdRange>) -> Self {
        Self { uids, gids }
    }

    /// The user inside for one outside; [`UNMAPPED`] where there is none.
    pub fn uid_inside(&self, outside: u32) -> u32 {
        inside(&self.uids, outside)
    }

    /// The group inside for one outside; [`UNMAPPED`] where there is none.
    pub fn gid_inside(&self, outside: u32) -> u32 {
        inside(&self.gids, outside)
    }

    /// The user outside for one inside, if mapped.
    pub fn uid_outside(&self, id: u32) -> Option<u32> {
        outside(&self.uids, id)
    }

    /// The group outside for one inside, if mapped.
    pub fn gid_outside(&self, id: u32) -> Option<u32> {
        outside(&self.gids, id)
    }
}

fn inside(ranges: &[IdRange], id: u32) -> u32 {
    let hit = ranges.iter().find(|range| {
        id.checked_sub(range.outside)
            .is_some_and(|o| o < range.count)
    });
    hit.map_or(UNMAPPED, |range| range.inside + (id - range.outside))
}

fn outside(ranges: &[IdRange], id: u32) -> Option<u32> {
    let hit = ranges.iter().find(|range| {
        id.checked_sub(range.inside)
            .is_some_and(|o| o < range.count)
    });
    hit.map(|range| range.outside + (id - range.inside))
}
