//! Documents that are written, merged and read, and documents that lie.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_oci::digest::Sha256Digest;
use kiln_oci::media_type::Compression;
use kiln_store::{Content, DiffId, Key, Lineage, OpKey};
use kiln_tree::LayerId;

use super::document::{Cache, CachedBlob, CachedLayer, CachedRecord, ImageBlobs, Limits};

const LIMITS: Limits = Limits {
    age: Duration::from_secs(1000),
    bytes: 10_000,
};

fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(second)
}

fn own(n: u8) -> Content {
    Content::Layer(LayerId([n; 32]))
}

fn layer(n: u8, size: u64) -> CachedLayer {
    CachedLayer {
        blob: CachedBlob {
            digest: Sha256Digest::from_bytes([n; 32]),
            size,
            compression: Compression::Gzip,
            diff_id: DiffId([n + 100; 32]),
            archive: "tar v0".to_owned(),
            packed: "gzip".to_owned(),
        },
        created: at(u64::from(n)),
        passing: None,
    }
}

/// A result of one layer on a base, made at a second.
fn result(n: u8, second: u64, size: u64) -> Cache {
    let record = CachedRecord {
        keys: vec![Key([n; 32])],
        op: OpKey([n; 32]),
        slot: Some((Lineage([9; 32]), format!("stage-0.{n}"))),
        outputs: vec![Some(vec![Content::DiffId(DiffId([1; 32])), own(n)]), None],
        created: at(second),
        took: Duration::from_millis(5),
        parts: br#"{"definition":[],"facts":{"step":{"text":"RUN x","line":2},"parts":[]}}"#
            .to_vec(),
    };
    Cache {
        records: vec![record],
        layers: BTreeMap::from([(own(n), layer(n, size))]),
    }
}

fn keys(cache: &Cache) -> Vec<u8> {
    let mut keys: Vec<u8> = cache
        .records
        .iter()
        .flat_map(|record| record.keys.iter().map(|key| key.0[0]))
        .collect();
    keys.sort_unstable();
    keys
}

fn merged(before: Cache, ours: Cache) -> Cache {
    before.merge(ours, LIMITS, at(1500))
}

#[test]
fn what_is_written_comes_back() {
    let mut cache = merged(result(1, 900, 10), result(2, 1000, 20));
    cache.layers.get_mut(&own(1)).unwrap().passing = Some(b"some bytes".to_vec());
    let bytes = cache.encode();
    assert_eq!(Cache::decode(&bytes, None).unwrap(), cache);
    assert_eq!(Cache::decode(&bytes, None).unwrap().encode(), bytes);
}

#[test]
fn the_bytes_are_those_of_the_format() {
    let mut cache = result(1, 900, 10);
    cache.layers.get_mut(&own(1)).unwrap().passing = Some(packed(b"passing"));
    let text = String::from_utf8(cache.encode()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    insta::assert_snapshot!(
        "cache-export",
        serde_json::to_string_pretty(&value).unwrap()
    );
    // Nothing stands between the values.
    assert_eq!(serde_json::to_string(&value).unwrap(), text);
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).unwrap()
}

#[test]
fn two_builders_both_find_their_results() {
    let one = merged(Cache::default(), result(1, 900, 10));
    let both = merged(one.clone(), result(2, 1000, 10));
    assert_eq!(keys(&both), [1, 2]);
    assert!(both.covers(&one) && both.covers(&result(2, 1000, 10)));
    assert!(!one.covers(&both));
    // Whoever comes again changes nothing.
    let again = merged(both.clone(), result(1, 900, 10));
    assert_eq!(again, both);
    assert_eq!(again.encode(), both.encode());
    // The order of arrival does not matter.
    let other = merged(
        merged(Cache::default(), result(2, 1000, 10)),
        result(1, 900, 10),
    );
    assert_eq!(other, both);
}

#[test]
fn of_one_key_the_newest_stays() {
    let newer = |second, content: u8| {
        let mut cache = result(content, second, 10);
        cache.records[0].keys = vec![Key([1; 32])];
        cache
    };
    for (first, then) in [
        (newer(900, 2), newer(1000, 3)),
        (newer(1000, 3), newer(900, 2)),
    ] {
        let both = merged(first, then);
        assert_eq!(both.records.len(), 1);
        assert_eq!(both.records[0].created, at(1000));
        // The layer of the other goes with it.
        assert_eq!(both.layers.keys().copied().collect::<Vec<_>>(), [own(3)]);
    }
}

