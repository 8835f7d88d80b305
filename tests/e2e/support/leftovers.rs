//! What a case must not leave behind: processes and mounts that name its directory.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Lists every process that has a mount, a variable, an argument or a working directory below
/// `directory`.
///
/// `kiln settle`, which makes a result durable after it was delivered, ends by itself; so does what an ordinary
/// user's kiln leaves outside of its namespace, a moment after kiln.
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
            let command = command(&entry.path()).replace('\0', " ");
            // One without a command line is ending just now.
            if command.is_empty()
                || command.trim_end().ends_with("kiln settle")
                || is_porter(&entry.path())
            {
                continue;
            }
            found.push(format!("process {name} ({command}): /proc/{name}/{file}"));
        } else if place.starts_with(directory) && !is_porter(&entry.path()) {
            found.push(format!("process {name} works in {}", place.display()));
        }
    }
    found
}

/// The arguments of a process, in one read: one that ends between two would have lost the last of them.
fn command(process: &Path) -> String {
    let mut buffer = vec![0; 128 << 10];
    let file = File::open(process.join("cmdline"));
    let length = file
        .and_then(|mut file| file.read(&mut buffer))
        .unwrap_or(0);
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn is_porter(process: &Path) -> bool {
    std::fs::read_to_string(process.join("comm")).is_ok_and(|name| name == "kiln-porter\n")
}

/// Waits until no process outside of a namespace belongs to `directory`; tells whether that ever came.
pub(crate) fn wait_for_porters(directory: &Path) -> bool {
    let needle = directory.to_string_lossy().into_owned();
    let belongs = |process: &Path| {
        let variables = std::fs::read(process.join("environ")).unwrap_or_default();
        is_porter(process) && String::from_utf8_lossy(&variables).contains(&needle)
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    let any = || {
        let mut processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes.any(|entry| belongs(&entry.path()))
    };
    while any() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Waits until no `kiln settle` works below `directory`, or a long time has passed.
pub(crate) fn wait_for_settling(directory: &Path) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while is_settling(directory) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_settling(directory: &Path) -> bool {
    let needle = directory.to_string_lossy().into_owned();
    let read = |path: &Path| {
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    };
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        read(&entry.path().join("cmdline")).ends_with("kiln\0settle\0")
            && read(&entry.path().join("environ")).contains(&needle)
    })
}
