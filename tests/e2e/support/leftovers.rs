//! What a case must not leave behind: processes and mounts that name its directory.

use std::path::Path;

/// Lists every process that has a mount, a variable, an argument or a working directory below
/// `directory`.
pub(crate) fn leftovers(directory: &Path) -> Vec<String> {
    let needle = directory.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let read = |file: &str| {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let place = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        // This process's own arguments and variables do not name a case.
        let named = ["mountinfo", "environ", "cmdline"]
            .into_iter()
            .find(|file| read(file).contains(&needle));
        if let Some(file) = named {
            let command = read("cmdline").replace('\0', " ");
            found.push(format!("process {name} ({command}): /proc/{name}/{file}"));
        } else if place.starts_with(directory) {
            found.push(format!("process {name} works in {}", place.display()));
        }
    }
    found
}
