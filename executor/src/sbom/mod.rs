//! What software is in an image: package databases and lock files, read from its layers, as SPDX.
//!
//! [`scan`](scan::scan) walks the manifests of layers, never their directories, and opens only the files
//! whose names say that they list packages. Each kind has a file of its own, a function from bytes to
//! packages. All of it is input of strangers: what is malformed becomes a note beside what could be
//! read, and never an error.

mod package;
mod purl;

mod license;
mod os_release;
mod paragraphs;

mod apk;
mod dpkg;
mod rpm;

mod dart;
mod go;
mod java;
mod node;
mod php;
mod python;
mod ruby;
mod rust;

mod elf;
mod zip;

mod scan;
mod spdx;

#[cfg(test)]
mod tests;

pub use package::Package;
pub use purl::{Purl, image_purl};
pub(crate) use scan::scan;
pub use scan::{Inventory, Note};
pub(crate) use spdx::{Purpose, Subject, document};

/// What the names of documents begin with that are of something beside an image, as BuildKit's do.
pub(crate) const BESIDE: &str = "sbom-";

/// The predicate type of an SPDX document in an in-toto statement, as BuildKit has it.
pub const SPDX_PREDICATE: &str = "https://spdx.dev/Document";
