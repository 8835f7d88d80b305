//! What refers to a manifest: the referrers API (distribution-spec, "Listing Referrers"), and the tag that
//! stands for it at registries without one.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, LINK};
use url::Url;

use super::endpoint::Endpoint;
use super::error::Error;
use super::pull::pull_scope;
use super::transport::{Call, Target};
use super::{Client, attempt};
use crate::digest::Sha256Digest;
use crate::document::{Descriptor, DocumentError, Index, MANIFEST_LIMIT_BYTES, Root};
use crate::media_type::{Flavor, OCI_INDEX};
use crate::reference::Reference;

/// The most pages of a list that are read.
const MOST_PAGES: usize = 50;
/// How often a list is written anew that somebody else wrote at the same time.
const TRIES: usize = 10;
/// After a list was written, the least time until it is read again, and as much again at random. Somebody else takes
/// less from reading it to writing it.
const SETTLING: Duration = Duration::from_millis(200);

impl Client {
    /// Lists what refers to a manifest of a repository, whoever says so: the registry, or the tag that
    /// clients write where it does not.
    pub async fn referrers(
        &self,
        repository: &Reference,
        subject: Sha256Digest,
    ) -> Result<Vec<Descriptor>, Error> {
        match self.listed(repository, subject).await {
            Err(Error::NotFound { .. }) => {}
            listed => return listed,
        }
        let index = self.tagged(repository, subject).await?;
        Ok(index.map_or(Vec::new(), |index| index.manifests))
    }

    /// Adds a manifest to the list that a tag holds of what refers to `subject`, for a registry that did not
    /// say that it does so itself.
    pub async fn list_referrer(
        &self,
        repository: &Reference,
        subject: Sha256Digest,
        entry: &Descriptor,
    ) -> Result<(), Error> {
        let tag = repository.with_tag(&fallback_tag(subject)).map_err(|_| {
            let host = repository.registry_host();
            Error::Protocol {
                attempt: attempt("list the referrers of", &repository.at(subject), host),
                what: format!("`{subject}` makes no tag"),
            }
        })?;
        for _ in 0..TRIES {
            let known = self.tagged(repository, subject).await?;
            let mut index = known.unwrap_or_else(|| Index::new(Flavor::Oci, Vec::new()));
            if index
                .manifests
                .iter()
                .any(|known| known.digest == entry.digest)
            {
                return Ok(());
            }
            index.manifests.push(entry.clone());
            let bytes = Bytes::from(index.to_bytes());
            self.push_manifest(&tag, OCI_INDEX, bytes).await?;
            // Who read it before may replace it a moment later.
            let more = RandomState::new().hash_one(entry.digest) % 1024;
            tokio::time::sleep(SETTLING + SETTLING.mul_f64(more as f64 / 1024.0)).await;
        }
        match self.tagged(repository, subject).await? {
            Some(index)
                if index
                    .manifests
                    .iter()
                    .any(|known| known.digest == entry.digest) =>
            {
                Ok(())
            }
            _ => {
                let host = repository.registry_host();
                Err(Error::Protocol {
                    attempt: attempt("list the referrers of", &repository.at(subject), host),
                    what: "the list was replaced by somebody else each time".to_owned(),
                })
            }
        }
    }

    /// The registry's own list; an error `NotFound` where it has no such API.
    async fn listed(
        &self,
        repository: &Reference,
        subject: Sha256Digest,
    ) -> Result<Vec<Descriptor>, Error> {
        let path = format!("{}/referrers/{subject}", repository.repository());
        let mut found = Vec::new();
        let page = |bytes: &[u8]| {
            found.extend(Index::from_slice(bytes)?.manifests);
            Ok(())
        };
        let subject = repository.at(subject);
        self.pages("list the referrers of", &subject, &path, OCI_INDEX, page)
            .await?;
        Ok(found)
    }

    /// Reads a list of a repository page by page, from the registry itself.
    pub(super) async fn pages(
        &self,
        action: &'static str,
        repository: &Reference,
        path: &str,
        accept: &'static str,
        mut take: impl FnMut(&[u8]) -> Result<(), DocumentError>,
    ) -> Result<(), Error> {
        let endpoint = Endpoint::origin(self.transport().config(), repository.domain());
        let attempt = attempt(action, repository, &endpoint.authority);
        let scopes = pull_scope(&endpoint, repository);
        let mut next: Option<Url> = None;
        for _ in 0..MOST_PAGES {
            let mut call = Call::to_path(&attempt, &endpoint, &scopes, path);
            if let Some(url) = &next {
                call.target = Target::Url(url);
            }
            let make = |client: &reqwest::Client, url| client.get(url).header(ACCEPT, accept);
            let response = self.transport().send(&call, make).await?;
            let link = response
                .headers()
                .get(LINK)
                .and_then(|link| link.to_str().ok());
            let link = link.and_then(next_page).map(str::to_owned);
            let more = link.and_then(|link| response.url().join(&link).ok());
            let bytes = self
                .transport()
                .read_bounded(&attempt, response, MANIFEST_LIMIT_BYTES)
                .await?;
            take(&bytes).map_err(|source| Error::Document {
                attempt: attempt.clone(),
                source: source.into(),
            })?;
            match more {
                Some(url) => next = Some(url),
                None => break,
            }
        }
        Ok(())
    }

    /// The list that clients keep under a tag; none if there is none.
    async fn tagged(
        &self,
        repository: &Reference,
        subject: Sha256Digest,
    ) -> Result<Option<Index>, Error> {
        let Ok(tag) = repository.with_tag(&fallback_tag(subject)) else {
            return Ok(None);
        };
        match self.manifest(&tag).await {
            Ok(manifest) => match manifest.root {
                Root::Index(index) => Ok(Some(index)),
                Root::Manifest(_) => Ok(None),
            },
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The tag that stands for the API.
fn fallback_tag(subject: Sha256Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// The address of the next page (RFC 8288).
fn next_page(link: &str) -> Option<&str> {
    let (address, parameters) = link.strip_prefix('<')?.split_once('>')?;
    parameters
        .replace('"', "")
        .contains("rel=next")
        .then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let check = |link: &str, expected: Option<&str>| assert_eq!(next_page(link), expected);
        check(
            "</v2/a/referrers/x?n=2>; rel=\"next\"",
            Some("/v2/a/referrers/x?n=2"),
        );
        check("<x>; rel=prev", None);
        check("nonsense", None);
    }
}
