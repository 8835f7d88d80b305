//! Builds in a world of memory.

mod driven;
mod graph;
mod keys;
mod orders;
mod random;
mod rebuilds;
mod simulate;
mod speed;
mod world;
