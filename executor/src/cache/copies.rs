//! The names of one place: its own, and copies beside it.
//!
//! Registries replace whatever is there, and not every bucket refuses to: who writes may take away what
//! somebody else wrote after it was read. So a document lies under several names. Who writes puts
//! together what all of them say, and looks at each once more just before it is replaced; what is lost
//! under one name stands under the others, and comes back with whoever writes next. For a result to be
//! lost, as many builders as there are names must be held up at one time between looking and
//! writing, each at another name, until whoever exported it has looked at all names twice.
//!
//! The own name is written last: as long as it is not there, nothing is, and what copies say from
//! before somebody removed it counts for nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use kiln_oci::reference::Reference;

use super::document::{Cache, Limits};
use super::error::CacheError;
use super::place::{CachePlace, Held, Home, Way};
use crate::error::Error;

/// Names beside the own one.
const COPIES: usize = 2;

/// The names of a place, as one export uses them.
pub(super) struct Names {
    own: Home,
    copies: Vec<Home>,
    /// Versions of copies that are left from a cache that was removed, once that is known.
    void: Option<BTreeSet<String>>,
}

/// What lies under one name.
pub(super) struct Name {
    pub(super) home: Home,
    /// Nothing is there without one.
    pub(super) version: Option<String>,
    /// What it says; nothing if that is gone, too.
    says: Option<Arc<Cache>>,
    pub(super) is_own: bool,
}

/// What lies under all names of a place.
pub(super) struct Lying {
    /// What they say together.
    pub(super) cache: Cache,
    /// In the order in which they are written: the own one last.
    pub(super) names: Vec<Name>,
    /// What lay under the own name is gone.
    pub(super) is_damaged: bool,
}

impl Names {
    pub(super) fn of(home: &Home) -> Names {
        Names {
            own: home.clone(),
            copies: home.copies(),
            void: None,
        }
    }

