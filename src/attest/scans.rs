//! What SBOMs are made of beside the result: the context, and stages that ask for it.

use std::collections::BTreeMap;

use kiln_executor::{BuildWorker, Handle, ScanToExport};
use kiln_frontend::lower::{Scan, Scanned};
use kiln_ir::Input;

use super::request::{AttestError, boolean};
use crate::Error;
use crate::dockerfile::CONTEXT;

/// The build arguments that ask for it; a Dockerfile declares them.
const ARGUMENTS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// What is scanned in one build.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scans {
    scans: Vec<Scan>,
    /// The context's ignore rules.
    exclude: Vec<String>,
}

impl Scans {
    /// Takes in what a Dockerfile asks for.
    pub(crate) fn of_dockerfile(scans: Vec<Scan>, exclude: Vec<String>) -> Scans {
        Scans { scans, exclude }
    }

    /// Errors if the caller asks for it where stages have no names: of a plan, whoever made it.
    pub(crate) fn none_of_plan(
        given: &BTreeMap<String, Option<String>>,
    ) -> Result<Scans, AttestError> {
        let asked = ARGUMENTS.iter().find_map(|name| {
            let value = given.get(*name)?.as_deref()?;
            (boolean(value) != Some(false)).then_some((name, value))
        });
        match asked {
            None => Ok(Scans::default()),
            Some((name, value)) => Err(AttestError {
                message: format!(
                    "build argument `{name}` is `{value}`, but what is built is no Dockerfile, so an SBOM is of the result alone"
                ),
                hint: "leave the argument out".to_owned(),
            }),
        }
    }

    /// The outputs that must be there to be scanned.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = Input> {
        self.scans.iter().filter_map(|scan| match scan.what {
            Scanned::Stage(output) => output,
            Scanned::Context => None,
        })
    }

    /// The same, to be led to other steps.
    pub(crate) fn outputs_mut(&mut self) -> impl Iterator<Item = &mut Input> {
        self.scans
            .iter_mut()
            .filter_map(|scan| match &mut scan.what {
                Scanned::Stage(output) => output.as_mut(),
                Scanned::Context => None,
            })
    }

    /// What is scanned beside a result; `outputs` has what those of the same order came to.
    pub(crate) async fn beside(
        &self,
        result: &str,
        outputs: &[Option<Handle>],
        worker: &BuildWorker,
    ) -> Result<Vec<ScanToExport>, Error> {
        let mut scans = Vec::new();
        let mut outputs = outputs.iter();
        for scan in &self.scans {
            let handle = match scan.what {
                Scanned::Stage(Some(_)) => outputs.next().cloned().flatten(),
                Scanned::Stage(None) => None,
                Scanned::Context if scan.result != result => None,
                Scanned::Context => Some(worker.context_handle(CONTEXT, &self.exclude).await?),
            };
            if scan.result == result {
                scans.push(ScanToExport {
                    name: scan.name.clone(),
                    handle,
                    is_source: scan.what == Scanned::Context,
                });
            }
        }
        Ok(scans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_have_no_stages() {
        let check = |value: &str, expected: bool| {
            let name = "BUILDKIT_SBOM_SCAN_STAGE".to_owned();
            let given = BTreeMap::from([(name, Some(value.to_owned()))]);
            assert_eq!(Scans::none_of_plan(&given).is_ok(), expected, "{value}");
        };
        check("false", true);
        check("true", false);
        check("base", false);
        assert!(Scans::none_of_plan(&BTreeMap::new()).is_ok());
    }
}
