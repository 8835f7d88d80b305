//! Images, their names, and what was pulled under which reference.

use std::time::SystemTime;

use rusqlite::{OptionalExtension, Row, Transaction};

use crate::database::Abort;
use crate::leases::Leased;
use crate::records::{decode_outputs, encode_outputs};
use crate::store::{Store, millis, now, time};
use crate::{BlobDigest, Content, DiffId, ImageId, Lease, StoreError};

/// The shortest prefix of an id that can name an image.
const SHORTEST_PREFIX: usize = 4;

/// An image to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewImage {
    /// The digest of `config`.
    pub id: ImageId,
    /// The manifest's bytes as they are exported or were pulled.
    pub manifest: Vec<u8>,
    /// The config's bytes.
    pub config: Vec<u8>,
    /// Its layers, lowest first.
    pub layers: Vec<Content>,
    /// What its layers hold, in bytes.
    pub size_bytes: u64,
    /// The time that its config tells.
    pub created: SystemTime,
}

/// Images of several platforms to keep as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewIndex {
    /// The digest of `index`.
    pub id: ImageId,
    /// The index's bytes, which lists the manifests of the members.
    pub index: Vec<u8>,
    /// The images, which the store has already, in the order of the index.
    pub members: Vec<Member>,
}

/// One of the images that an image of several platforms is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Such as `linux/amd64`.
    pub platform: String,
    /// The image.
    pub id: ImageId,
    /// The manifest that it has here; another image may have the same config.
    pub manifest: Vec<u8>,
}

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The digest of `config`, or of the index where it has members.
    pub id: ImageId,
    /// The manifest's bytes as they are exported or were pulled, by the name that the image was asked for
    /// by, or the newest; an index where it has members.
    pub manifest: Vec<u8>,
    /// The config's bytes; none where it has members.
    pub config: Vec<u8>,
    /// Its layers, lowest first; none where it has members.
    pub layers: Vec<Content>,
    /// What its layers, or those of its members, hold, in bytes.
    pub size_bytes: u64,
    /// The time that its config, or the last one of its members, tells.
    pub created: SystemTime,
    /// When the store got it.
    pub added: SystemTime,
    /// The images that it is made of, if it is for several platforms.
    pub members: Vec<Member>,
}

impl Image {
    /// Whether it is for several platforms, of which none needs to be here.
    pub fn is_index(&self) -> bool {
        self.config.is_empty()
    }
}

/// An image and all its names; none for one that is untagged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedImage {
    /// The image.
    pub image: Image,
    /// Its references, sorted.
    pub names: Vec<String>,
    /// Whether it is part of an image of several platforms.
    pub is_member: bool,
}

/// What a registry said a reference is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The reference as it was asked for, normalised by the caller.
    pub reference: String,
    /// The platform that was chosen, such as `linux/amd64`.
    pub platform: String,
    /// The digest of the platform's manifest.
    pub manifest_digest: BlobDigest,
    /// The platform's manifest.
    pub manifest: Vec<u8>,
    /// The image config.
    pub config: Vec<u8>,
    /// The config's diff ids, lowest first; the store need not have these layers.
    pub diff_ids: Vec<DiffId>,
    /// When the registry said so.
    pub pulled_at: SystemTime,
}

