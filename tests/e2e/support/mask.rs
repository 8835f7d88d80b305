//! What differs from run to run and is masked in snapshots, without changing the width of columns.

/// Regular expressions and what stands for what they find.
pub(super) const MASKS: &[(&str, &str)] = &[
    // Durations: `0.03 s`, `12.4 s`.
    (r"\b(\d\.\d\d|\d\d\.\d) s\b", "_.__ s"),
    // Digests, whole or short.
    (r"sha256:[0-9a-f]{64}", "sha256:[64 digits]"),
    (r"sha256:[0-9a-f]{12}\b", "sha256:____________"),
    (r"sha256:[0-9a-f]{8}\b", "sha256:________"),
    // Ages: a slow host may take more than a moment.
    (r"\b(just now|\d+ seconds? ago)\b", "just now"),
    // Ids of builds, which have their time in them.
    (r"\bbuild [0-9a-z]{13} of\b", "build [13 letters] of"),
    // How old an image is that was made on a fixed day.
    (r"made \d{4} days ago", "made ____ days ago"),
];
