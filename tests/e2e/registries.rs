//! Bases from registries and layouts: pulled, refused, tried again, never trusted.

mod access;
pub(crate) mod archive;
mod built;
mod debian;
mod faults;
mod hostile;
mod layouts;
mod pulls;
mod pushes;
pub(crate) mod server;

use crate::support::Case;

pub(crate) fn cases() -> Vec<Case> {
    [
        debian::cases(),
        access::cases(),
        built::cases(),
        faults::cases(),
        hostile::cases(),
        layouts::cases(),
        pulls::cases(),
        pushes::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
