//! Images from and for the other engines of a host: docker, podman and containerd.

mod fake;
mod found;
mod hostile;
mod loaded;
mod ordinary;

use crate::support::Case;

pub(crate) fn cases() -> Vec<Case> {
    let rooms = [
        found::cases(),
        hostile::cases(),
        loaded::cases(),
        ordinary::cases(),
    ];
    rooms.into_iter().flatten().collect()
}
