//! Definition keys as far as a plan alone tells them, for saying what a change of the plan would run again.

use std::collections::BTreeMap;

use kiln_ir::{NodeId, Op, Plan, SourceOp};

use crate::hasher::Hasher;
use crate::keywriter::{KeyInput, KeyWriter, write_op};
use crate::{DefinitionKey, Origin, PinnedSource, SelectionDigest, StepName};

/// Returns for each node a key that is another one in another plan only if its definition key is.
///
/// A source that is not pinned is taken to be what it is called, and files of local sources to be the
/// same, as long as the source itself is. Keys of this kind mean nothing to a store.
pub fn foreseen_keys(plan: &Plan) -> BTreeMap<NodeId, DefinitionKey> {
    let mut keys = BTreeMap::new();
    for id in plan.order() {
        let node = plan.graph.node(id);
        let mut hasher = Hasher::definition();
        write_op(node, &mut hasher);
        if let Op::Source(source) = &node.op {
            let identity = match (plan.pins.get(&id), source) {
                (Some(pin), _) => pin.value().as_bytes().to_vec(),
                (None, _) => called(source),
            };
            let nothing = PinnedSource {
                reference: String::new(),
                pin: String::new(),
                base: false,
            };
            hasher.identity(&identity, &nothing);
        }
        let nobody = Origin::Step(StepName::default());
        for (index, input) in (0..).zip(&node.inputs) {
            match &plan.graph.node(input.node).op {
                Op::Source(source @ SourceOp::Local(local)) => {
                    let selected = SelectionDigest {
                        digest: *blake3::hash(&called(source)).as_bytes(),
                        tree: None,
                        summary: String::new(),
                    };
                    let source = &local.name;
                    hasher.input(
                        index,
                        &KeyInput::Files {
                            source,
                            selected: &selected,
                        },
                    );
                }
                _ => hasher.input(
                    index,
                    &KeyInput::Definition {
                        key: keys[&input.node],
                        output: input.output,
                        from: &nobody,
                    },
                ),
            }
        }
        keys.insert(id, hasher.into_definition());
    }
    keys
}

/// What says of an unpinned source which one it is.
fn called(source: &SourceOp) -> Vec<u8> {
    let name = match source {
        SourceOp::Image(image) => vec![&image.reference],
        SourceOp::OciLayout(layout) => vec![&layout.reference],
        SourceOp::Git(git) => vec![&git.remote, &git.reference, &git.subdir],
        SourceOp::Http(http) => vec![&http.url],
        SourceOp::Blob(blob) => vec![&blob.reference],
        SourceOp::Local(local) => {
            let rules = local.exclude.iter().chain(&local.follow_paths);
            [&local.name].into_iter().chain(rules).collect()
        }
    };
    let parts = name.into_iter().flat_map(|part| {
        let length = (part.len() as u64).to_be_bytes();
        length.into_iter().chain(part.bytes())
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The numbers of the new plan's ops whose keys the old one does not have.
    fn check(old: &str, new: &str, expected: &[usize]) {
        let base = "%0 = image docker.io/library/a:1 linux/amd64\n%1 = local context\n";
        let plan = |text: &str| kiln_ir::parse(&format!("{base}{text}")).unwrap();
        let (old, new) = (plan(old), plan(new));
        let known: BTreeSet<_> = foreseen_keys(&old).into_values().collect();
        let keys = foreseen_keys(&new);
        let order = new.order().into_iter().enumerate();
        let found = order.filter(|(_, id)| !known.contains(&keys[id]));
        assert_eq!(
            found.map(|(at, _)| at).collect::<Vec<_>>(),
            expected,
            "{new}"
        );
    }

    #[test]
    fn a_change_reaches_what_is_above() {
        let plan = |one: &str, two: &str| {
            format!(
                "%2 = file %0 {{ copy %1:/a -> /a }}\n%3 = exec %2 [{one}]\n%4 = exec %3 [{two}]\nresult %4\n"
            )
        };
        check(&plan("x", "y"), &plan("x", "y"), &[]);
        check(&plan("x", "y"), &plan("z", "y"), &[3, 4]);
        check(&plan("x", "y"), &plan("x", "z"), &[4]);
    }

    #[test]
    fn what_is_in_no_key_changes_none() {
        let plan =
            |more: &str| format!("%2 = exec %0 [x] {more} {{ cache -> /c id=a }}\nresult %2\n");
        check(&plan(""), &plan("proxy={http=p}"), &[]);
        check(&plan(""), &plan("cwd=/x"), &[1]);
        check(&plan(""), &plan("").replace("id=a", "id=b"), &[]);
    }

    #[test]
    fn sources_by_pin_or_name() {
        let plan = |pin: &str| {
            format!(
                "%2 = exec %0 [x]\nresult %2\npin %0 = manifest sha256:{}\n",
                pin.repeat(64)
            )
        };
        check(&plan("1"), &plan("1"), &[]);
        check(&plan("1"), &plan("2"), &[0, 1]);
    }

    #[test]
    fn ignore_rules_reach_what_reads_files() {
        let plan = |source: &str| {
            format!("%9 = local context {source}\n%2 = file %0 {{ copy %9:/a -> /a }}\nresult %2\n")
        };
        check(&plan(""), &plan("exclude=[\"*.o\"]"), &[1, 2]);
    }
}
