//! The SQL of the database, as docs/formats/store.md explains it.

/// The version that [`SQL`] makes, in `PRAGMA user_version`.
pub(crate) const VERSION: i64 = 6;

/// What turns a database of a version into one of the next, by that version.
pub(crate) const UPGRADES: [(i64, &str); 5] = [
    (
        1,
        "
CREATE TABLE image_member (
    image    INTEGER NOT NULL,
    place    INTEGER NOT NULL,
    member   INTEGER NOT NULL,
    platform TEXT NOT NULL,
    PRIMARY KEY (image, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_member_member ON image_member (member);
",
    ),
    (
        2,
        "
CREATE TABLE build_detail (
    build   INTEGER PRIMARY KEY,
    details BLOB NOT NULL,
    plan    BLOB NOT NULL
) STRICT;

CREATE TABLE build_log (
    build INTEGER NOT NULL,
    step  INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    head  BLOB NOT NULL,
    tail  BLOB NOT NULL,
    PRIMARY KEY (build, step)
) STRICT;
",
    ),
    (
        3,
        "
CREATE TABLE image_blob (
    image INTEGER NOT NULL,
    blob  BLOB NOT NULL,
    PRIMARY KEY (image, blob)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_blob_blob ON image_blob (blob);

CREATE TABLE blob_place (
    blob       BLOB NOT NULL,
    repository TEXT NOT NULL,
    seen       INTEGER NOT NULL,
    PRIMARY KEY (blob, repository)
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_place_seen ON blob_place (seen);
",
    ),
    (
        4,
        "
CREATE TABLE attestation (
    image          INTEGER NOT NULL,
    place          INTEGER NOT NULL,
    member         INTEGER NOT NULL,
    predicate_type TEXT NOT NULL,
    predicate      BLOB NOT NULL,
    PRIMARY KEY (image, place)
) STRICT;
",
    ),
    (
        5,
        "
ALTER TABLE name ADD COLUMN manifest BLOB NOT NULL DEFAULT x'';
UPDATE name SET manifest = coalesce((SELECT manifest FROM image WHERE id = name.image), x'');

ALTER TABLE image_member ADD COLUMN manifest BLOB NOT NULL DEFAULT x'';
UPDATE image_member SET manifest =
    coalesce((SELECT manifest FROM image WHERE id = image_member.member), x'');
",
    ),
];

/// Makes an empty database of [`VERSION`].
///
/// Times are milliseconds since the epoch, durations microseconds. `boot` is the id of the boot
/// that wrote the row until one `syncfs` covered what it stands for, and NULL from then on. Ids
/// grow and are never used again, so that "everything up to id N" is a moment.
pub(crate) const SQL: &str = "
CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE layer (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    content    BLOB NOT NULL UNIQUE,
    size_bytes INTEGER NOT NULL,
    files      INTEGER NOT NULL,
    created    INTEGER NOT NULL,
    used       INTEGER NOT NULL,
    boot       TEXT
) STRICT;
CREATE INDEX layer_boot ON layer (boot) WHERE boot IS NOT NULL;

CREATE TABLE blob (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    digest     BLOB NOT NULL UNIQUE,
    size_bytes INTEGER NOT NULL,
    created    INTEGER NOT NULL,
    used       INTEGER NOT NULL,
    boot       TEXT
) STRICT;
CREATE INDEX blob_boot ON blob (boot) WHERE boot IS NOT NULL;

CREATE TABLE record (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    op       BLOB NOT NULL,
    lineage  BLOB,
    slot     TEXT,
    outputs  BLOB NOT NULL,
    parts    BLOB NOT NULL,
    created  INTEGER NOT NULL,
    used     INTEGER NOT NULL,
    duration INTEGER NOT NULL,
    boot     TEXT
) STRICT;
CREATE INDEX record_op ON record (op, id);
CREATE INDEX record_slot ON record (lineage, slot, id) WHERE lineage IS NOT NULL;
CREATE INDEX record_used ON record (used);
CREATE INDEX record_boot ON record (boot) WHERE boot IS NOT NULL;

CREATE TABLE record_key (
    key    BLOB NOT NULL PRIMARY KEY,
    record INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX record_key_record ON record_key (record);

CREATE TABLE record_layer (
    content BLOB NOT NULL,
    record  INTEGER NOT NULL,
    PRIMARY KEY (content, record)
) STRICT, WITHOUT ROWID;
CREATE INDEX record_layer_record ON record_layer (record);

CREATE TABLE tombstone (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    key     BLOB NOT NULL UNIQUE,
    op      BLOB NOT NULL,
    lineage BLOB,
    slot    TEXT,
    rule    TEXT NOT NULL,
    time    INTEGER NOT NULL
) STRICT;
CREATE INDEX tombstone_op ON tombstone (op, id);
CREATE INDEX tombstone_slot ON tombstone (lineage, slot, id) WHERE lineage IS NOT NULL;

CREATE TABLE lease (
    kind    INTEGER NOT NULL,
    object  BLOB NOT NULL,
    process TEXT NOT NULL,
    scope   INTEGER NOT NULL,
    PRIMARY KEY (kind, object, process, scope)
) STRICT, WITHOUT ROWID;
CREATE INDEX lease_scope ON lease (process, scope);

CREATE TABLE image (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    digest     BLOB NOT NULL UNIQUE,
    manifest   BLOB NOT NULL,
    config     BLOB NOT NULL,
    layers     BLOB NOT NULL,
    size_bytes INTEGER NOT NULL,
    created    INTEGER NOT NULL,
    added      INTEGER NOT NULL,
    used       INTEGER NOT NULL,
    boot       TEXT
) STRICT;
CREATE INDEX image_boot ON image (boot) WHERE boot IS NOT NULL;

CREATE TABLE image_layer (
    content BLOB NOT NULL,
    image   INTEGER NOT NULL,
    PRIMARY KEY (content, image)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layer_image ON image_layer (image);

CREATE TABLE image_member (
    image    INTEGER NOT NULL,
    place    INTEGER NOT NULL,
    member   INTEGER NOT NULL,
    platform TEXT NOT NULL, manifest BLOB NOT NULL DEFAULT x'',
    PRIMARY KEY (image, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_member_member ON image_member (member);

CREATE TABLE image_blob (
    image INTEGER NOT NULL,
    blob  BLOB NOT NULL,
    PRIMARY KEY (image, blob)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_blob_blob ON image_blob (blob);

CREATE TABLE blob_place (
    blob       BLOB NOT NULL,
    repository TEXT NOT NULL,
    seen       INTEGER NOT NULL,
    PRIMARY KEY (blob, repository)
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_place_seen ON blob_place (seen);

CREATE TABLE attestation (
    image          INTEGER NOT NULL,
    place          INTEGER NOT NULL,
    member         INTEGER NOT NULL,
    predicate_type TEXT NOT NULL,
    predicate      BLOB NOT NULL,
    PRIMARY KEY (image, place)
) STRICT;

CREATE TABLE name (
    reference TEXT NOT NULL PRIMARY KEY,
    image     INTEGER NOT NULL,
    tagged    INTEGER NOT NULL
, manifest BLOB NOT NULL DEFAULT x'') STRICT, WITHOUT ROWID;
CREATE INDEX name_image ON name (image);

CREATE TABLE pulled (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    reference       TEXT NOT NULL,
    platform        TEXT NOT NULL,
    manifest_digest BLOB NOT NULL,
    manifest        BLOB NOT NULL,
    config          BLOB NOT NULL,
    diff_ids        BLOB NOT NULL,
    pulled          INTEGER NOT NULL,
    used            INTEGER NOT NULL,
    UNIQUE (reference, platform)
) STRICT;

CREATE TABLE pulled_layer (
    content BLOB NOT NULL,
    pulled  INTEGER NOT NULL,
    PRIMARY KEY (content, pulled)
) STRICT, WITHOUT ROWID;
CREATE INDEX pulled_layer_pulled ON pulled_layer (pulled);

CREATE TABLE compressed (
    content     BLOB NOT NULL,
    options     TEXT NOT NULL,
    compression TEXT NOT NULL,
    blob        BLOB NOT NULL,
    PRIMARY KEY (content, options, compression)
) STRICT, WITHOUT ROWID;
CREATE INDEX compressed_blob ON compressed (blob);

CREATE TABLE diff_id (
    content BLOB NOT NULL,
    options TEXT NOT NULL,
    diff_id BLOB NOT NULL,
    PRIMARY KEY (content, options)
) STRICT, WITHOUT ROWID;

CREATE TABLE fold (
    layers  BLOB NOT NULL PRIMARY KEY,
    content BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX fold_content ON fold (content);

CREATE TABLE build (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,
    started    INTEGER NOT NULL,
    duration   INTEGER NOT NULL,
    context    TEXT NOT NULL,
    dockerfile TEXT NOT NULL,
    target     TEXT NOT NULL,
    tags       TEXT NOT NULL,
    result     TEXT NOT NULL,
    steps      BLOB NOT NULL
) STRICT;

CREATE TABLE build_detail (
    build   INTEGER PRIMARY KEY,
    details BLOB NOT NULL,
    plan    BLOB NOT NULL
) STRICT;

CREATE TABLE build_log (
    build INTEGER NOT NULL,
    step  INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    head  BLOB NOT NULL,
    tail  BLOB NOT NULL,
    PRIMARY KEY (build, step)
) STRICT;

CREATE TABLE tree (
    digest BLOB NOT NULL PRIMARY KEY,
    bytes  BLOB NOT NULL,
    used   INTEGER NOT NULL
) STRICT;
CREATE INDEX tree_used ON tree (used);

CREATE TABLE cache_mount (
    id       TEXT NOT NULL,
    instance INTEGER NOT NULL,
    created  INTEGER NOT NULL,
    used     INTEGER NOT NULL,
    PRIMARY KEY (id, instance)
) STRICT, WITHOUT ROWID;
";

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::{Store, StoreOptions};

    #[test]
    fn the_schema_is_that_of_its_version() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
        let schema = store.database().dump_schema().join(";\n");
        insta::assert_snapshot!("schema_v6", schema);
    }

    /// The lines of SQL that would make a database, sorted.
    fn lines(connection: &Connection) -> Vec<String> {
        let sql = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL
                   AND name NOT LIKE 'sqlite_%' ORDER BY name";
        let mut query = connection.prepare(sql).unwrap();
        let rows = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.map(|line| line.unwrap().trim_end().to_owned())
            .collect()
    }

    #[test]
    fn an_upgraded_database_is_as_a_new_one() {
        let new = Connection::open_in_memory().unwrap();
        new.execute_batch(SQL).unwrap();
        let old = Connection::open_in_memory().unwrap();
        let first = include_str!("snapshots/kiln_store__schema__tests__schema_v1.snap");
        let (_, first) = first.trim_start_matches("---").split_once("---").unwrap();
        old.execute_batch(first).unwrap();
        for (_, upgrade) in UPGRADES {
            old.execute_batch(upgrade).unwrap();
        }
        assert_eq!(lines(&old), lines(&new));
    }
}
