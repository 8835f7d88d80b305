//! How registries ask who somebody is, kept in the store from one process to the next.
//!
//! docs/formats/store.md has the format. What cannot be kept or read is asked for again, so nothing here fails.

use kiln_oci::registry::{Asks, Challenges};
use kiln_store::Store;
use serde::{Deserialize, Serialize};

/// The version of what is kept.
const VERSION: u32 = 0;

/// What the store remembers of a registry.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    /// The registry, since the file is named after a hash of it.
    place: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    asks: Option<KeptAsks>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum KeptAsks {
    Password,
    Token {
        realm: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        service: Option<String>,
    },
}

/// The challenges that a store knows.
pub(crate) struct StoredChallenges {
    pub(crate) store: Store,
}

impl Challenges for StoredChallenges {
    fn recall(&self, place: &str) -> Option<Asks> {
        let bytes = self.store.remembered_remote(&name(place)).ok()??;
        read(&bytes, place)
    }

    fn remember(&self, place: &str, asks: Option<&Asks>) {
        // Then the next process asks once more.
        let _ = self
            .store
            .remember_remote(&name(place), &write(place, asks));
    }
}

/// What a registry is remembered under; no address begins like this.
fn name(place: &str) -> String {
    format!("registry {place}")
}

fn read(bytes: &[u8], place: &str) -> Option<Asks> {
    let kept: Kept = serde_json::from_slice(bytes).ok()?;
    if kept.version != VERSION || kept.place != place {
        return None;
    }
    Some(match kept.asks? {
        KeptAsks::Password => Asks::Password,
        KeptAsks::Token { realm, service } => Asks::Token { realm, service },
    })
}

fn write(place: &str, asks: Option<&Asks>) -> Vec<u8> {
    let asks = asks.map(|asks| match asks {
        Asks::Password => KeptAsks::Password,
        Asks::Token { realm, service } => KeptAsks::Token {
            realm: realm.clone(),
            service: service.clone(),
        },
    });
    let kept = Kept {
        version: VERSION,
        place: place.to_owned(),
        asks,
    };
    serde_json::to_vec(&kept).expect("BUG: strings are always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &str = "https://ghcr.io";

    fn check(asks: Option<Asks>, bytes: &str) {
        let written = write(PLACE, asks.as_ref());
        assert_eq!(String::from_utf8(written.clone()).unwrap(), bytes);
        assert_eq!(read(&written, PLACE), asks);
        assert_eq!(read(&written, "https://quay.io"), None);
    }

    #[test]
    fn the_bytes_are_those_of_their_version() {
        let token = |service: Option<&str>| Asks::Token {
            realm: "https://ghcr.io/token".to_owned(),
            service: service.map(str::to_owned),
        };
        check(
            Some(Asks::Password),
            r#"{"version":0,"place":"https://ghcr.io","asks":"password"}"#,
        );
        check(
            Some(token(Some("ghcr.io"))),
            r#"{"version":0,"place":"https://ghcr.io","asks":{"token":{"realm":"https://ghcr.io/token","service":"ghcr.io"}}}"#,
        );
        check(
            Some(token(None)),
            r#"{"version":0,"place":"https://ghcr.io","asks":{"token":{"realm":"https://ghcr.io/token"}}}"#,
        );
        check(None, r#"{"version":0,"place":"https://ghcr.io"}"#);
    }

    #[test]
    fn what_is_not_understood_is_nothing() {
        for bytes in [
            "",
            "{",
            "[]",
            r#"{"version":1,"place":"https://ghcr.io","asks":"password"}"#,
            r#"{"version":0,"place":"https://ghcr.io","asks":"secret"}"#,
            r#"{"version":0,"place":"https://ghcr.io","asks":"password","password":"x"}"#,
        ] {
            assert_eq!(read(bytes.as_bytes(), PLACE), None, "{bytes}");
        }
    }

    #[test]
    fn a_store_keeps_the_last_word() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), Default::default()).unwrap();
        let known = StoredChallenges { store };
        assert_eq!(known.recall(PLACE), None);
        known.remember(PLACE, Some(&Asks::Password));
        assert_eq!(known.recall(PLACE), Some(Asks::Password));
        assert_eq!(known.recall("http://ghcr.io"), None);
        known.remember(PLACE, None);
        assert_eq!(known.recall(PLACE), None);
    }
}