#[test]
fn the_oldest_leave_beyond_the_limits() {
    // Too old.
    assert_eq!(keys(&merged(result(1, 400, 10), result(2, 1400, 10))), [2]);
    // Too much: the newer of the others stays.
    let others = merged(result(1, 900, 6_000), result(2, 1000, 6_000));
    assert_eq!(keys(&merged(others, result(3, 1100, 1_000))), [2, 3]);
    // Our own results stay whatever they are.
    assert_eq!(
        keys(&merged(result(1, 1400, 10), result(2, 400, 50_000))),
        [2]
    );
    assert_eq!(keys(&merged(Cache::default(), result(2, 400, 50_000))), [2]);
}

#[test]
fn a_record_without_its_layers_is_left_out() {
    let mut lost = result(1, 1400, 10);
    lost.layers.clear();
    assert_eq!(keys(&merged(lost, result(2, 1400, 10))), [2]);
}

#[test]
fn an_image_knows_its_own_blobs() {
    let cache = result(1, 900, 10);
    let text = cache.encode_inline();
    assert!(
        !text.contains(&"01".repeat(32)) || !text.contains("\"digest\""),
        "{text}"
    );
    let blob = (Sha256Digest::from_bytes([5; 32]), 77, Compression::Zstd);
    let mut image = ImageBlobs {
        blobs: [(DiffId([101; 32]), blob)].into(),
        packed: None,
    };
    let read = |image: &ImageBlobs| Cache::decode(text.as_bytes(), Some(image));
    let cache = read(&image).unwrap();
    let found = &cache.layers[&own(1)].blob;
    assert_eq!((found.digest, found.size, found.compression), blob);
    assert_eq!(found.packed, "");
    image.packed = Some("zstd level 3".to_owned());
    let cache = read(&image).unwrap();
    assert_eq!(cache.layers[&own(1)].blob.packed, "zstd level 3");
    image.packed = Some("\n".to_owned());
    let error = read(&image).unwrap_err();
    assert!(
        error.to_string().contains("the words of an archive"),
        "{error}"
    );
    // A layer that the image does not have cannot be had.
    let none = Cache::decode(text.as_bytes(), Some(&Default::default())).unwrap();
    assert!(none.layers.is_empty());
}

/// Changes a good document, which must not be taken then.
fn check_refused(change: impl FnOnce(&mut serde_json::Value), expected: &str) {
    let mut value: serde_json::Value =
        serde_json::from_slice(&result(1, 900, 10).encode()).unwrap();
    change(&mut value);
    let error = Cache::decode(value.to_string().as_bytes(), None).unwrap_err();
    let words = crate::error::words(&error);
    assert!(words.contains(expected), "{words}");
}

#[test]
fn documents_that_lie_are_refused() {
    check_refused(|value| value["version"] = 1.into(), "it is of version 1");
    check_refused(
        |value| value["records"][0]["outputs"][0][0] = 7.into(),
        "names layer 7",
    );
    check_refused(
        |value| value["records"][0]["keys"][0] = "zz".into(),
        "`zz` is not a key",
    );
    check_refused(
        |value| value["records"][0]["keys"] = serde_json::json!([]),
        "too large",
    );
    check_refused(
        |value| value["records"][0]["op"] = 7.into(),
        "it is malformed",
    );
    check_refused(
        |value| value["layers"][0]["content"] = "md5:1".into(),
        "not a content id",
    );
    check_refused(
        |value| {
            let layer = value["layers"][1].clone();
            value["layers"].as_array_mut().unwrap().push(layer);
        },
        "twice",
    );
    check_refused(
        |value| value["layers"][1]["blob"]["compression"] = "rar".into(),
        "`rar` is not a compression",
    );
    for words in ["as pulled", "tar\nv0", &"x".repeat(300)] {
        check_refused(
            |value| value["layers"][1]["blob"]["archive"] = words.into(),
            "is not the words of an archive",
        );
    }
    check_refused(
        |value| value["layers"][1]["passing"] = "!".into(),
        "is not a list of directories",
    );
}

