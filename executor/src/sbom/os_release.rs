//! Which distribution an image is of, by its `os-release`.

/// A distribution.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Distribution {
    /// Such as `debian`.
    pub(super) id: String,
    /// Such as `12`.
    pub(super) version: String,
    /// Such as `Debian GNU/Linux 12 (bookworm)`.
    pub(super) pretty_name: String,
}

impl Distribution {
    /// The qualifier of purls, such as `debian-12`; empty if nothing is known.
    pub(super) fn qualifier(&self) -> String {
        match (self.id.as_str(), self.version.as_str()) {
            ("", _) => String::new(),
            (id, "") => id.to_owned(),
            (id, version) => format!("{id}-{version}"),
        }
    }

    /// The namespace of purls, or `other` where the image does not say.
    pub(super) fn namespace<'a>(&'a self, other: &'a str) -> &'a str {
        match self.id.as_str() {
            "" => other,
            // The names that purl-spec gives them.
            "rhel" => "redhat",
            "sles" | "opensuse-leap" | "opensuse-tumbleweed" => "opensuse",
            id => id,
        }
    }
}

/// Reads `os-release`(5).
pub(super) fn read(bytes: &[u8]) -> Distribution {
    let text = String::from_utf8_lossy(bytes);
    let get = |key: &str| {
        let value = text.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == key).then_some(value)
        });
        let value = value.unwrap_or_default().trim();
        super::package::clean(value.trim_matches(['"', '\'']))
    };
    Distribution {
        id: get("ID").to_lowercase(),
        version: get("VERSION_ID"),
        pretty_name: get("PRETTY_NAME"),
    }
}
