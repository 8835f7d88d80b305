//! Which paths of a context count.

/// What to do with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It counts.
    Include,
    /// It does not, nor does anything below it.
    Exclude,
    /// It does not, but something below it may.
    ExcludeButDescend,
}

/// Decides which paths of a context count; the caller implements ignore files and wildcards.
pub trait Select: Sync {
    /// Decides about `path`, relative to the context, without a leading slash.
    fn decide(&self, path: &[u8], is_directory: bool) -> Decision;
}

/// Selects everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Everything;

impl Select for Everything {
    fn decide(&self, _: &[u8], _: bool) -> Decision {
        Decision::Include
    }
}
