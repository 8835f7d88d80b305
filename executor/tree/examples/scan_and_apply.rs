//! Measures scanning a context and applying, writing and sealing a layer archive.
//!
//! `cargo run --release -p kiln-tree --example scan_and_apply -- scan DIR` or `-- apply TAR NEW-DIR`.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use kiln_tree::context::{Everything, HashMemory, ScanOptions, scan};
use kiln_tree::seal::{IdMap, SealOptions, seal};
use kiln_tree::tar::{ApplyOptions, DirectoryFiles, WriteOptions, apply, write_layer};
use kiln_tree::{Manifest, OverlayXattrs, Ownership, View};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["scan", dir] => measure_scan(dir),
        ["apply", archive, into] => measure_apply(archive, into),
        _ => Err("usage: scan_and_apply scan DIR | scan_and_apply apply TAR NEW-DIR".into()),
    }
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    println!("{what:<32} {:>9.3} ms", start.elapsed().as_secs_f64() * 1e3);
    done
}

fn measure_scan(dir: &str) -> Result<(), Box<dyn Error>> {
    let root = File::open(dir)?;
    let options = ScanOptions::default();
    let none = HashMemory::default();
    let tree = timed("scan, nothing remembered", || {
        scan(root.as_fd(), &Everything, &none, &options)
    })?;
    println!("{} files read", tree.hashed());
    let bytes = timed("encode the memory", || tree.memory().encode());
    let memory = timed("decode the memory", || HashMemory::decode(&bytes))?;
    for _ in 0..5 {
        let tree = timed("scan, all remembered", || {
            scan(root.as_fd(), &Everything, &memory, &options)
        })?;
        println!("{} files read", tree.hashed());
    }
    timed("select everything", || tree.select(&Everything).digest());
    Ok(())
}

fn measure_apply(archive: &str, into: &str) -> Result<(), Box<dyn Error>> {
    fs::create_dir(into)?;
    let dir = File::open(into)?;
    let ownership = Ownership::Apply(IdMap::identity());
    let options = ApplyOptions::new(ownership, OverlayXattrs::Trusted);
    let input = File::open(archive)?;
    let applied = timed("apply", || apply(input, dir.as_fd(), &options))?;
    let manifest = applied.manifest;
    println!(
        "{} entries, {} bytes",
        manifest.entries().len(),
        applied.bytes
    );
    timed("content id", || manifest.id());
    let bytes = timed("encode", || manifest.encode());
    timed("decode", || Manifest::decode(&bytes))?;
    let files = DirectoryFiles(dir.as_fd());
    let written = WriteOptions::default();
    timed("write", || {
        write_layer(&manifest, &files, &written, &mut io::sink())
    })?;
    timed("seal, all bytes hashed", || {
        seal(dir.as_fd(), &View::default(), &SealOptions::default())
    })?;
    Ok(())
}
