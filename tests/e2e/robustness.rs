//! Two processes at once, kills, hostile input, poor environments.

mod context;
mod disk;
mod isolation;
mod kills;
mod output;
mod plans;
mod together;
mod users;

use crate::support::Case;

pub(crate) fn cases() -> Vec<Case> {
    let rooms = [
        together::cases(),
        kills::cases(),
        isolation::cases(),
        disk::cases(),
        context::cases(),
        plans::cases(),
        output::cases(),
        users::cases(),
    ];
    rooms.into_iter().flatten().collect()
}
