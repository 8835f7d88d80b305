//! Images from and for the other engines of a host: docker, podman and containerd.

mod fake;
mod found;
mod hostile;
mod loaded;

use crate::support::Case;

pub(crate) fn cases() -> Vec<Case> {
    [found::cases(), hostile::cases(), loaded::cases()]
        .into_iter()
        .flatten()
        .collect()
}
