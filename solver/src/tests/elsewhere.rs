//! Results of another machine: what is asked there, when, and what is brought from there.

use insta::assert_snapshot;
use kiln_ir::Input;

use super::graph::{Script, screen};
use super::simulate::{Outcome, build, build_with, in_order};
use super::world::{World, world};
use crate::*;

/// A world whose other machine has built it already.
fn moved(script: &Script, goal: Input) -> World {
    let mut world = world();
    build(&mut world, script, &[goal]);
    world.move_away();
    world
}

fn build_present(world: &mut World, script: &Script, goal: Input) -> Outcome {
    let goals = [(goal, Need::Present)];
    in_order(world, script, &goals, SolveOptions::for_cores(2))
}

#[test]
fn only_the_result_is_brought_here() {
    let (script, app) = screen();
    let mut world = moved(&script, app);
    assert_snapshot!(build_present(&mut world, &script, app).log);
}

#[test]
fn what_nobody_exports_is_brought_from_nowhere() {
    let (script, app) = screen();
    let mut world = moved(&script, app);
    assert_snapshot!(build(&mut world, &script, &[app]).log);
    assert!(world.layers.is_empty());
}

#[test]
fn what_is_here_is_not_sought() {
    let (script, app) = screen();
    let mut world = world();
    build(&mut world, &script, &[app]);
    world.far = Some(Box::default());
    let again = build_present(&mut world, &script, app);
    assert!(!again.log.contains("seek"), "{}", again.log);
}

#[test]
fn what_is_found_once_is_here_from_then_on() {
    let (script, app) = screen();
    let mut world = moved(&script, app);
    build_present(&mut world, &script, app);
    let again = build_present(&mut world, &script, app);
    assert!(!again.log.contains("seek"), "{}", again.log);
}

#[test]
fn nothing_elsewhere_runs_everything() {
    let (script, app) = screen();
    let mut world = world();
    world.far = Some(Box::default());
    assert_snapshot!(build(&mut world, &script, &[app]).log);
}

#[test]
fn what_was_lost_on_the_way_runs() {
    let (script, app) = screen();
    let mut world = moved(&script, app);
    world.far.as_mut().unwrap().lose_layers("COPY /sorted /");
    let outcome = build_present(&mut world, &script, app);
    assert_snapshot!(outcome.log);
    assert!(matches!(
        outcome.statuses[&app.node],
        StepStatus::Ran { .. }
    ));
}

#[test]
fn the_same_bytes_are_found_elsewhere_by_content() {
    let (script, app) = screen();
    let mut world = moved(&script, app);
    world.file("context", "big", "4321");
    assert_snapshot!(build_present(&mut world, &script, app).log);
}

#[test]
fn a_forced_step_is_sought_nowhere() {
    let mut script = Script::default();
    let base = script.image("alpine");
    let first = script.run(base, "write /a 1");
    script.no_cache(true);
    let forced = script.run(first, "write /b 2");
    let mut world = moved(&script, forced);
    let outcome = build(&mut world, &script, &[forced]);
    assert!(
        !outcome.log.contains("seek definition of RUN write /b 2"),
        "{}",
        outcome.log
    );
    assert!(matches!(
        outcome.statuses[&forced.node],
        StepStatus::Ran { .. }
    ));
}

#[test]
fn a_stopped_build_waits_for_nobody_elsewhere() {
    let (mut script, app) = screen();
    let base = script.image("alpine");
    let bad = script.run(base, "exit 1");
    let mut world = moved(&script, app);
    let options = SolveOptions::for_cores(2);
    let outcome = build_with(&mut world, &script, &[bad, app], options);
    assert!(outcome.results.is_none());
    assert_eq!(outcome.statuses[&bad.node], StepStatus::Failed);
}