impl Store {
    /// Keeps an image, leased; one that is there already has the new manifest, but where it is a part or
    /// has a name already: these keep the manifest that they were given.
    ///
    /// Errors if one of its layers is not in the store.
    pub fn put_image(&self, lease: &Lease, image: &NewImage) -> Result<(), StoreError> {
        let (process, time) = (self.process_id()?, now());
        self.database().write("add an image", |t| {
            for content in &image.layers {
                if !crate::records::layer_exists(t, content)? {
                    return Err(StoreError::NoSuchLayer(*content).into());
                }
            }
            let there = image_row(t, &image.id)?;
            if there.is_none() {
                let size = i64::try_from(image.size_bytes).unwrap_or(i64::MAX);
                t.prepare_cached(
                    "INSERT INTO image
                     (digest, manifest, config, layers, size_bytes, created, added, used, boot)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8)",
                )?
                .execute((
                    image.id.0,
                    &image.manifest,
                    &image.config,
                    encode_outputs(&[Some(image.layers.clone())]),
                    size,
                    millis(image.created),
                    time,
                    &self.inner.boot,
                ))?;
                let row = t.last_insert_rowid();
                let mut insert = t.prepare_cached(
                    "INSERT OR IGNORE INTO image_layer (content, image) VALUES (?1, ?2)",
                )?;
                for content in &image.layers {
                    insert.execute((content.to_bytes(), row))?;
                }
            } else {
                // The config is its id; annotations and how layers are packed are not in it.
                t.prepare_cached(
                    "UPDATE image SET manifest = ?2 WHERE digest = ?1 AND manifest <> ?2",
                )?
                .execute((image.id.0, &image.manifest))?;
            }
            lease.hold(t, process, Leased::Image, &image.id.0)?;
            Ok(())
        })
    }

    /// Keeps an image of several platforms, leased; one that is there already stays as it is.
    ///
    /// Errors if one of its members is not in the store, or has members itself.
    pub fn put_index(&self, lease: &Lease, index: &NewIndex) -> Result<(), StoreError> {
        let (process, time) = (self.process_id()?, now());
        self.database().write("add an image", |t| {
            if image_row(t, &index.id)?.is_none() {
                let mut rows = Vec::with_capacity(index.members.len());
                for member in &index.members {
                    let row = image_row(t, &member.id)?;
                    let row = row.ok_or_else(|| no_part(member))?;
                    if !members(t, row)?.is_empty() {
                        return Err(no_part(member).into());
                    }
                    rows.push((row, member));
                }
                // Two platforms may have one image; its layers are there once.
                let sums: (i64, i64) = t.query_row(
                    "SELECT coalesce(sum(size_bytes), 0), coalesce(max(created), 0) FROM image
                     WHERE id IN (SELECT value FROM json_each(?1))",
                    [ids(rows.iter().map(|(row, _)| *row))],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )?;
                t.prepare_cached(
                    "INSERT INTO image
                     (digest, manifest, config, layers, size_bytes, created, added, used, boot)
                     VALUES (?1, ?2, x'', ?3, ?4, ?5, ?6, ?6, ?7)",
                )?
                .execute((
                    index.id.0,
                    &index.index,
                    encode_outputs(&[Some(Vec::new())]),
                    sums.0,
                    sums.1,
                    time,
                    &self.inner.boot,
                ))?;
                let image = t.last_insert_rowid();
                let mut insert = t.prepare_cached(
                    "INSERT INTO image_member (image, place, member, platform, manifest)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?;
                for (place, (row, member)) in (0_i64..).zip(rows) {
                    insert.execute((image, place, row, &member.platform, &member.manifest))?;
                }
            }
            lease.hold(t, process, Leased::Image, &index.id.0)?;
            Ok(())
        })
    }

    /// Gives an image a name, taking it from whichever image had it; returns that one's id.
    ///
    /// By this name the image has `manifest`, or its index: two images may share a config, and differ in
    /// annotations or in how their layers are packed. Who loses its last tag so loses its names by digest too.
    pub fn tag(
        &self,
        id: &ImageId,
        manifest: &[u8],
        reference: &str,
    ) -> Result<Option<ImageId>, StoreError> {
        self.database().write("tag an image", |t| {
            let row = image_row(t, id)?.ok_or_else(|| StoreError::NoSuchImage {
                name: id.to_string(),
            })?;
            let before = named(t, reference)?;
            t.prepare_cached(
                "INSERT OR REPLACE INTO name (reference, image, manifest, tagged)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute((reference, row, manifest, now()))?;
            let before = before
                .map(|(before, _)| before)
                .filter(|before| before != id);
            if let Some(before) = &before {
                forget_digests(t, before, reference)?;
            }
            Ok(before)
        })
    }

    /// Gives an image a name by the digest that a registry knows it by, and the manifest that is meant; an image
    /// without a tag gets none, and the last tag takes these names with it.
    pub fn name_by_digest(
        &self,
        id: &ImageId,
        manifest: &[u8],
        reference: &str,
    ) -> Result<(), StoreError> {
        self.database().write("name an image by its digest", |t| {
            t.prepare_cached(
                "INSERT OR REPLACE INTO name (reference, image, manifest, tagged)
                 SELECT ?1, id, ?3, ?4 FROM image WHERE digest = ?2 AND EXISTS
                 (SELECT 1 FROM name WHERE image = image.id AND instr(reference, '@') = 0)",
            )?
            .execute((reference, id.0, manifest, now()))?;
            Ok(())
        })
    }

    /// Takes a name away; returns the image that had it, which may be left without any. Its names by digest go
    /// with its last tag.
    pub fn untag(&self, reference: &str) -> Result<ImageId, StoreError> {
        self.database().write("untag an image", |t| {
            let (id, _) = named(t, reference)?.ok_or_else(|| StoreError::NoSuchImage {
                name: reference.to_owned(),
            })?;
            t.execute("DELETE FROM name WHERE reference = ?1", [reference])?;
            forget_digests(t, &id, reference)?;
            Ok(id)
        })
    }

    /// Removes an image with all its names; its layers stay until they are swept.
    ///
    /// Its members go with it, but for those that have a name or are part of another image. Errors if
    /// it is part of another image itself.
    pub fn remove_image(&self, id: &ImageId) -> Result<(), StoreError> {
        self.database().write("remove an image", |t| {
            let row = image_row(t, id)?.ok_or_else(|| StoreError::NoSuchImage {
                name: id.to_string(),
            })?;
            if let Some(of) = index_of(t, row)? {
                return Err(StoreError::ImageOfIndex { id: *id, of }.into());
            }
            for member in delete_image(t, row)? {
                delete_image(t, member)?;
            }
            Ok(())
        })
    }

    /// Returns the image that `reference` names exactly, leased with its layers.
    pub fn image_by_name(
        &self,
        lease: &Lease,
        reference: &str,
    ) -> Result<Option<Image>, StoreError> {
        self.look_up(lease, |t| Ok(named(t, reference)?))
    }

    /// Returns the image that `name` stands for: a reference, a whole id, or the beginning of one.
    ///
    /// Leases it with its layers. A prefix has four hex digits or more, with or without `sha256:`;
    /// a reference goes before an id. The caller gives references normalised, and may try several.
    pub fn resolve_image(&self, lease: &Lease, name: &str) -> Result<Image, StoreError> {
        let found = self.look_up(lease, |t| by_name_or_id(t, name).map(Some))?;
        found.ok_or_else(|| StoreError::NoSuchImage {
            name: name.to_owned(),
        })
    }

    /// Returns the image that `name` stands for as [`Store::resolve_image`] does, without leasing
    /// anything: for looking at what is known of it.
    pub fn peek_image(&self, name: &str) -> Result<Image, StoreError> {
        self.database().snapshot("look up an image", |t| {
            let found = by_name_or_id(t, name)?;
            self.image(t, found)
        })
    }

    /// Returns an image that one for several platforms is made of, with the manifest that it has there,
    /// leased with its layers.
    pub fn member(&self, lease: &Lease, member: &Member) -> Result<Image, StoreError> {
        let found = self.look_up(lease, |t| part(t, member))?;
        found.ok_or_else(|| no_part(member))
    }

    /// Returns the same without leasing anything.
    pub fn peek_member(&self, member: &Member) -> Result<Image, StoreError> {
        self.database().snapshot("look up an image", |t| {
            let found = part(t, member)?.ok_or_else(|| no_part(member))?;
            self.image(t, found)
        })
    }

    /// Finds an image and leases it. What cannot be written to is swept by nobody either.
    fn look_up(
        &self,
        lease: &Lease,
        find: impl Fn(&Transaction<'_>) -> Result<Option<Found>, Abort>,
    ) -> Result<Option<Image>, StoreError> {
        const ACTION: &str = "look up an image";
        if self.is_read_only() {
            return self.database().snapshot(ACTION, |t| {
                let found = find(t)?;
                found.map(|found| self.image(t, found)).transpose()
            });
        }
        let process = self.process_id()?;
        self.database().write(ACTION, |t| {
            let found = find(t)?;
            found
                .map(|found| self.take_image(t, lease, process, found))
                .transpose()
        })
    }

    /// Lists all images, the newest first.
    pub fn images(&self) -> Result<Vec<NamedImage>, StoreError> {
        self.database().snapshot("list images", |t| {
            let mut query = t.prepare_cached(&select("ORDER BY added DESC, id DESC"))?;
            let rows: Vec<RawImage> = query.query_map([], raw)?.collect::<Result<_, _>>()?;
            let mut names =
                t.prepare_cached("SELECT reference FROM name WHERE image = ?1 ORDER BY reference")?;
            let mut images = Vec::with_capacity(rows.len());
            for row in rows {
                let names = names
                    .query_map([row.row], |row| row.get(0))?
                    .collect::<Result<_, _>>()?;
                images.push(NamedImage {
                    names,
                    is_member: index_of(t, row.row)?.is_some(),
                    image: row.complete(self, t)?,
                });
            }
            Ok(images)
        })
    }

    /// Remembers what a registry said, in place of what it said before.
    pub fn put_pulled(&self, pulled: &Pulled) -> Result<(), StoreError> {
        let layers = Content::of_image(&pulled.diff_ids);
        self.database().write("remember a pull", |t| {
            t.execute(
                "DELETE FROM pulled_layer WHERE pulled =
                 (SELECT id FROM pulled WHERE reference = ?1 AND platform = ?2)",
                (&pulled.reference, &pulled.platform),
            )?;
            t.execute(
                "INSERT OR REPLACE INTO pulled (reference, platform, manifest_digest, manifest,
                 config, diff_ids, pulled, used) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                (
                    &pulled.reference,
                    &pulled.platform,
                    pulled.manifest_digest.0,
                    &pulled.manifest,
                    &pulled.config,
                    encode_outputs(&[Some(layers.clone())]),
                    millis(pulled.pulled_at),
                    now(),
                ),
            )?;
            let id = t.last_insert_rowid();
            for content in layers {
                t.prepare_cached(
                    "INSERT OR IGNORE INTO pulled_layer (content, pulled) VALUES (?1, ?2)",
                )?
                .execute((content.to_bytes(), id))?;
            }
            Ok(())
        })
    }

    /// Returns what a registry last said about `reference`, leasing those layers that are there.
    pub fn pulled(
        &self,
        lease: &Lease,
        reference: &str,
        platform: &str,
    ) -> Result<Option<Pulled>, StoreError> {
        let known = self.database().read("look up a pull", |c| {
            c.prepare_cached("SELECT 1 FROM pulled WHERE reference = ?1 AND platform = ?2")?
                .exists((reference, platform))
        })?;
        if !known {
            return Ok(None);
        }
        if self.is_read_only() {
            return self
                .database()
                .snapshot("look up a pull", |t| self.pull(t, reference, platform));
        }
        let process = self.process_id()?;
        self.database().write("look up a pull", |t| {
            t.prepare_cached("UPDATE pulled SET used = ?3 WHERE reference = ?1 AND platform = ?2")?
                .execute((reference, platform, now()))?;
            let pulled = self.pull(t, reference, platform)?;
            for id in pulled.iter().flat_map(|pulled| &pulled.diff_ids) {
                let content = Content::DiffId(*id);
                if crate::records::layer_exists(t, &content)? {
                    lease.hold(t, process, Leased::Layer, &content.to_bytes())?;
                }
            }
            Ok(pulled)
        })
    }

    fn pull(
        &self,
        t: &Transaction<'_>,
        reference: &str,
        platform: &str,
    ) -> Result<Option<Pulled>, Abort> {
        let row = t
            .prepare_cached(
                "SELECT manifest_digest, manifest, config, diff_ids, pulled FROM pulled
                     WHERE reference = ?1 AND platform = ?2",
            )?
            .query_row((reference, platform), |row| {
                let pulled: (_, _, _, Vec<u8>, i64) = (
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                );
                Ok(pulled)
            })
            .optional()?;
        let Some((manifest_digest, manifest, config, layers, pulled)) = row else {
            return Ok(None);
        };
        let mut diff_ids = Vec::new();
        for content in self.layer_list(&layers)? {
            let Content::DiffId(id) = content else {
                continue;
            };
            diff_ids.push(id);
        }
        Ok(Some(Pulled {
            reference: reference.to_owned(),
            platform: platform.to_owned(),
            manifest_digest: BlobDigest(manifest_digest),
            manifest,
            config,
            diff_ids,
            pulled_at: time(pulled),
        }))
    }

    fn take_image(
        &self,
        t: &Transaction<'_>,
        lease: &Lease,
        process: &str,
        found: Found,
    ) -> Result<Image, Abort> {
        let id = found.0;
        t.prepare_cached("UPDATE image SET used = ?2 WHERE digest = ?1")?
            .execute((id.0, now()))?;
        let image = self.image(t, found)?;
        lease.hold(t, process, Leased::Image, &id.0)?;
        for content in &image.layers {
            lease.hold(t, process, Leased::Layer, &content.to_bytes())?;
        }
        // Members have none of their own.
        for member in &image.members {
            self.take_image(t, lease, process, (member.id, None))?;
        }
        Ok(image)
    }

    fn image(&self, t: &Transaction<'_>, (id, manifest): Found) -> Result<Image, Abort> {
        let mut row = t
            .prepare_cached(&select("WHERE digest = ?1"))?
            .query_row([id.0], raw)?;
        if let Some(manifest) = manifest {
            row.manifest = manifest;
        }
        row.complete(self, t)
    }

    fn layer_list(&self, bytes: &[u8]) -> Result<Vec<Content>, StoreError> {
        match decode_outputs(bytes).as_deref() {
            Some([Some(layers)]) => Ok(layers.clone()),
            _ => Err(StoreError::Damaged {
                what: "list of layers of an image",
                path: self.root().to_owned(),
            }),
        }
    }
}

struct RawImage {
    row: i64,
    digest: [u8; 32],
    manifest: Vec<u8>,
    config: Vec<u8>,
    layers: Vec<u8>,
    size_bytes: i64,
    created: i64,
    added: i64,
}

impl RawImage {
    fn complete(self, store: &Store, t: &Transaction<'_>) -> Result<Image, Abort> {
        Ok(Image {
            members: members(t, self.row)?,
            id: ImageId(self.digest),
            manifest: self.manifest,
            config: self.config,
            layers: store.layer_list(&self.layers)?,
            size_bytes: self.size_bytes.unsigned_abs(),
            created: time(self.created),
            added: time(self.added),
        })
    }
}

fn select(rest: &str) -> String {
    format!(
        "SELECT id, digest, manifest, config, layers, size_bytes, created, added FROM image {rest}"
    )
}

fn raw(row: &Row<'_>) -> rusqlite::Result<RawImage> {
    Ok(RawImage {
        row: row.get(0)?,
        digest: row.get(1)?,
        manifest: row.get(2)?,
        config: row.get(3)?,
        layers: row.get(4)?,
        size_bytes: row.get(5)?,
        created: row.get(6)?,
        added: row.get(7)?,
    })
}

pub(crate) fn image_row(t: &Transaction<'_>, id: &ImageId) -> rusqlite::Result<Option<i64>> {
    t.prepare_cached("SELECT id FROM image WHERE digest = ?1")?
        .query_row([id.0], |row| row.get(0))
        .optional()
}

/// An image, and the manifest that it has where it was found; none for its newest.
type Found = (ImageId, Option<Vec<u8>>);

fn named(t: &Transaction<'_>, reference: &str) -> rusqlite::Result<Option<Found>> {
    t.prepare_cached(
        "SELECT i.digest, n.manifest FROM name n JOIN image i ON i.id = n.image
         WHERE n.reference = ?1",
    )?
    .query_row([reference], |row| {
        Ok((ImageId(row.get(0)?), Some(row.get(1)?)))
    })
    .optional()
}

/// Takes an image's names by digest away, if `lost` was the last tag that it had.
fn forget_digests(t: &Transaction<'_>, id: &ImageId, lost: &str) -> rusqlite::Result<()> {
    if lost.contains('@') {
        return Ok(());
    }
    t.prepare_cached(
        "DELETE FROM name WHERE image = (SELECT id FROM image WHERE digest = ?1) AND NOT EXISTS
         (SELECT 1 FROM name AS tag WHERE tag.image = name.image AND instr(tag.reference, '@') = 0)",
    )?
    .execute([id.0])?;
    Ok(())
}

fn by_name_or_id(t: &Transaction<'_>, name: &str) -> Result<Found, Abort> {
    match named(t, name)? {
        Some(found) => Ok(found),
        None => Ok((by_prefix(t, name)?, None)),
    }
}

fn part(t: &Transaction<'_>, member: &Member) -> Result<Option<Found>, Abort> {
    let row = image_row(t, &member.id)?;
    Ok(row.map(|_| (member.id, Some(member.manifest.clone()))))
}

fn no_part(member: &Member) -> StoreError {
    StoreError::NoSuchImage {
        name: member.id.to_string(),
    }
}

fn by_prefix(t: &Transaction<'_>, name: &str) -> Result<ImageId, Abort> {
    let none = || StoreError::NoSuchImage {
        name: name.to_owned(),
    };
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    let hex = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if !(SHORTEST_PREFIX..=64).contains(&digits.len()) || !digits.bytes().all(hex) {
        return Err(none().into());
    }
    let matches: Vec<ImageId> = t
        .prepare_cached(
            "SELECT digest FROM image WHERE substr(lower(hex(digest)), 1, length(?1)) = ?1
             ORDER BY digest",
        )?
        .query_map([digits], |row| row.get(0).map(ImageId))?
        .collect::<Result<_, _>>()?;
    match matches.as_slice() {
        [] => Err(none().into()),
        [id] => Ok(*id),
        several => {
            let matches = several.iter().map(ImageId::to_string).collect();
            Err(StoreError::AmbiguousImage {
                prefix: name.to_owned(),
                matches,
            }
            .into())
        }
    }
}

/// The images that an image of several platforms is made of.
fn members(t: &Transaction<'_>, row: i64) -> rusqlite::Result<Vec<Member>> {
    t.prepare_cached(
        "SELECT m.platform, i.digest, m.manifest FROM image_member m
         JOIN image i ON i.id = m.member WHERE m.image = ?1 ORDER BY m.place",
    )?
    .query_map([row], |row| {
        Ok(Member {
            platform: row.get(0)?,
            id: ImageId(row.get(1)?),
            manifest: row.get(2)?,
        })
    })?
    .collect()
}

/// An image that this one is part of.
fn index_of(t: &Transaction<'_>, row: i64) -> rusqlite::Result<Option<ImageId>> {
    t.prepare_cached(
        "SELECT i.digest FROM image_member m JOIN image i ON i.id = m.image
         WHERE m.member = ?1 ORDER BY i.id LIMIT 1",
    )?
    .query_row([row], |row| row.get(0).map(ImageId))
    .optional()
}

/// Row ids as `json_each` reads them.
fn ids(rows: impl Iterator<Item = i64>) -> String {
    let rows: Vec<String> = rows.map(|row| row.to_string()).collect();
    format!("[{}]", rows.join(","))
}

/// Deletes an image with its names; returns its members that nothing else keeps, which are to go too.
pub(crate) fn delete_image(t: &Transaction<'_>, row: i64) -> rusqlite::Result<Vec<i64>> {
    let members: Vec<i64> = t
        .prepare_cached("SELECT DISTINCT member FROM image_member WHERE image = ?1")?
        .query_map([row], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for sql in [
        "DELETE FROM image_member WHERE image = ?1",
        "DELETE FROM attestation WHERE image = ?1",
        "DELETE FROM name WHERE image = ?1",
        "DELETE FROM image_layer WHERE image = ?1",
        "DELETE FROM image_blob WHERE image = ?1",
        "DELETE FROM image WHERE id = ?1",
    ] {
        t.prepare_cached(sql)?.execute([row])?;
    }
    let mut unkept = t.prepare_cached(
        "SELECT 1 FROM image WHERE id = ?1 AND id NOT IN (SELECT image FROM name)
         AND id NOT IN (SELECT member FROM image_member)",
    )?;
    let mut left = Vec::new();
    for member in members {
        if unkept.exists([member])? {
            left.push(member);
        }
    }
    Ok(left)
}

/// Whether a process has a use for an image.
pub(crate) fn is_leased(t: &Transaction<'_>, row: i64) -> rusqlite::Result<bool> {
    t.prepare_cached(
        "SELECT 1 FROM lease WHERE kind = ?2 AND object = (SELECT digest FROM image WHERE id = ?1)",
    )?
    .exists((row, Leased::Image as i64))
}
