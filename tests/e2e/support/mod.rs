//! What a case stands on: a world of its own, the command in it, and what this host can do.

mod agent;
mod archive;
mod base;
mod capability;
mod case;
mod engine;
mod kiln;
mod leftovers;
mod mask;
mod sshd;
mod terminal;
mod text;
mod user;
mod world;

pub(crate) use agent::Agent;
pub(crate) use archive::paths_in;
pub(crate) use base::archive as base_archive;
pub(crate) use capability::{Capability, cgroup_roots, find_program};
pub(crate) use case::{Case, case};
pub(crate) use engine::{APART, Containerd, Dockerd, PODMAN_OF_A_USER, podman_settings};
pub(crate) use kiln::{Kiln, Ran};
pub(crate) use sshd::SshServer;
pub(crate) use terminal::on_a_terminal;
pub(crate) use text::dedent;
pub(crate) use user::{UID, User};
pub(crate) use world::World;

/// Makes this process, and so every child, independent of how the tests were started.
pub(crate) fn settle() {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
}
