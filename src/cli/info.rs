//! `kiln info`: what kiln finds on this host, and what it falls back to.

use kiln::RegistrySettings;

use super::host::{self, Needs};
use super::images::columns;
use super::{Done, print};

pub(crate) fn info() -> Done {
    // Before the store is opened, so that a host that refuses namespaces is told about too.
    let found = kiln::probe_host();
    let mut rows: Vec<[String; 2]> =
        vec![["kiln".to_owned(), env!("CARGO_PKG_VERSION").to_owned()]];
    rows.extend(
        found
            .into_iter()
            .map(|(name, value)| [name.to_owned(), value]),
    );
    let opened = host::open(Needs::Layers, true).and_then(|kiln| {
        let found = kiln.snapshots()?;
        let how = match &found.reason {
            None => found.strategy.to_string(),
            Some(reason) => format!("{} (no overlay: {reason})", found.strategy),
        };
        let root = kiln.options().root.display().to_string();
        Ok((root, how, kiln.platforms()))
    });
    let (root, how, (here, emulated)) = match opened {
        Ok(opened) => opened,
        Err(failure) => {
            print(&columns(&rows))?;
            return Err(failure);
        }
    };
    rows.push(["store".to_owned(), root]);
    rows.push(["snapshots".to_owned(), how]);
    let here: Vec<String> = here.iter().map(ToString::to_string).collect();
    rows.push(["platforms".to_owned(), here.join(", ")]);
    let words: Vec<String> = emulated
        .iter()
        .map(|(platform, path)| format!("{platform} ({})", path.display()))
        .collect();
    let words = match words.is_empty() {
        true => "none: no static qemu is found and let run".to_owned(),
        false => words.join(", "),
    };
    rows.push(["emulated".to_owned(), words]);
    let registries = match RegistrySettings::load(&host::registries()) {
        Ok(registries) => registries,
        Err(error) => {
            print(&columns(&rows))?;
            return Err(kiln::ExecutorError::from(error).into());
        }
    };
    rows.extend(registries.lines().into_iter().map(<[String; 2]>::from));
    print(&columns(&rows))
}
