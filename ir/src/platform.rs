//! What an image runs on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An operating system and architecture, in the OCI image spec's words, normalised.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v7`, …; empty where the architecture has none or its default.
    pub variant: String,
    /// Windows only.
    pub os_version: String,
    /// Windows only.
    pub os_features: Vec<String>,
}

/// Why a text names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// A part has other characters than a name.
    #[error("`{part}` in platform `{text}` is not a name of letters, digits, `_`, `.` and `-`")]
    BadPart {
        /// The part.
        part: String,
        /// All of it.
        text: String,
    },
    /// One word that is neither an operating system nor an architecture.
    #[error(
        "`{text}` is no known operating system or architecture; write os/architecture, such as `linux/amd64`"
    )]
    Unknown {
        /// The word.
        text: String,
    },
    /// There are more parts than os/architecture/variant.
    #[error("platform `{text}` has more parts than os/architecture/variant")]
    TooManyParts {
        /// All of it.
        text: String,
    },
    /// `os(version+features)` is not closed or follows its own rules no further.
    #[error("platform `{text}` has a malformed `(version+features)`")]
    BadOptions {
        /// All of it.
        text: String,
    },
}

/// Operating systems that a single word may mean.
const KNOWN_OS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

/// Architectures that a single word may mean, normalised.
const KNOWN_ARCH: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

impl Platform {
    /// Returns Linux on `architecture`, normalised.
    pub fn linux(architecture: &str) -> Self {
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            ..Self::default()
        }
        .normalized()
    }

    /// Parses `os/architecture[/variant]`, or one word of either, as containerd's platform specifiers.
    ///
    /// A lone architecture is of Linux; a lone operating system is on amd64, so that a plan does
    /// not depend on the host. `os(version+feature+…)` is accepted as containerd 2 writes it.
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        let mut parts: Vec<&str> = text.split('/').collect();
        let bad_options = || PlatformError::BadOptions {
            text: text.to_owned(),
        };
        let mut platform = Self::default();
        if let Some((os, options)) = parts[0].split_once('(') {
            let options = options.strip_suffix(')').ok_or_else(bad_options)?;
            let mut options = options.split('+');
            let version = options.next().unwrap_or_default();
            let features: Vec<&str> = options.collect();
            if !version.is_empty() {
                check_part(version, text)?;
            }
            for feature in &features {
                check_part(feature, text)?;
            }
            platform.os_version = version.to_owned();
            platform.os_features = features.into_iter().map(str::to_owned).collect();
            platform.os_features.sort_unstable();
            parts[0] = os;
        }
        for part in &parts {
            check_part(part, text)?;
        }
        match parts.as_slice() {
            [word] => {
                let os = normal_os(word);
                if KNOWN_OS.contains(&os.as_str()) {
                    platform.os = os;
                    platform.architecture = "amd64".to_owned();
                    return Ok(platform);
                }
                platform.os = "linux".to_owned();
                platform.architecture = (*word).to_owned();
                platform = platform.normalized();
                if !KNOWN_ARCH.contains(&platform.architecture.as_str()) {
                    return Err(PlatformError::Unknown {
                        text: text.to_owned(),
                    });
                }
                return Ok(platform);
            }
            [os, architecture] => {
                platform.os = (*os).to_owned();
                platform.architecture = (*architecture).to_owned();
            }
            [os, architecture, variant] => {
                platform.os = (*os).to_owned();
                platform.architecture = (*architecture).to_owned();
                platform.variant = (*variant).to_owned();
            }
            _ => {
                return Err(PlatformError::TooManyParts {
                    text: text.to_owned(),
                });
            }
        }
        Ok(platform.normalized())
    }

    /// Returns it with containerd's names: `x86_64` is `amd64`, `arm64/v8` is `arm64`, `arm` is `arm/v7`.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.os = normal_os(&self.os);
        let architecture = self.architecture.to_ascii_lowercase();
        let variant = self.variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            (architecture, variant) => (architecture, variant),
        };
        self.architecture = architecture.to_owned();
        self.variant = variant.to_owned();
        self
    }

    /// Formats it as `os/architecture[/variant]`, with `(version+features)` after the os where given.
    pub fn format_all(&self) -> String {
        let mut options = self.os_version.clone();
        for feature in &self.os_features {
            options.push('+');
            options.push_str(feature);
        }
        let options = if options.is_empty() {
            options
        } else {
            format!("({options})")
        };
        let variant = if self.variant.is_empty() {
            String::new()
        } else {
            format!("/{}", self.variant)
        };
        format!("{}{options}/{}{variant}", self.os, self.architecture)
    }
}

/// `os/architecture[/variant]`.
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_str() {
            "" => Ok(()),
            variant => write!(f, "/{variant}"),
        }
    }
}

impl std::str::FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

fn normal_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        os => os.to_owned(),
    }
}

fn check_part(part: &str, text: &str) -> Result<(), PlatformError> {
    let named = part
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if named && !part.is_empty() {
        return Ok(());
    }
    Err(PlatformError::BadPart {
        part: part.to_owned(),
        text: text.to_owned(),
    })
}
