//! The tags of a repository (distribution-spec, "Listing Tags").

use serde::Deserialize;

use super::Client;
use super::error::Error;
use crate::document::DocumentError;
use crate::reference::Reference;

#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

impl Client {
    /// Lists the names that a repository has by tags, as the registry itself says; without the lists of referrers
    /// that clients keep under tags.
    pub async fn tags(&self, repository: &Reference) -> Result<Vec<Reference>, Error> {
        let path = format!("{}/tags/list", repository.repository());
        let mut found = Vec::new();
        let page = |bytes: &[u8]| {
            let page: Page =
                serde_json::from_slice(bytes).map_err(|source| DocumentError::Json {
                    what: "the list of tags",
                    source,
                })?;
            let tags = page.tags.unwrap_or_default();
            let tags = tags.iter().filter(|tag| !tag.starts_with("sha256-"));
            found.extend(tags.filter_map(|tag| repository.with_tag(tag).ok()));
            Ok(())
        };
        self.pages(
            "list the tags of",
            repository,
            &path,
            "application/json",
            page,
        )
        .await?;
        Ok(found)
    }
}
