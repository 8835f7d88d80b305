//! What must hold whatever the input is; shared by the property tests and the fuzz targets.

pub(crate) mod expand;
pub(crate) mod ignore;
pub(crate) mod lower;
pub(crate) mod parse;
