//! Paths as a container sees them: resolved by `openat2(RESOLVE_IN_ROOT)` inside a root handle.
