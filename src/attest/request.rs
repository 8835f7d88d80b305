//! Which attestations are asked for: `--provenance`, `--sbom`, `--attest` and the build arguments
//! `BUILDKIT_ATTEST_*`, whose values are lists as buildx has them.

use std::collections::BTreeMap;

/// Build arguments that ask for an attestation, and for which.
pub(crate) const ARGUMENTS: [(&str, &str); 2] = [
    ("BUILDKIT_ATTEST_PROVENANCE", "provenance"),
    ("BUILDKIT_ATTEST_SBOM", "sbom"),
];

/// The attestations of a build; by default none, so that a build makes the image alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attestations {
    /// How it was built.
    pub provenance: Option<Provenance>,
    /// What software is in it.
    pub sbom: bool,
}

/// What is told of how an image was built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    /// How much.
    pub mode: ProvenanceMode,
    /// Who builds, a URI; empty is kiln itself.
    pub builder_id: String,
    /// The caller asserts that another build of the same gives the same.
    pub reproducible: bool,
    /// It is said of images only, and not written beside exported files.
    pub inline_only: bool,
}

/// How much provenance tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProvenanceMode {
    /// Nothing of what may be private: no values of arguments and labels, no ids of secrets, no steps.
    #[default]
    Min,
    /// All of the plan but secrets' values.
    Max,
}

/// Why a list asks for nothing that there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AttestError {
    /// What is wrong.
    pub message: String,
    /// A way out.
    pub hint: String,
}

fn refuse<T>(message: String, hint: &str) -> Result<T, AttestError> {
    Err(AttestError {
        message,
        hint: hint.to_owned(),
    })
}

impl Attestations {
    /// Takes in `--attest` values and those of `--provenance` and `--sbom`; of each type one may be given.
    pub fn of_flags(
        attest: &[String],
        provenance: Option<&str>,
        sbom: Option<&str>,
    ) -> Result<Attestations, AttestError> {
        let mut asked: BTreeMap<String, ()> = BTreeMap::new();
        let mut attestations = Attestations::default();
        let given = attest
            .iter()
            .map(|value| ("--attest", None, value.as_str()));
        let short = [
            ("--provenance", "provenance", provenance),
            ("--sbom", "sbom", sbom),
        ];
        let short = short
            .into_iter()
            .filter_map(|(flag, kind, value)| Some((flag, Some(kind), value?)));
        for (flag, kind, value) in given.chain(short) {
            let kind = attestations.add(flag, kind, value)?;
            if asked.insert(kind.clone(), ()).is_some() {
                return refuse(
                    format!(
                        "`{flag} {value}`: attestations of type `{kind}` were asked for before"
                    ),
                    "give each type once: --provenance and --sbom are short for --attest",
                );
            }
        }
        Ok(attestations)
    }

    /// Takes in the build arguments that ask for attestations; flags go before them.
    pub(crate) fn with_arguments(
        mut self,
        arguments: &BTreeMap<String, Option<String>>,
    ) -> Result<Attestations, AttestError> {
        for (name, kind) in ARGUMENTS {
            let Some(Some(value)) = arguments.get(name) else {
                continue;
            };
            let mut asked = Attestations::default();
            asked.add(name, Some(kind), value)?;
            self.provenance = self.provenance.or(asked.provenance);
            self.sbom |= asked.sbom;
        }
        Ok(self)
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Attestations::default()
    }

    /// Takes in one list; returns its type.
    fn add(&mut self, flag: &str, kind: Option<&str>, value: &str) -> Result<String, AttestError> {
        let place = match (flag.starts_with("--"), kind) {
            (true, None) => format!("`{flag} {value}`"),
            (true, Some(_)) => format!("`{flag}={value}`"),
            (false, _) => format!("build argument `{flag}={value}`"),
        };
        let mut kind = kind.map(str::to_owned);
        let mut fields: BTreeMap<String, String> = BTreeMap::new();
        let mut disabled = false;
        let is_short = kind.is_some();
        match boolean(value) {
            Some(on) if is_short => disabled = !on,
            _ if value.is_empty() && is_short => {}
            _ => {
                for field in value.split(',') {
                    let Some((key, value)) = field.split_once('=') else {
                        return refuse(
                            format!("{place}: `{field}` is not KEY=VALUE"),
                            "as in --attest type=provenance,mode=max",
                        );
                    };
                    let key = key.trim().to_lowercase();
                    match key.as_str() {
                        "type" if !is_short => kind = Some(value.to_owned()),
                        "disabled" => match boolean(value) {
                            Some(off) => disabled = off,
                            None => {
                                return refuse(
                                    format!(
                                        "{place}: `disabled={value}` is neither true nor false"
                                    ),
                                    "as in --attest type=sbom,disabled=true",
                                );
                            }
                        },
                        _ => {
                            if fields.insert(key.clone(), value.to_owned()).is_some() {
                                return refuse(
                                    format!("{place} says `{key}` twice"),
                                    "say it once",
                                );
                            }
                        }
                    }
                }
            }
        }
        let Some(kind) = kind else {
            return refuse(
                format!("{place} has no type"),
                "as in --attest type=provenance or --attest type=sbom",
            );
        };
        match kind.as_str() {
            "sbom" => {
                sbom(&place, fields)?;
                self.sbom |= !disabled;
            }
            "provenance" => {
                let provenance = provenance(&place, fields)?;
                if !disabled {
                    self.provenance = Some(provenance);
                }
            }
            other => {
                return refuse(
                    format!("{place}: there is no attestation of type `{other}`"),
                    "provenance and sbom are there",
                );
            }
        }
        Ok(kind)
    }
}

