//! What a second build does after something changed: graph and world in, event log out.

use std::collections::BTreeMap;

use insta::assert_snapshot;
use kiln_ir::Input;

use super::graph::{Script, screen};
use super::simulate::{Other, Simulation, build, build_with, in_order};
use super::world::World;
use crate::*;

fn world() -> World {
    let mut world = super::world::world();
    world.file("context", "src/main.c", "main");
    world
}

#[test]
fn a_first_build_runs_everything() {
    let (script, app) = screen();
    assert_snapshot!(build(&mut world(), &script, &[app]).log);
}

#[test]
fn nothing_changed_is_one_lookup() {
    let (script, app) = screen();
    let mut world = world();
    build(&mut world, &script, &[app]);
    let again = build(&mut world, &script, &[app]);
    assert_snapshot!(again.log, @r"
    pin alpine
    digest context for RUN len /src/big /count
    lookup definition of COPY /sorted /: hit
    = COPY /sorted /: cached
    ");
    assert!(again.statuses.values().all(StepStatus::is_cached));
}

#[test]
fn a_file_that_left_the_view_cuts_off() {
    let (script, app) = screen();
    let mut world = world();
    build(&mut world, &script, &[app]);
    world.file("context", "big", "4321");
    assert_snapshot!(build(&mut world, &script, &[app]).log);
}

#[test]
fn the_build_after_a_cutoff_hits_from_the_top() {
    let (script, app) = screen();
    let mut world = world();
    build(&mut world, &script, &[app]);
    world.file("context", "big", "4321");
    build(&mut world, &script, &[app]);
    assert_snapshot!(build(&mut world, &script, &[app]).log, @r"
    pin alpine
    digest context for RUN len /src/big /count
    lookup definition of COPY /sorted /: hit
    = COPY /sorted /: cached
    ");
}

#[test]
fn other_bytes_run_all_that_sees_them() {
    let (script, app) = screen();
    let mut world = world();
    build(&mut world, &script, &[app]);
    world.file("context", "big", "12345");
    assert_snapshot!(build(&mut world, &script, &[app]).log);
}

#[test]
fn a_file_copied_below_a_step_does_not_cut_off() {
    let mut script = Script::default();
    let base = script.image("alpine");
    let context = script.local("context");
    let copied = script.copy(base, context, "big", "/");
    let count = script.run(copied, "len /big /count");
    let mut world = world();
    build(&mut world, &script, &[count]);
    world.file("context", "big", "4321");
    assert_snapshot!(build(&mut world, &script, &[count]).log);
}

#[test]
fn a_copy_added_at_the_end_leaves_earlier_keys() {
    let mut world = world();
    let mut script = Script::default();
    let base = script.image("alpine");
    let context = script.local("context");
    let first = script.copy(base, context, "big", "/");
    let second = script.run(first, "len /big /count");
    build(&mut world, &script, &[second]);
    let before: Vec<DefinitionKey> = world.by_definition.keys().copied().collect();
    let third = script.copy(second, context, "src", "/src");
    let outcome = build(&mut world, &script, &[third]);
    assert!(
        before
            .iter()
            .all(|key| world.by_definition.contains_key(key))
    );
    assert_eq!(world.by_definition.len(), 3);
    assert_snapshot!(outcome.log);
}

#[test]
fn a_retagged_base_with_the_same_layers_is_found_by_content() {
    let mut world = world();
    let (script, app) = screen();
    build(&mut world, &script, &[app]);
    world.images.get_mut("alpine").unwrap().0 = "sha256:77ab0000aaaa".into();
    assert_snapshot!(build(&mut world, &script, &[app]).log);
}

#[test]
fn another_base_runs_everything_and_is_named() {
    let mut world = world();
    let (script, app) = screen();
    build(&mut world, &script, &[app]);
    world.image("alpine", "etc/os", "alpine 4");
    world.images.get_mut("alpine").unwrap().0 = "sha256:77ab0000aaaa".into();
    assert_snapshot!(build(&mut world, &script, &[app]).log);
}

#[test]
fn a_forced_step_runs_and_is_cut_off_above() {
    let mut world = world();
    let (script, app) = screen();
    build(&mut world, &script, &[app]);
    let mut script = Script::default();
    let base = script.image("alpine");
    let context = script.local("context");
    script.no_cache(true);
    let count = script.run_with(base, "len /src/big /count", &[("/src", context)], &[]);
    script.no_cache(false);
    let sorted = script.run(count, "cat /count /sorted");
    let app_again = script.copy(base, sorted, "/sorted", "/");
    let _ = app;
    assert_snapshot!(build(&mut world, &script, &[app_again]).log);
}

#[test]
fn a_forced_step_never_takes_the_old_result_of_what_is_above_it() {
    let mut world = world();
    let scripts = |force| {
        let mut script = Script::default();
        let base = script.image("alpine");
        script.no_cache(force);
        let random = script.run(base, "random /r");
        script.no_cache(false);
        let copied = script.copy(base, random, "/r", "/");
        let top = script.run(copied, "cat /r /top");
        (script, top)
    };
    let (script, top) = scripts(false);
    let first = build(&mut world, &script, &[top]).results.unwrap()[0]
        .content
        .clone();
    let (forced, top) = scripts(true);
    let second = build(&mut world, &forced, &[top]).results.unwrap()[0]
        .content
        .clone();
    assert_ne!(first, second);
    // The forced step writes the first bytes again: what is on top must follow, although the
    // definition keys stand for the second by now.
    world.chance = 0;
    let third = build(&mut world, &forced, &[top]).results.unwrap()[0]
        .content
        .clone();
    assert_eq!(first, third);
    let (script, top) = scripts(false);
    let fourth = build(&mut world, &script, &[top]).results.unwrap()[0]
        .content
        .clone();
    assert_eq!(first, fourth);
}

#[test]
fn an_evicted_step_runs_and_says_so() {
    let mut world = world();
    let (script, app) = screen();
    build(&mut world, &script, &[app]);
    world.evict("COPY /sorted /");
    assert_snapshot!(build(&mut world, &script, &[app]).log);
}

#[test]
fn lost_layers_reopen_what_needs_them() {
    let mut world = world();
    let (script, app) = screen();
    build(&mut world, &script, &[app]);
    world.lose_layers("RUN cat /count /sorted");
    world.evict("COPY /sorted /");
    assert_snapshot!(build(&mut world, &script, &[app]).log);
}

#[test]
fn reopenings_are_bounded_by_records_even_if_they_are_not_dropped() {
    let mut world = world();
    let (script, app) = screen();
    build(&mut world, &script, &[app]);
    // Every layer is gone at once, and what is dropped by one build is all there is.
    world.layers.clear();
    let goals = [(app, Need::Present)];
    let outcome = in_order(&mut world, &script, &goals, SolveOptions::for_cores(1));
    assert!(outcome.results.is_some());
    assert_eq!(outcome.log.matches("drop").count(), 3);
}

#[test]
fn a_changed_order_is_told() {
    let mut world = world();
    let mut script = Script::default();
    let base = script.image("alpine");
    let a = script.run(base, "write /a 1");
    let b = script.run(a, "write /b 2");
    build(&mut world, &script, &[b]);
    let mut script = Script::default();
    let base = script.image("alpine");
    let b = script.run(base, "write /b 2");
    let a = script.run(b, "write /a 1");
    assert_snapshot!(build(&mut world, &script, &[a]).log);
}

/// Builds twice with one step between base and goal, and tells how that step ended.
fn check_reason(first: (&str, &[&str]), second: (&str, &[&str]), args: &[&str], expected: &str) {
    let mut world = world();
    let mut log = String::new();
    for (command, env) in [first, second] {
        let mut script = Script::default();
        let base = script.image("alpine");
        let step = script.run_with(base, command, &[], env);
        let note = script.notes.get_mut(&step.node).unwrap();
        note.build_args = args.iter().map(|&arg| arg.to_owned()).collect();
        log = build(&mut world, &script, &[step]).log;
    }
    let last = log.lines().rfind(|line| line.starts_with('=')).unwrap();
    assert!(
        last.ends_with(expected),
        "{last:?} does not end with {expected:?}"
    );
}

#[test]
fn an_env_is_named() {
    check_reason(
        ("all /x", &["MODE=a", "P=1"]),
        ("all /x", &["MODE=b", "P=1"]),
        &[],
        r#": ran - ENV MODE changed ("a" -> "b")"#,
    );
}

#[test]
fn a_build_argument_is_named() {
    check_reason(
        ("all /x", &["VERSION=1.0"]),
        ("all /x", &["VERSION=1.1"]),
        &["VERSION"],
        r#": ran - build argument VERSION changed ("1.0" -> "1.1")"#,
    );
}

#[test]
fn a_new_build_argument_is_named() {
    check_reason(
        ("all /x", &[]),
        ("all /x", &["VERSION=1.1"]),
        &["VERSION"],
        ": ran - build argument VERSION added (\"1.1\")",
    );
}

#[test]
fn an_edited_instruction_is_quoted() {
    check_reason(
        ("write /a 1", &[]),
        ("write /a 2", &[]),
        &[],
        ": ran - instruction changed (line 2: was `RUN write /a 1`)",
    );
}

#[test]
fn a_new_step_is_new() {
    let mut world = world();
    let mut script = Script::default();
    let base = script.image("alpine");
    let step = script.run(base, "write /a 1");
    let log = build(&mut world, &script, &[step]).log;
    assert!(log.contains(": ran - new\n"), "{log}");
}

fn failing() -> (Script, Vec<Input>) {
    let mut script = Script::default();
    let base = script.image("alpine");
    let bad = script.run(base, "exit 3");
    let above = script.run(bad, "write /a 1");
    let other = script.run(base, "write /b 1");
    let on_other = script.run(other, "write /c 1");
    (script, vec![above, on_other])
}

#[test]
fn a_failure_stops_the_rest() {
    let (script, goals) = failing();
    let outcome = build(&mut world(), &script, &goals);
    assert!(outcome.results.is_none());
    assert_snapshot!(outcome.log);
}

#[test]
fn keep_going_stops_only_what_needs_it() {
    let (script, goals) = failing();
    let options = SolveOptions {
        jobs: 1,
        keep_going: true,
    };
    let outcome = build_with(&mut world(), &script, &goals, options);
    assert!(outcome.results.is_none());
    let count = |status: fn(&StepStatus) -> bool| {
        outcome
            .statuses
            .values()
            .filter(|&each| status(each))
            .count()
    };
    assert_eq!(count(|status| *status == StepStatus::Failed), 1);
    assert_eq!(count(|status| *status == StepStatus::Skipped), 1);
    assert_eq!(count(|status| matches!(status, StepStatus::Ran { .. })), 2);
    assert_snapshot!(outcome.log);
}

#[test]
fn a_missing_file_fails_its_copy() {
    let mut script = Script::default();
    let base = script.image("alpine");
    let context = script.local("context");
    let copied = script.copy(base, context, "nope", "/");
    let outcome = build(&mut world(), &script, &[copied]);
    assert_eq!(outcome.statuses[&copied.node], StepStatus::Failed);
    assert_snapshot!(outcome.log, @r"
    pin alpine
    digest context for COPY nope /
    error: `nope` is not in context
    = COPY nope /: failed
    ");
}

#[test]
fn a_missing_base_fails_itself() {
    let mut script = Script::default();
    let base = script.image("nope");
    let step = script.run(base, "write /a 1");
    let outcome = build(&mut world(), &script, &[step]);
    assert_eq!(outcome.statuses[&base.node], StepStatus::Failed);
    assert_eq!(outcome.statuses[&step.node], StepStatus::Skipped);
}

#[test]
fn what_another_process_made_meanwhile_is_taken() {
    let mut script = Script::default();
    let base = script.image("alpine");
    let step = script.run(base, "write /a 1");
    let mut world = world();
    let theirs = script.plan();
    let other = {
        let mut script = Script::default();
        let base = script.image("alpine");
        script.run(base, "write /a 1");
        assert_eq!(script.plan.graph.len(), theirs.graph.len());
        Box::new(move |world: &mut World| {
            let goal = Input {
                node: step.node,
                output: 0,
            };
            build(world, &script, &[goal]);
        })
    };
    let outcome = Simulation {
        world: &mut world,
        script: &script,
        options: SolveOptions::for_cores(1),
        order: &mut |_| 0,
        others: BTreeMap::from([(step.node, other as Other)]),
    }
    .build(&[(step, Need::Known)]);
    assert_snapshot!(outcome.log);
}

#[test]
fn layers_that_can_not_be_looked_into_close_the_content_road() {
    let mut world = world();
    world.blind = true;
    let (script, app) = screen();
    build(&mut world, &script, &[app]);
    let roads = world.records.values().map(|stored| {
        (
            stored.new.facts.step.text.as_str(),
            stored.new.content.is_some(),
        )
    });
    assert_eq!(
        roads.collect::<Vec<_>>(),
        [
            ("RUN len /src/big /count", true),
            ("RUN cat /count /sorted", true),
            ("COPY /sorted /", false),
        ]
    );
}

#[test]
fn equal_steps_on_scratch_need_no_source() {
    let mut script = Script::default();
    let file = script.mkfile("/a", "text");
    let mut world = World::default();
    build(&mut world, &script, &[file]);
    let log = build(&mut world, &script, &[file]).log;
    assert_eq!(
        log,
        "lookup definition of MKFILE /a: hit\n= MKFILE /a: cached\n"
    );
}

#[test]
fn goals_are_looked_up_together() {
    let mut script = Script::default();
    let base = script.image("alpine");
    let goals: Vec<Input> = (0..4)
        .map(|i| script.run(base, &format!("write /a {i}")))
        .collect();
    let mut world = world();
    build(&mut world, &script, &goals);
    let log = build(&mut world, &script, &goals).log;
    assert_eq!(log.matches("lookup").count(), 1);
}
