//! Records: filed, found, aliased, dropped and mourned.

use kiln_store::{Content, DiffId, Lineage, NewRecord, OpKey, StoreError};
use kiln_tree::LayerId;

use crate::fixture::{diff_layer, fixture, key, layer, record};

#[test]
fn a_record_is_found_by_each_key() {
    let f = fixture();
    let content = layer(&f.store, &f.lease, &[("a", "")]).content;
    let new = NewRecord {
        outputs: vec![Some(vec![content]), None, Some(vec![])],
        ..record(&[key(1), key(2)], &[])
    };
    let id = f.store.file_record(&f.lease, &new).unwrap();
    let found = f.store.find(&f.lease, &[key(2), key(3), key(1)]).unwrap();
    assert_eq!(found[1], None);
    assert_eq!(found[0], found[2]);
    let found = found[0].clone().unwrap();
    assert_eq!(found.id, id);
    assert_eq!(found.outputs, new.outputs);
    assert_eq!(found.parts, new.parts);
    assert_eq!((found.created, found.duration), (new.created, new.duration));
    assert_eq!(found.missing, []);
    assert!(f.store.has_op(&new.op).unwrap());
    assert!(!f.store.has_op(&OpKey([2; 32])).unwrap());
}

#[test]
fn a_record_needs_the_layers_that_steps_made() {
    let f = fixture();
    let gone = Content::Layer(LayerId([1; 32]));
    let error = f
        .store
        .file_record(&f.lease, &record(&[key(1)], &[gone]))
        .unwrap_err();
    assert!(matches!(error, StoreError::NoSuchLayer(content) if content == gone));
    assert_eq!(f.store.find(&f.lease, &[key(1)]).unwrap(), [None]);
}

#[test]
fn layers_of_images_may_be_elsewhere_and_are_told() {
    let f = fixture();
    let gone = Content::DiffId(DiffId([1; 32]));
    let there = diff_layer(&f.store, &f.lease, DiffId([2; 32]), "x");
    f.store
        .file_record(&f.lease, &record(&[key(1)], &[gone, there]))
        .unwrap();
    let found = f
        .store
        .find(&f.lease, &[key(1)])
        .unwrap()
        .remove(0)
        .unwrap();
    assert_eq!(found.missing, [gone]);
}

#[test]
fn a_newer_record_takes_keys_and_drops_who_has_none_left() {
    let f = fixture();
    let first = f
        .store
        .file_record(&f.lease, &record(&[key(1), key(2)], &[]))
        .unwrap();
    let second = f
        .store
        .file_record(&f.lease, &record(&[key(1)], &[]))
        .unwrap();
    let ids = |keys: &[_]| -> Vec<_> {
        let found = f.store.find(&f.lease, keys).unwrap();
        found
            .into_iter()
            .map(|record| record.map(|record| record.id))
            .collect()
    };
    assert_eq!(ids(&[key(1), key(2)]), [Some(second), Some(first)]);
    let third = f
        .store
        .file_record(&f.lease, &record(&[key(2)], &[]))
        .unwrap();
    assert_eq!(ids(&[key(1), key(2)]), [Some(second), Some(third)]);
    assert!(!f.store.alias(first, &key(9)).unwrap());
}

#[test]
fn an_alias_finds_the_same_record() {
    let f = fixture();
    let id = f
        .store
        .file_record(&f.lease, &record(&[key(1)], &[]))
        .unwrap();
    assert!(f.store.alias(id, &key(2)).unwrap());
    assert!(f.store.alias(id, &key(2)).unwrap());
    assert_eq!(
        f.store
            .find(&f.lease, &[key(2)])
            .unwrap()
            .remove(0)
            .unwrap()
            .id,
        id
    );
}

#[test]
fn a_dropped_record_leaves_a_mark_until_its_key_is_filed_again() {
    let f = fixture();
    let id = f
        .store
        .file_record(&f.lease, &record(&[key(1), key(2)], &[]))
        .unwrap();
    f.store.drop_record(id, "its layer is gone").unwrap();
    assert_eq!(f.store.find(&f.lease, &[key(1)]).unwrap(), [None]);
    let rules = |keys: &[_]| -> Vec<_> {
        let marks = f.store.tombstones(keys).unwrap();
        marks
            .into_iter()
            .map(|mark| mark.map(|mark| mark.rule))
            .collect()
    };
    let rule = Some("its layer is gone".to_owned());
    assert_eq!(
        rules(&[key(1), key(2), key(3)]),
        [rule.clone(), rule.clone(), None]
    );
    f.store
        .file_record(&f.lease, &record(&[key(1)], &[]))
        .unwrap();
    assert_eq!(rules(&[key(1), key(2)]), [None, rule]);
}

#[test]
fn the_nearest_is_the_latest_of_the_op_and_of_the_slot() {
    let f = fixture();
    let lineage = Lineage([5; 32]);
    let filed = |number: u8, op: u8, slot: Option<&str>| {
        let new = NewRecord {
            op: OpKey([op; 32]),
            slot: slot.map(|slot| (lineage, slot.to_owned())),
            ..record(&[key(number)], &[])
        };
        f.store.file_record(&f.lease, &new).unwrap()
    };
    filed(7, 1, Some("stage/3"));
    let before = filed(8, 1, Some("stage/3"));
    let in_slot = filed(1, 1, Some("stage/3"));
    let of_op = filed(2, 2, None);
    filed(3, 3, Some("stage/4"));
    let nearest = f
        .store
        .nearest(&OpKey([2; 32]), Some((&lineage, "stage/3")), 2)
        .unwrap();
    assert_eq!(nearest.by_op.unwrap().id, of_op);
    let ids: Vec<_> = nearest.by_slot.iter().map(|record| record.id).collect();
    assert_eq!(ids, [in_slot, before]);
    let slot = Some((lineage, "stage/3".to_owned()));
    assert_eq!(nearest.by_slot[0].slot, slot);
    let slots = f.store.slots(&[key(1), key(2), key(9)]).unwrap();
    assert_eq!(slots, [("stage/3".to_owned(), in_slot)]);
    assert_eq!(nearest.tombstone, None);

    f.store.drop_record(of_op, "first").unwrap();
    let in_slot = [filed(7, 4, None), filed(8, 4, None), in_slot];
    f.store.drop_record(in_slot[2], "second").unwrap();
    assert_eq!(f.store.record(in_slot[2]).unwrap(), None);
    let nearest = f
        .store
        .nearest(&OpKey([2; 32]), Some((&lineage, "stage/3")), 2)
        .unwrap();
    assert_eq!((nearest.by_op, nearest.by_slot), (None, Vec::new()));
    assert_eq!(nearest.tombstone.unwrap().rule, "second");
}

#[test]
fn many_tombstones_forget_the_oldest() {
    let f = fixture();
    let numbered = |number: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        kiln_store::Key(bytes)
    };
    let keys: Vec<_> = (0..10_050).map(numbered).collect();
    let id = f.store.file_record(&f.lease, &record(&keys, &[])).unwrap();
    f.store.drop_record(id, "all").unwrap();
    let marks = f.store.tombstones(&keys).unwrap();
    assert_eq!(marks.iter().filter(|mark| mark.is_some()).count(), 10_000);
}
