//! Builds in a world of memory.

mod driven;
mod elsewhere;
mod graph;
mod keys;
mod orders;
mod random;
mod rebuilds;
mod simulate;
mod speed;
mod world;