#[test]
fn no_bytes_make_the_reader_panic() {
    let good = result(1, 900, 10).encode();
    for cut in 0..good.len() {
        assert!(Cache::decode(&good[..cut], None).is_err());
    }
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x15;
        let _ = Cache::decode(&bytes, None);
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Cache::decode(deep.as_bytes(), None).is_err());
    let nested = format!("{{\"version\":0,\"layers\":[],\"records\":{deep}}}");
    assert!(Cache::decode(nested.as_bytes(), None).is_err());
}

#[test]
fn times_of_the_far_future_are_times() {
    let mut value: serde_json::Value =
        serde_json::from_slice(&result(1, 900, 10).encode()).unwrap();
    value["records"][0]["created"] = u64::MAX.into();
    value["records"][0]["took_us"] = u64::MAX.into();
    let cache = Cache::decode(value.to_string().as_bytes(), None).unwrap();
    assert_eq!(
        keys(&cache.merge(result(2, 900, 10), LIMITS, at(1500))),
        [1, 2]
    );
}

/// A document that is all lists of layers, more than its bytes would make anybody expect.
#[test]
fn documents_that_swell_are_refused() {
    check_refused(
        |value| value["records"][0]["outputs"][0] = vec![0u32; 4_000_001].into(),
        "too large",
    );
    check_refused(
        |value| value["records"][0]["parts"] = vec![0u8; 3 << 20].into(),
        "too many parts",
    );
    // A list of directories that unpacks to more than anybody has is not unpacked before it is needed.
    let mut cache = result(1, 900, 10);
    let bomb = zstd::bulk::compress(&vec![0; (64 << 20) + 1], 3).unwrap();
    cache.layers.get_mut(&own(1)).unwrap().passing = Some(bomb);
    let read = Cache::decode(&cache.encode(), None).unwrap();
    let error = read.layers[&own(1)].passing().unwrap_err();
    assert!(error.to_string().contains("is not a list of directories"));
}

/// A cache of so many results, of which each is on top of the one before.
fn many(count: u32) -> Cache {
    let mut all = Cache::default();
    let id = |n: u32, kind: u8| {
        let mut id = [kind; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        id
    };
    for n in 0..count {
        let Cache { records, layers } = result(1, 900, 10);
        let content = |n: u32| Content::Layer(LayerId(id(n, 1)));
        let below: Vec<Content> = (n / 40 * 40..=n).map(content).collect();
        all.records
            .extend(records.into_iter().map(|record| CachedRecord {
                keys: vec![Key(id(n, 2)), Key(id(n, 3))],
                outputs: vec![Some(below.clone())],
                ..record
            }));
        for mut layer in layers.into_values() {
            layer.blob.digest = Sha256Digest::from_bytes(id(n / 2, 4));
            layer.blob.size = 1;
            all.layers.insert(content(n), layer);
        }
    }
    all.in_order()
}

#[test]
fn a_merged_document_can_be_read() {
    let merged = merged(many(12_000), result(100, 1000, 10));
    // As many blobs as a manifest may list, and no more.
    assert!(merged.records.len() > 10_000, "{}", merged.records.len());
    let bytes = merged.encode();
    assert!(bytes.len() < 64 << 20, "{}", bytes.len());
    assert_eq!(Cache::decode(&bytes, None).unwrap(), merged);
}

#[test]
fn of_too_much_nobody_claims_more_than_may_stay() {
    let limits = Limits {
        bytes: 10_000,
        age: Duration::MAX,
    };
    let (older, newer) = (result(1, 900, 8_000), result(2, 1000, 8_000));
    let now = Cache::default().merge(newer.clone(), limits, at(1500));
    // The newer one took the room, as whoever wrote the older one has to accept.
    assert!(now.holds(&newer, limits) && now.holds(&older, limits));
    let before = Cache::default().merge(older.clone(), limits, at(1500));
    assert!(before.holds(&older, limits) && !before.holds(&newer, limits));
    assert!(!Cache::default().holds(&older, limits));
    // Together they are both.
    assert_eq!(keys(&now.and(before)), [1, 2]);
}
