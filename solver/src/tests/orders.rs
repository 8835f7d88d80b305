//! Small graphs, with their steps ending in every possible order.

use std::collections::BTreeMap;

use kiln_ir::Input;

use super::graph::Script;
use super::simulate::{Outcome, Simulation};
use super::world::World;
use crate::*;

/// Simulates a build in every order of completions, up to `limit` of them, and hands each to `check`.
fn in_every_order(
    start: &World,
    script: &Script,
    goals: &[(Input, Need)],
    options: SolveOptions,
    limit: usize,
    mut check: impl FnMut(&World, Outcome),
) -> usize {
    let mut prefix: Vec<usize> = Vec::new();
    for count in 1..=limit {
        let mut world = start.clone();
        let mut at = 0;
        let outcome = Simulation {
            world: &mut world,
            script,
            options,
            order: &mut |_| {
                at += 1;
                prefix.get(at - 1).copied().unwrap_or(0)
            },
            others: BTreeMap::new(),
        }
        .build(goals);
        prefix.resize(outcome.choices.len(), 0);
        let last = (0..prefix.len())
            .rev()
            .find(|&i| prefix[i] + 1 < outcome.choices[i]);
        check(&world, outcome);
        let Some(last) = last else { return count };
        prefix.truncate(last + 1);
        prefix[last] += 1;
    }
    limit
}

fn diamond() -> (World, Script, Input) {
    let mut world = World::default();
    world
        .image("alpine", "etc/os", "alpine 3")
        .file("context", "big", "1234");
    let mut script = Script::default();
    let base = script.image("alpine");
    let context = script.local("context");
    let left = script.run_with(base, "len /src/big /left", &[("/src", context)], &[]);
    let right = script.run_caching(base, "write /right 2", &["c"]);
    let top = script.run_with(base, "all /top", &[("/l", left), ("/r", right)], &[]);
    (world, script, top)
}

#[test]
fn a_first_build_comes_to_the_same_in_every_order() {
    let (world, script, top) = diamond();
    for jobs in [1, 8] {
        let options = SolveOptions {
            jobs,
            keep_going: false,
        };
        let mut contents = Vec::new();
        let orders = in_every_order(
            &world,
            &script,
            &[(top, Need::Present)],
            options,
            1_000,
            |after, outcome| {
                assert_eq!(after.records.len(), 3);
                contents.push(outcome.results.unwrap()[0].content.clone());
            },
        );
        assert!(orders > 20, "only {orders} orders");
        contents.dedup();
        assert_eq!(contents.len(), 1);
    }
}

#[test]
fn a_rebuild_runs_the_same_steps_in_every_order() {
    let (mut world, script, top) = diamond();
    let goals = [(top, Need::Present)];
    let options = SolveOptions::for_cores(1);
    super::simulate::build(&mut world, &script, &[top]);
    world.file("context", "big", "4321");
    let mut statuses = Vec::new();
    in_every_order(&world, &script, &goals, options, 1_000, |_, outcome| {
        statuses.push(outcome.statuses);
    });
    statuses.dedup();
    assert_eq!(statuses.len(), 1);
    let ran = statuses[0].values();
    assert_eq!(
        ran.filter(|status| matches!(status, StepStatus::Ran { .. }))
            .count(),
        1
    );
}

#[test]
fn lost_layers_are_made_again_in_every_order() {
    let (mut world, script, top) = diamond();
    let fresh = super::simulate::build(&mut world, &script, &[top]);
    let expected = fresh.results.unwrap()[0].content.clone();
    world.evict("RUN all /top");
    world.layers.clear();
    let goals = [(top, Need::Present)];
    in_every_order(
        &world,
        &script,
        &goals,
        SolveOptions::for_cores(1),
        1_000,
        |_, outcome| {
            assert_eq!(outcome.results.unwrap()[0].content, expected);
        },
    );
}

#[test]
fn results_of_another_machine_come_to_the_same_in_every_order() {
    let (mut world, script, top) = diamond();
    let fresh = super::simulate::build(&mut world, &script, &[top]);
    let expected = fresh.results.unwrap()[0].content.clone();
    world.move_away();
    let far = world.far.as_mut().unwrap();
    far.evict("RUN all /top");
    far.lose_layers("RUN write /right 2");
    let goals = [(top, Need::Present)];
    let options = SolveOptions::for_cores(1);
    let orders = in_every_order(&world, &script, &goals, options, 1_000, |_, outcome| {
        assert_eq!(outcome.results.unwrap()[0].content, expected);
    });
    assert!(orders > 20, "only {orders} orders");
}

#[test]
fn a_failure_files_no_wrong_record_in_any_order() {
    let (world, mut script, top) = diamond();
    let base = script.image("alpine");
    let bad = script.run(base, "exit 1");
    let goals = [(top, Need::Present), (bad, Need::Known)];
    for keep_going in [false, true] {
        let options = SolveOptions {
            jobs: 4,
            keep_going,
        };
        in_every_order(&world, &script, &goals, options, 1_000, |after, outcome| {
            assert!(outcome.results.is_none());
            assert_eq!(outcome.statuses[&bad.node], StepStatus::Failed);
            assert!(
                !after
                    .records
                    .values()
                    .any(|stored| stored.new.facts.step.text == "RUN exit 1")
            );
            if keep_going {
                assert_eq!(after.records.len(), 3);
            }
        });
    }
}