fn sbom(place: &str, fields: BTreeMap<String, String>) -> Result<(), AttestError> {
    match fields.into_iter().next() {
        None => Ok(()),
        Some((key, value)) if key == "generator" => refuse(
            format!("{place}: the generator `{value}` is not run"),
            "kiln makes the SBOM itself: leave `generator` out",
        ),
        Some((key, _)) => refuse(
            format!("{place}: type=sbom does not know `{key}`"),
            "as in --sbom=true",
        ),
    }
}

fn provenance(place: &str, fields: BTreeMap<String, String>) -> Result<Provenance, AttestError> {
    let mut provenance = Provenance::default();
    for (key, value) in fields {
        let flag = || match boolean(&value) {
            Some(on) => Ok(on),
            None => refuse(
                format!("{place}: `{key}={value}` is neither true nor false"),
                "as in --provenance mode=max,reproducible=true",
            ),
        };
        match key.as_str() {
            "mode" => {
                provenance.mode = match value.as_str() {
                    "min" => ProvenanceMode::Min,
                    "max" => ProvenanceMode::Max,
                    _ => {
                        return refuse(
                            format!("{place}: there is no mode `{value}`"),
                            "min and max are there",
                        );
                    }
                };
            }
            "version" if value == "v1" => {}
            "version" => {
                return refuse(
                    format!("{place}: provenance of version `{value}` is not written"),
                    "v1 is, and is the default",
                );
            }
            "builder-id" => provenance.builder_id = value,
            "reproducible" => provenance.reproducible = flag()?,
            "inline-only" => provenance.inline_only = flag()?,
            _ => {
                return refuse(
                    format!("{place}: type=provenance does not know `{key}`"),
                    "mode, builder-id, reproducible, inline-only and version are there",
                );
            }
        }
    }
    Ok(provenance)
}

/// What Go's `strconv.ParseBool` takes.
pub(super) fn boolean(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(
        attest: &[&str],
        provenance: Option<&str>,
        sbom: Option<&str>,
    ) -> Result<Attestations, String> {
        let attest: Vec<String> = attest.iter().map(ToString::to_string).collect();
        Attestations::of_flags(&attest, provenance, sbom).map_err(|error| error.message)
    }

    fn provenance(mode: ProvenanceMode) -> Option<Provenance> {
        Some(Provenance {
            mode,
            ..Provenance::default()
        })
    }

    #[test]
    fn what_is_asked_for() {
        let check = |found: Result<Attestations, String>, provenance, sbom| {
            assert_eq!(found, Ok(Attestations { provenance, sbom }));
        };
        check(flags(&[], None, None), None, false);
        check(
            flags(&[], Some("true"), Some("true")),
            provenance(ProvenanceMode::Min),
            true,
        );
        check(flags(&[], Some("false"), Some("0")), None, false);
        check(
            flags(&[], Some("mode=max"), None),
            provenance(ProvenanceMode::Max),
            false,
        );
        check(flags(&["type=sbom"], None, None), None, true);
        check(flags(&["type=sbom,disabled=true"], None, None), None, false);
        check(
            flags(&["type=provenance,mode=max", "type=sbom"], None, None),
            provenance(ProvenanceMode::Max),
            true,
        );
        let full = flags(
            &[],
            Some("builder-id=https://ci,reproducible=true,version=v1,inline-only=1"),
            None,
        );
        let full = full.unwrap().provenance.unwrap();
        assert_eq!(full.builder_id, "https://ci");
        assert!(full.reproducible && full.inline_only);
    }

    #[test]
    fn what_is_refused() {
        let check = |found: Result<Attestations, String>, part: &str| {
            let message = found.unwrap_err();
            assert!(message.contains(part), "{message}");
        };
        check(flags(&["sbom"], None, None), "is not KEY=VALUE");
        check(flags(&["mode=max"], None, None), "has no type");
        check(
            flags(&["type=vex"], None, None),
            "no attestation of type `vex`",
        );
        check(
            flags(&["type=sbom"], None, Some("true")),
            "were asked for before",
        );
        check(flags(&[], Some("mode=most"), None), "no mode `most`");
        check(flags(&[], Some("version=v0.2"), None), "version `v0.2`");
        check(flags(&[], Some("x=y"), None), "does not know `x`");
        check(
            flags(&[], None, Some("generator=a/b")),
            "generator `a/b` is not run",
        );
        check(
            flags(&[], None, Some("disabled=maybe")),
            "neither true nor false",
        );
    }

    #[test]
    fn build_arguments() {
        let check = |name: &str, value: &str, expected: bool| {
            let arguments = BTreeMap::from([(name.to_owned(), Some(value.to_owned()))]);
            let found = Attestations::default().with_arguments(&arguments).unwrap();
            assert_eq!(!found.is_empty(), expected, "{name}={value}");
        };
        check("BUILDKIT_ATTEST_SBOM", "true", true);
        check("BUILDKIT_ATTEST_SBOM", "false", false);
        check("BUILDKIT_ATTEST_SBOM", "", true);
        check("BUILDKIT_ATTEST_PROVENANCE", "mode=max", true);
        check("BUILDKIT_ATTEST_PROVENANCE", "disabled=true", false);
        check("OTHER", "true", false);
    }
}
