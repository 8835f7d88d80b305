//! Images from and for the other engines of a host: docker, podman and containerd.

mod fake;
mod found;
mod given_up;
mod hostile;
mod loaded;
mod ordinary;
mod places;

use crate::support::Case;

pub(crate) fn cases() -> Vec<Case> {
    let rooms = [
        found::cases(),
        given_up::cases(),
        hostile::cases(),
        loaded::cases(),
        ordinary::cases(),
        places::cases(),
    ];
    rooms.into_iter().flatten().collect()
}