    /// Reads all names, for somebody who is going to replace them.
    pub(super) async fn look(&mut self) -> Result<Lying, Error> {
        let own = match self.own.read_name().await {
            Err(Error::Cache(CacheError::Missing { .. })) => None,
            Err(Error::Cache(CacheError::Damaged { version, .. })) => Some((None, version)),
            Ok(held) if held.in_image => return Err(self.own.foreign("an image").into()),
            held => {
                let held = held?;
                Some((Some(Arc::new(held.cache)), held.version))
            }
        };
        let is_damaged = matches!(own, Some((None, _)));
        let (own, own_version) = own.unwrap_or_default();
        let versions = join_all(self.copies.iter().map(Home::version)).await;
        let mut copies = Vec::with_capacity(versions.len());
        for (home, version) in std::mem::take(&mut self.copies).into_iter().zip(versions) {
            match version {
                Ok(version) => copies.push((home, version)),
                Err(error) if is_refusal(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let void = self.void.get_or_insert_with(|| match own_version {
            Some(_) => BTreeSet::new(),
            None => copies.iter().filter_map(|(_, at)| at.clone()).collect(),
        });
        let mut cache = own.as_deref().cloned().unwrap_or_default();
        let mut names = Vec::with_capacity(copies.len() + 1);
        for (home, version) in copies {
            let is_void = |version: &String| void.contains(version);
            let (version, says) = match &version {
                Some(_) if version == own_version => (version, own.clone()),
                None => (None, None),
                Some(at) if is_void(at) => (version, None),
                Some(_) => match home.read_name().await {
                    Ok(held) if !held.in_image => {
                        cache = cache.and(held.cache.clone());
                        (held.version, Some(Arc::new(held.cache)))
                    }
                    Err(Error::Cache(CacheError::Missing { .. })) => (None, None),
                    Err(Error::Cache(CacheError::Damaged { version, .. })) => (version, None),
                    // Something else has this name: it is left alone.
                    Ok(_) => continue,
                    Err(error) if is_refusal(&error) => continue,
                    Err(error) => return Err(error),
                },
            };
            names.push(Name {
                home,
                version,
                says,
                is_own: false,
            });
        }
        self.copies = names.iter().map(|name| name.home.clone()).collect();
        names.push(Name {
            home: self.own.clone(),
            version: own_version,
            says: own,
            is_own: true,
        });
        Ok(Lying {
            cache,
            names,
            is_damaged,
        })
    }

    /// Goes on without copies, since the place takes none.
    pub(super) fn without_copies(&mut self) {
        self.copies.clear();
    }
}

impl Lying {
    /// Whether every name says just this.
    pub(super) fn all_say(&self, cache: &Cache) -> bool {
        let says = |name: &Name| name.says.as_deref() == Some(cache);
        self.names.iter().all(says)
    }

    /// Whether every name has these results, as far as the limits let them stay.
    pub(super) fn all_hold(&self, ours: &Cache, limits: Limits) -> bool {
        let holds = |name: &Name| {
            let says = name.says.as_deref();
            says.is_some_and(|says| says.holds(ours, limits))
        };
        self.names.iter().all(holds)
    }
}

impl Home {
    /// Reads the cache that lies there now, with what its copies have beside it. Copies that cannot be read
    /// are as good as none.
    pub(super) async fn read(&self) -> Result<Held, Error> {
        let (mut held, damage) = match self.read_name().await {
            Err(Error::Cache(CacheError::Damaged { place, version })) => {
                let held = Held {
                    cache: Cache::default(),
                    version: version.clone(),
                    in_image: false,
                };
                (held, Some(CacheError::Damaged { place, version }))
            }
            held => (held?, None),
        };
        if held.in_image {
            return Ok(held);
        }
        let copies = self.copies();
        let others = copies.iter().map(|copy| async {
            let version = copy.version().await.ok()??;
            if held.version.as_ref() == Some(&version) {
                return None;
            }
            let other = copy.read_name().await.ok()?;
            (!other.in_image).then_some(other.cache)
        });
        for other in join_all(others).await.into_iter().flatten() {
            held.cache = held.cache.and(other);
        }
        match damage {
            Some(damage) if held.cache.records.is_empty() => Err(damage.into()),
            _ => Ok(held),
        }
    }

    /// Where copies of what lies there are: other tags of a repository, other objects of a bucket.
    fn copies(&self) -> Vec<Home> {
        let copy = |number: usize| match (&self.way, &self.place) {
            (Way::Registry(client, reference), CachePlace::Registry { .. }) => {
                let copy = copy_of(reference, number)?;
                Some(Home {
                    place: CachePlace::Registry {
                        reference: copy.to_string(),
                    },
                    way: Way::Registry(client.clone(), Box::new(copy)),
                    seen: Arc::clone(&self.seen),
                })
            }
            (Way::S3(s3), CachePlace::S3(place)) => {
                let mut place = place.clone();
                place.name = format!("{}-kiln-{number}", place.name);
                Some(Home {
                    place: CachePlace::S3(place),
                    way: Way::S3(s3.clone()),
                    seen: Arc::clone(&self.seen),
                })
            }
            // Who writes to a directory has it locked.
            _ => None,
        };
        (1..=COPIES).filter_map(copy).collect()
    }
}

fn copy_of(reference: &Reference, number: usize) -> Option<Reference> {
    let tag = reference.tag().filter(|_| reference.digest().is_none())?;
    reference.with_tag(&format!("{tag}-kiln-{number}")).ok()
}

/// The tags beside that of a reference which have copies of what lies there.
pub(crate) fn copies_of(reference: &Reference) -> impl Iterator<Item = Reference> {
    (1..=COPIES).filter_map(|number| copy_of(reference, number))
}

/// Whether a name may not be used, or something else has it.
pub(crate) fn is_refusal(error: &Error) -> bool {
    use kiln_oci::registry::Error as Registry;
    use kiln_oci::s3::S3Error;
    match error {
        Error::Cache(CacheError::Foreign { .. } | CacheError::Document { .. }) => true,
        Error::Cache(CacheError::S3(error)) => matches!(error, S3Error::Denied { .. }),
        Error::Registry(error) => match error {
            Registry::Denied { .. } | Registry::Unauthorized { .. } => true,
            // Names that cannot be replaced, or are not such as are allowed there.
            Registry::Status { status, .. } => (400..500).contains(status),
            _ => false,
        },
        _ => false,
    }
}
