//! Dockerfiles that ask for SBOMs of more than the result, which there are none of.

use std::collections::BTreeMap;

use kiln_frontend::dockerfile::ast::{Arg, Kind};
use kiln_frontend::dockerfile::parse;

use super::request::{AttestError, boolean};

/// The arguments that ask for it.
const ARGUMENTS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Errors if the caller or the Dockerfile sets one of them, other than to false.
pub(crate) fn check_scans(
    given: &BTreeMap<String, Option<String>>,
    file: Option<&(String, String)>,
) -> Result<(), AttestError> {
    for name in ARGUMENTS {
        if let Some(Some(value)) = given.get(name)
            && boolean(value) != Some(false)
        {
            return Err(refusal(format!("build argument `{name}` is `{value}`")));
        }
        // What the caller sets to false is not asked for by the file.
        if given.get(name).is_some_and(Option::is_some) {
            continue;
        }
        if let Some((file, text)) = file
            && let Some(line) = declared(text, name)
        {
            return Err(refusal(format!("{file}:{line} asks for `{name}`")));
        }
    }
    Ok(())
}

fn refusal(asked: String) -> AttestError {
    AttestError {
        message: format!("{asked}, but an SBOM is made of the result alone"),
        hint: "leave --sbom out, or set the argument to false".to_owned(),
    }
}

/// The line of the first ARG of that name whose default is not false.
fn declared(text: &str, name: &str) -> Option<u32> {
    let parsed = parse(text);
    let asks = |arg: &Arg| {
        arg.declarations.iter().any(|declaration| {
            let default = declaration.default.as_ref().map(|word| word.text.as_str());
            let default = default.map(|text| text.trim_matches(['"', '\'']));
            let off = default.is_none_or(|text| text.is_empty() || boolean(text) == Some(false));
            declaration.name.text == name && !off
        })
    };
    let global = parsed.dockerfile.global_args.iter();
    let global = global
        .filter(|arg| asks(&arg.kind))
        .map(|arg| arg.lines.first);
    let stages = parsed.dockerfile.stages.iter();
    let local = stages.flat_map(|stage| &stage.instructions);
    let local = local.filter_map(|instruction| match &instruction.kind {
        Kind::Arg(arg) if asks(arg) => Some(instruction.lines.first),
        _ => None,
    });
    global.chain(local).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_files_ask_for() {
        let check = |text: &str, expected: Option<u32>| {
            assert_eq!(
                declared(text, "BUILDKIT_SBOM_SCAN_STAGE"),
                expected,
                "{text}"
            );
        };
        check("ARG BUILDKIT_SBOM_SCAN_STAGE=true\nFROM x\n", Some(1));
        check(
            "FROM x\nARG A BUILDKIT_SBOM_SCAN_STAGE=\"base,build\"\n",
            Some(2),
        );
        check("FROM x\nARG BUILDKIT_SBOM_SCAN_STAGE=false\n", None);
        check("FROM x\nARG BUILDKIT_SBOM_SCAN_STAGE\n", None);
        check(
            "FROM x\nRUN <<EOF\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nEOF\n",
            None,
        );
    }

    #[test]
    fn the_caller_goes_before_the_file() {
        let file = (
            "Dockerfile".to_owned(),
            "ARG BUILDKIT_SBOM_SCAN_STAGE=1\nFROM x\n".to_owned(),
        );
        let given = |value: &str| {
            let name = "BUILDKIT_SBOM_SCAN_STAGE".to_owned();
            BTreeMap::from([(name, Some(value.to_owned()))])
        };
        assert!(check_scans(&given("false"), Some(&file)).is_ok());
        assert!(check_scans(&given("true"), None).is_err());
        let found = check_scans(&BTreeMap::new(), Some(&file)).unwrap_err();
        assert_eq!(
            found.message,
            "Dockerfile:1 asks for `BUILDKIT_SBOM_SCAN_STAGE`, but an SBOM is made of the result alone"
        );
    }
}
