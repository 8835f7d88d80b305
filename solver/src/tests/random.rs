//! Random graphs and histories against an oracle that knows no cache.

use std::collections::{BTreeMap, BTreeSet};

use kiln_ir::{Input, NodeId, Op, SourceOp};
use proptest::prelude::*;

use super::graph::Script;
use super::simulate::Simulation;
use super::world::World;
use crate::*;

/// One step of a random graph: what it is, and which earlier ones it reads.
#[derive(Debug, Clone)]
struct RandomStep {
    kind: u8,
    root: prop::sample::Index,
    other: prop::sample::Index,
    force: bool,
}

/// What happens between two builds.
#[derive(Debug, Clone)]
enum Change {
    Edit(u8, u8),
    Retag,
    Rebase(u8),
    Evict(prop::sample::Index),
    LoseLayer(prop::sample::Index),
    /// All that is here is on another machine from now on, but for some layers.
    MoveAway(prop::sample::Index),
    Nothing,
}

fn step() -> impl Strategy<Value = RandomStep> {
    (
        0u8..6,
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(kind, root, other, force)| RandomStep {
            kind,
            root,
            other,
            force,
        })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0u8..3, 0u8..3).prop_map(|(file, text)| Change::Edit(file, text)),
        1 => Just(Change::Retag),
        1 => (0u8..2).prop_map(Change::Rebase),
        2 => any::<prop::sample::Index>().prop_map(Change::Evict),
        2 => any::<prop::sample::Index>().prop_map(Change::LoseLayer),
        2 => any::<prop::sample::Index>().prop_map(Change::MoveAway),
        1 => Just(Change::Nothing),
    ]
}

fn script_of(steps: &[RandomStep]) -> (Script, Vec<Input>) {
    let mut script = Script::default();
    let base = script.image("alpine");
    let context = script.local("context");
    let mut made = vec![base];
    for (i, step) in steps.iter().enumerate() {
        let root = made[step.root.index(made.len())];
        let other = made[step.other.index(made.len())];
        script.no_cache(step.force);
        let binds: &[(&str, Input)] = if other == root { &[] } else { &[("/m", other)] };
        made.push(match step.kind {
            0 => script.run_with(root, "len /src/f0 /len", &[("/src", context)], &[]),
            1 => script.copy(root, context, "f1", "/c"),
            2 if i % 2 == 0 => script.run_caching(root, &format!("write /w{i} x"), &["c"]),
            2 => script.run(root, &format!("write /w{i} x")),
            3 if other != root && other != base => script.copy(root, other, "/", "/o"),
            4 => script.run_with(root, "all /all", binds, &[]),
            _ => script.copy(root, context, "/", "/ctx"),
        });
    }
    script.no_cache(false);
    (script, made.split_off(1))
}

/// What a node holds with no cache at all.
fn oracle(
    world: &mut World,
    script: &Script,
    node: NodeId,
    known: &mut BTreeMap<NodeId, Content>,
) -> Content {
    if let Some(content) = known.get(&node) {
        return content.clone();
    }
    let inputs: Vec<Content> = script
        .plan
        .graph
        .node(node)
        .inputs
        .iter()
        .map(|input| oracle(world, script, input.node, known))
        .collect();
    let content = match &script.plan.graph.node(node).op {
        Op::Source(SourceOp::Local(_)) => Content::new(),
        Op::Source(_) => world.fetch(&script.plan, node).unwrap().content,
        _ => world.run(&script.plan, node, &inputs).unwrap()[0]
            .clone()
            .unwrap(),
    };
    known.insert(node, content.clone());
    content
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_build_of_a_history_is_what_the_oracle_makes(
        steps in prop::collection::vec(step(), 1..9),
        goal_picks in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        history in prop::collection::vec(change(), 1..6),
        order in prop::collection::vec(any::<prop::sample::Index>(), 16),
        jobs in 1usize..4,
    ) {
        let (script, made) = script_of(&steps);
        let mut world = World::default();
        world.image("alpine", "etc/os", "0").file("context", "f0", "a").file("context", "f1", "b").file("context", "f2", "c");
        let goals: BTreeSet<Input> = goal_picks.iter().map(|pick| made[pick.index(made.len())]).collect();
        let goals: Vec<(Input, Need)> = goals
            .into_iter()
            .enumerate()
            .map(|(i, goal)| (goal, if i % 2 == 0 { Need::Present } else { Need::Known }))
            .collect();
        for change in &history {
            match change {
                Change::Edit(file, text) => {
                    world.file("context", &format!("f{file}"), &"x".repeat(usize::from(*text)));
                }
                Change::Retag => {
                    let image = world.images.get_mut("alpine").unwrap();
                    image.0.push('0');
                }
                Change::Rebase(text) => {
                    world.image("alpine", "etc/os", &text.to_string());
                }
                Change::Evict(pick) => {
                    let ids: Vec<RecordId> = world.records.keys().copied().collect();
                    if !ids.is_empty() {
                        world.forget(ids[pick.index(ids.len())]);
                    }
                }
                Change::LoseLayer(pick) => {
                    let mut ids: Vec<ContentId> = world.layers.keys().copied().filter(|id| matches!(id, ContentId::Layer(_))).collect();
                    ids.sort();
                    if !ids.is_empty() {
                        world.layers.remove(&ids[pick.index(ids.len())]);
                    }
                }
                Change::MoveAway(pick) => {
                    world.move_away();
                    let far = world.far.as_mut().unwrap();
                    let mut ids: Vec<ContentId> = far.layers.keys().copied().collect();
                    ids.sort();
                    // One of them is lost on the way, if it is not the first.
                    if let Some(lost) = ids.get(pick.index(ids.len() + 1)).filter(|_| ids.len() > 1) {
                        far.layers.remove(lost);
                    }
                }
                Change::Nothing => {}
            }
            let mut picks = order.iter().cycle();
            let outcome = Simulation {
                world: &mut world,
                script: &script,
                options: SolveOptions { jobs, keep_going: false },
                order: &mut |count| picks.next().unwrap().index(count),
                others: BTreeMap::new(),
            }
            .build(&goals);
            let results = outcome.results.expect("every build succeeds");
            let mut known = BTreeMap::new();
            let mut pure = world.clone();
            for result in results {
                let expected = oracle(&mut pure, &script, result.goal.input.node, &mut known);
                prop_assert_eq!(&result.content, &expected, "\n{}", outcome.log);
                prop_assert!(result.goal.need == Need::Known || result.handle.as_ref() == Some(&expected));
            }
            for (node, status) in &outcome.statuses {
                let forced = script.plan.display.get(node).is_some_and(|display| display.ignore_cache);
                prop_assert!(!matches!(status, StepStatus::Skipped | StepStatus::Failed | StepStatus::Cancelled));
let found = matches!(
                    status,
                    StepStatus::Cached { road: Road::Definition | Road::Content }
                );
                prop_assert!(!(forced && found), "a forced step was found");
            }
        }
    }
}
