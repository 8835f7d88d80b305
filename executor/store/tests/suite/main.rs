//! The store at its boundary: one process, two, and ones that are killed.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod fixture;

mod abandon;
mod blobs;
mod cachemounts;
mod child;
mod full_disk;
mod images;
mod indexes;
mod layers;
mod locks;
mod open;
mod read_only;
mod records;
mod remotes;
mod snapshots;
mod sweep;
mod two_processes;
mod usage;
