//! Prints what the store's frequent operations cost, in microseconds.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant, SystemTime};

use kiln_store::{Content, DiffId, Key, NewRecord, OpKey, Store, StoreOptions, Strategy};
use kiln_tree::seal::seal;
use kiln_tree::{Manifest, View};

fn time<T>(what: &str, times: u32, mut run: impl FnMut() -> T) {
    let mut each: Vec<Duration> = Vec::new();
    for _ in 0..times {
        let start = Instant::now();
        let result = run();
        each.push(start.elapsed());
        drop(result);
    }
    each.sort();
    let (median, worst) = (each[each.len() / 2], each[each.len() - 1]);
    println!(
        "{what:50} median {:>7} worst {:>7}",
        median.as_micros(),
        worst.as_micros()
    );
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = Store::open(&root, StoreOptions::default()).unwrap();
    let kept = store.lease();
    let layers: Vec<Content> = (0..25u8)
        .map(|number| {
            let draft = store.begin_layer().unwrap();
            for file in 0..40 {
                std::fs::write(draft.fs_path().join(format!("{number}-{file}")), "x").unwrap();
            }
            let sealed = seal(draft.fs(), &View::default(), &store.seal_options()).unwrap();
            let content = Content::Layer(sealed.manifest.id());
            store
                .commit_layer(&kept, draft, &sealed.manifest, content)
                .unwrap()
                .content
        })
        .collect();
    let record = |number: u32| NewRecord {
        keys: vec![key(number), key(number + 1_000_000)],
        op: OpKey([1; 32]),
        slot: None,
        outputs: vec![Some(layers.clone())],
        parts: vec![0; 500],
        created: SystemTime::now(),
        duration: Duration::ZERO,
    };
    let mut number = 0;
    time("file a record of 25 layers", 1000, || {
        number += 1;
        store.file_record(&kept, &record(number)).unwrap()
    });
    time("find a record, lease its 25 layers, release", 1000, || {
        number -= 1;
        store
            .find(&store.lease(), &[key(number % 1000 + 1)])
            .unwrap()
    });
    time("find nothing", 1000, || {
        store.find(&kept, &[Key([0xff; 32])]).unwrap()
    });
    let all: Vec<Key> = (1..=200).map(key).collect();
    time("find 200 records of 25 layers at once, release", 20, || {
        store.find(&store.lease(), &all).unwrap()
    });
    time("commit an empty layer", 200, || {
        number += 1;
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let draft = store.begin_layer().unwrap();
        let content = Content::DiffId(DiffId(id));
        store
            .commit_layer(&kept, draft, &Manifest::default(), content)
            .unwrap()
    });
    for (strategy, count) in [
        (Strategy::Overlay, 2),
        (Strategy::Overlay, 25),
        (Strategy::Copy, 25),
    ] {
        let snapshotter = store.snapshotter(strategy);
        let layers = &layers[..count];
        let what = format!("{strategy}: prepare {count} layers");
        let mut made = Vec::new();
        time(&what, 100, || {
            made.push(
                snapshotter
                    .prepare(&kept, layers, &kiln_tree::Stop::NEVER)
                    .unwrap(),
            )
        });
        time(
            &format!("{strategy}: seal, nothing changed, drop"),
            100,
            || {
                snapshotter
                    .seal(made.pop().unwrap(), store.seal_options())
                    .unwrap()
            },
        );
    }
    time("probe", 20, || store.probe_snapshots().unwrap());
    time("open with the log of these", 20, || {
        Store::open(&root, StoreOptions::default()).unwrap()
    });
    time("mark durable", 1, || store.mark_durable().unwrap());
    time("open after a checkpoint", 20, || {
        Store::open(&root, StoreOptions::default()).unwrap()
    });
}

fn key(number: u32) -> Key {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Key(bytes)
}
