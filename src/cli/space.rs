//! `kiln du` and `kiln prune`.

use kiln::Keep;

use super::host::{self, Needs};
use super::images::columns;
use super::progress::words_bytes;
use super::{Done, print, spec};

pub(crate) fn du() -> Done {
    let kiln = host::open(Needs::Layers, true)?;
    let lines = kiln.space()?;
    let mut rows = vec![["KIND", "COUNT", "SIZE"].map(str::to_owned)];
    for line in &lines {
        rows.push([
            line.what.to_owned(),
            line.count.to_string(),
            words_bytes(line.bytes),
        ]);
    }
    let total = lines.iter().map(|line| line.bytes).sum();
    rows.push(["total".to_owned(), String::new(), words_bytes(total)]);
    print(&columns(&rows))
}

pub(crate) fn prune(all: bool, keep_duration: Option<&str>, keep_storage: Option<&str>) -> Done {
    let keep = match (keep_duration, keep_storage) {
        (Some(text), _) => Keep::UsedWithin(spec::duration(text)?),
        (None, Some(text)) => Keep::Bytes(spec::size_bytes(text)?),
        (None, None) => Keep::Needed,
    };
    let kiln = host::open(Needs::Layers, true)?;
    let swept = kiln.sweep(&keep, all)?;
    let mut text: String = swept
        .removed
        .iter()
        .map(|(what, count)| format!("removed {count} {what}\n"))
        .collect();
    text.push_str(&format!("freed {}\n", words_bytes(swept.bytes)));
    print(&text)
}
