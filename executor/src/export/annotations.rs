//! What people say of an image in its manifests and indexes, beside what is in it.

use std::collections::BTreeMap;

use kiln_ir::Platform;

use super::ResultToExport;
use crate::error::Error;
use crate::images::{oci_platform, platform_of};

/// Which document an annotation stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnnotationPlace {
    /// The index of all platforms.
    Index,
    /// What lists the index.
    IndexDescriptor,
    /// The manifest of each platform.
    Manifest,
    /// What lists the manifest of each platform: the index, or the layout of one image.
    ManifestDescriptor,
}

impl AnnotationPlace {
    /// As `--annotation` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            AnnotationPlace::Index => "index",
            AnnotationPlace::IndexDescriptor => "index-descriptor",
            AnnotationPlace::Manifest => "manifest",
            AnnotationPlace::ManifestDescriptor => "manifest-descriptor",
        }
    }

    /// Reads what `--annotation` has.
    pub fn parse(text: &str) -> Option<AnnotationPlace> {
        use AnnotationPlace::{Index, IndexDescriptor, Manifest, ManifestDescriptor};
        let all = [Index, IndexDescriptor, Manifest, ManifestDescriptor];
        all.into_iter().find(|place| place.as_str() == text)
    }

    fn is_of_index(self) -> bool {
        matches!(
            self,
            AnnotationPlace::Index | AnnotationPlace::IndexDescriptor
        )
    }
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Annotation {
    /// Where it stands.
    pub place: AnnotationPlace,
    /// Of which platform's manifest; of all where none is given.
    pub platform: Option<Platform>,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Those of a document: the later of two with one key counts, and one for a platform before one for all.
pub(crate) fn of(
    all: &[Annotation],
    place: AnnotationPlace,
    platform: Option<&Platform>,
) -> BTreeMap<String, String> {
    let here = || all.iter().filter(|annotation| annotation.place == place);
    let general = here().filter(|annotation| annotation.platform.is_none());
    let own = here().filter(|annotation| match (&annotation.platform, platform) {
        (Some(wanted), Some(platform)) => is(wanted, platform),
        _ => false,
    });
    general
        .chain(own)
        .map(|annotation| (annotation.key.clone(), annotation.value.clone()))
        .collect()
}

/// Errors if one of them would stand nowhere.
pub(super) fn check_results(all: &[Annotation], results: &[ResultToExport]) -> Result<(), Error> {
    let is_index = results.iter().any(|result| result.platform.is_some());
    let built: Vec<Platform> = results.iter().filter_map(platform_of_result).collect();
    check(all, is_index, &built)
}

/// Errors if one of them would stand nowhere in an image for these platforms.
pub(crate) fn check(
    all: &[Annotation],
    is_index: bool,
    platforms: &[Platform],
) -> Result<(), Error> {
    for annotation in all {
        if annotation.place.is_of_index() && !is_index {
            return Err(Error::IndexAnnotation {
                key: annotation.key.clone(),
            });
        }
        let Some(wanted) = &annotation.platform else {
            continue;
        };
        if !platforms.iter().any(|platform| is(wanted, platform)) {
            let there: Vec<String> = platforms.iter().map(Platform::to_string).collect();
            return Err(Error::AnnotationPlatform {
                key: annotation.key.clone(),
                wanted: wanted.to_string(),
                there: there.join(", "),
            });
        }
    }
    Ok(())
}

/// What a result is for; by its config where it is no part of an index.
pub(super) fn platform_of_result(result: &ResultToExport) -> Option<Platform> {
    match (&result.platform, &result.config) {
        (Some(platform), _) => Some(platform.clone()),
        (None, Some(config)) => Some(platform_of(config)),
        (None, None) => None,
    }
}

fn is(wanted: &Platform, platform: &Platform) -> bool {
    oci_platform(&wanted.clone().normalized()).to_string()
        == oci_platform(&platform.clone().normalized()).to_string()
}

#[cfg(test)]
mod tests {
    use super::AnnotationPlace::{Index, Manifest, ManifestDescriptor};
    use super::*;

    fn annotation(place: AnnotationPlace, platform: &str, key: &str, value: &str) -> Annotation {
        Annotation {
            place,
            platform: (!platform.is_empty()).then(|| Platform::parse(platform).unwrap()),
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }

    fn results(platforms: &[&str]) -> Vec<ResultToExport> {
        let result = |platform: &&str| ResultToExport {
            platform: Some(Platform::parse(platform).unwrap()),
            ..ResultToExport::default()
        };
        platforms.iter().map(result).collect()
    }

    #[test]
    fn a_platform_has_its_own_over_those_of_all() {
        let all = [
            annotation(Manifest, "linux/arm64", "a", "arm"),
            annotation(Manifest, "", "a", "all"),
            annotation(Manifest, "", "b", "1"),
            annotation(Manifest, "", "b", "2"),
            annotation(ManifestDescriptor, "", "c", "3"),
        ];
        let words = |platform: &str| {
            let platform = Platform::parse(platform).unwrap();
            let found = of(&all, Manifest, Some(&platform));
            let words: Vec<String> = found.iter().map(|(k, v)| format!("{k}={v}")).collect();
            words.join(" ")
        };
        assert_eq!(words("linux/arm64/v8"), "a=arm b=2");
        assert_eq!(words("linux/amd64"), "a=all b=2");
    }

    #[test]
    fn what_would_stand_nowhere_is_refused() {
        let two = results(&["linux/amd64", "linux/arm/v7"]);
        check_results(&[annotation(Index, "", "a", "b")], &two).unwrap();
        check_results(&[annotation(Manifest, "linux/arm/v7", "a", "b")], &two).unwrap();
        let says = |annotation: Annotation, results: &[ResultToExport]| {
            check_results(&[annotation], results)
                .unwrap_err()
                .to_string()
        };
        insta::assert_snapshot!(
            says(annotation(Manifest, "linux/s390x", "a", "b"), &two),
            @"the annotation `a` is for linux/s390x, and the image is for linux/amd64, linux/arm/v7"
        );
        insta::assert_snapshot!(
            says(annotation(Index, "", "a", "b"), &[ResultToExport::default()]),
            @"the annotation `a` is for an index, and an image for one platform has none"
        );
    }
}
