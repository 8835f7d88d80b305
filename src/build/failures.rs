//! Failures of a build as its user is told of them.

use kiln_executor::Error as ExecutorError;
use kiln_ir::{NodeId, Plan};
use kiln_solver::Failure;

use crate::missing::Contexts;
use crate::steps::Teller;
use crate::{Error, Event, FailedStep};

pub(crate) fn failed<F: Fn(Event) + Send + Sync>(
    plan: &Plan,
    teller: &Teller<F>,
    contexts: &Contexts,
    failures: Vec<(NodeId, Failure<ExecutorError>)>,
) -> Error {
    let mut is_environment = false;
    let step = |(node, failure): (NodeId, Failure<ExecutorError>)| {
        let display = plan.display.get(&node);
        let name = teller.steps.index(node);
        let name = name.map(|index| teller.steps.infos[index].text.clone());
        let output = teller.tail(node);
        let (failure, causes, hint) = match failure {
            Failure::Step(failure) => {
                let hint = needs_ids(&output)
                    .then(kiln_executor::userns::single_id_fix)
                    .flatten()
                    .or_else(|| {
                        lacks_ids(&output)
                            .then(kiln_executor::userns::more_ids_fix)
                            .flatten()
                    });
                (failure.to_string(), Vec::new(), hint)
            }
            Failure::Worker(error) => {
                let mut causes = Vec::new();
                let mut cause = std::error::Error::source(&error);
                while let Some(error) = cause {
                    causes.push(error.to_string());
                    cause = error.source();
                }
                is_environment |= error.is_environment();
                let hint = contexts.hint(plan, node, &error);
                (error.to_string(), causes, hint.or_else(|| error.hint()))
            }
        };
        FailedStep {
            stage: display
                .map(|display| display.stage.clone())
                .unwrap_or_default(),
            text: name.unwrap_or_else(|| plan.graph.node(node).op.kind().to_owned()),
            written: written(plan, node),
            failure,
            causes,
            output,
            hint,
        }
    };
    let steps = failures.into_iter().map(step).collect();
    match is_environment {
        true => Error::StepsLack(steps),
        false => Error::Steps(steps),
    }
}

/// Whether a step says what the kernel says where an owner or a user is not mapped.
///
/// Programs tell it in the words of the C library; nothing else tells it apart from other failures.
fn needs_ids(output: &[String]) -> bool {
    const SAID: [&str; 4] = [
        "invalid argument",
        "operation not permitted",
        "einval",
        "eperm",
    ];
    output.iter().any(|line| {
        let line = line.to_lowercase();
        SAID.iter().any(|said| line.contains(said))
    })
}

/// Whether a step says what the kernel says of an id that is not mapped where many are.
fn lacks_ids(output: &[String]) -> bool {
    const ABOUT: [&str; 5] = ["chown", "chgrp", "owner", "uid", "gid"];
    output.iter().any(|line| {
        let line = line.to_lowercase();
        let is_invalid = line.contains("invalid argument") || line.contains("einval");
        is_invalid && ABOUT.iter().any(|about| line.contains(about))
    })
}

/// The lines of the Dockerfile that a node comes from.
pub(super) fn written(plan: &Plan, node: NodeId) -> Option<(String, u32, Vec<String>)> {
    let range = plan.display.get(&node)?.ranges.first()?;
    let (file, text) = plan.sources.get(range.source as usize)?;
    let first = range.start_line.max(1) as usize;
    let count = (range.end_line.max(range.start_line) - range.start_line) as usize + 1;
    let lines: Vec<String> = text
        .lines()
        .skip(first - 1)
        .take(count)
        .map(str::to_owned)
        .collect();
    (!lines.is_empty()).then(|| (file.clone(), range.start_line, lines))
}
