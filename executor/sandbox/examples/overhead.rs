//! Measures what a sandbox adds to the shortest program: `overhead ROOT [PROGRAM..]`.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use kiln_sandbox::{Network, RootFs, Spec, init_if_requested, spawn};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    init_if_requested();
    let mut args = std::env::args_os().skip(1);
    let root = args.next().ok_or("usage: overhead ROOT [PROGRAM..]")?;
    let mut program: Vec<_> = args.collect();
    if program.is_empty() {
        program.push("/bin/true".into());
    }
    for network in [Network::Host, Network::None] {
        let mut times = Vec::new();
        for _ in 0..200 {
            let root = RootFs::Directory(std::fs::File::open(&root)?.into());
            let mut spec = Spec::new(root, program.clone());
            spec.network = network;
            spec.hosts = Some(b"127.0.0.1 localhost\n".to_vec());
            let start = Instant::now();
            let mut running = spawn(spec)?;
            let started = start.elapsed();
            running.wait()?;
            times.push((start.elapsed(), started));
        }
        times.sort();
        let (total, started) = times[times.len() / 2];
        println!("{network:?}: median {total:?}, of which {started:?} until the program ran");
    }
    Ok(())
}
