//! SBOMs of results, and of what is scanned beside them.

use kiln_store::Content;

use super::Run;
use super::image::Image;
use crate::attestation::Predicate;
use crate::error::Error;
use crate::sbom::{BESIDE, Inventory, Purpose, SPDX_PREDICATE, Subject, document};
use crate::sboms;
use crate::worker::{BuildWorker, Handle, Tree};

/// Something that went into a result, to be scanned for the software in it.
#[derive(Debug, Clone)]
pub struct ScanToExport {
    /// What it is called: `context`, or the name of a stage.
    pub name: String,
    /// Its files; none is an empty file system.
    pub handle: Option<Handle>,
    /// It is what was built from, not what something runs on.
    pub is_source: bool,
}

impl BuildWorker {
    /// A directory of the caller after its ignore rules, as it was when this build first looked at it.
    pub async fn context_handle(&self, name: &str, exclude: &[String]) -> Result<Handle, Error> {
        Ok(Handle(Tree::Context(self.scanned(name, exclude).await?)))
    }
}

impl Run<'_> {
    /// Looks for the software in what is scanned beside the results.
    pub(super) fn scan(&mut self) -> Result<(), Error> {
        if !self.given.sbom || self.scanned.is_some() {
            return Ok(());
        }
        let of = |scan: &ScanToExport| match &scan.handle {
            Some(handle) => sboms::inventory_of(self.store, handle, self.stop),
            None => Ok(Inventory::default()),
        };
        let results = self.given.results.iter();
        let scanned = results.map(|result| result.scans.iter().map(of).collect());
        let scanned: Vec<Vec<Inventory>> = scanned.collect::<Result<_, Error>>()?;
        for (result, inventories) in self.given.results.iter().zip(&scanned) {
            for (scan, inventory) in result.scans.iter().zip(inventories) {
                self.warn_of_notes(&format!(" of `{}`", scan.name), inventory);
            }
        }
        self.scanned = Some(scanned);
        Ok(())
    }

    /// Tells what an SBOM leaves out.
    fn warn_of_notes(&self, of: &str, inventory: &Inventory) {
        for note in &inventory.notes {
            self.worker.warn().tell(format!(
                "the SBOM{of} leaves `/{}` out: {}",
                note.path, note.reason
            ));
        }
    }

    /// The SBOMs of the result at a place: that of the image first, for those who take the first.
    pub(super) fn sboms(
        &self,
        place: usize,
        image: &Image,
        layers: &[Content],
    ) -> Result<Vec<Predicate>, Error> {
        // A name would make another document of the same image.
        let subject = image.subject(&image.id.to_string());
        let inventory = sboms::inventory(self.store, layers, self.stop)?;
        // Another packing has the same files.
        if self.images.is_empty() {
            self.warn_of_notes("", &inventory);
        }
        let mut all = vec![sbom(&subject, &inventory)];
        let scans = &self.given.results[place].scans;
        let scanned = self.scanned.iter().flat_map(|all| &all[place]);
        for (scan, inventory) in scans.iter().zip(scanned) {
            let subject = Subject {
                name: format!("{BESIDE}{}", scan.name),
                created: subject.created.clone(),
                purpose: match scan.is_source {
                    true => Purpose::Source,
                    false => Purpose::Container,
                },
                ..Subject::default()
            };
            all.push(sbom(&subject, inventory));
        }
        Ok(all)
    }
}

fn sbom(subject: &Subject, inventory: &Inventory) -> Predicate {
    Predicate {
        kind: SPDX_PREDICATE.to_owned(),
        json: document(subject, inventory).to_string(),
        inline_only: false,
    }
}
