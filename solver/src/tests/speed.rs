//! What a build costs in the solver where nothing runs.

use std::time::{Duration, Instant};

use kiln_ir::Input;

use super::graph::Script;
use super::simulate::build;
use super::world::World;
use crate::scheduler::Scheduler;
use crate::step::{Answer, Completion, Step};
use crate::{Goal, Need, SolveOptions};

fn stages(count: u32) -> (Script, Vec<Input>) {
    let mut script = Script::default();
    let base = script.image("alpine");
    let context = script.local("context");
    let stages = (0..count)
        .map(|i| {
            let copied = script.copy(base, context, &format!("f{i}"), "/");
            script.run(copied, &format!("write /x {i}"))
        })
        .collect();
    (script, stages)
}

/// Times the scheduler alone: everything it asks for is answered from maps.
#[allow(clippy::disallowed_methods, reason = "this test is about time")]
fn time_of_scheduling(world: &mut World, script: &Script, goals: &[Input]) -> Duration {
    let plan = script.plan();
    let goals: Vec<Goal> = goals
        .iter()
        .map(|&input| Goal {
            input,
            need: Need::Known,
        })
        .collect();
    let mut outside = Duration::ZERO;
    let start = Instant::now();
    let options = SolveOptions::for_cores(2);
    let mut scheduler = Scheduler::<()>::new(plan.clone(), goals, &script.notes, options);
    while let Some(step) = scheduler.next() {
        let paused = Instant::now();
        let completion = match step {
            Step::Pin { node } => Completion::Pin {
                node,
                result: Ok(world.pin(&plan, node).unwrap()),
            },
            Step::Digest {
                ticket,
                of,
                selection,
                ..
            } => Completion::Digest {
                ticket,
                result: Ok(world.digest(&plan, &of, &selection).unwrap()),
            },
            Step::Lookup { asks } => Completion::Lookup {
                answers: asks
                    .into_iter()
                    .map(|ask| {
                        let key = ask.keys[0];
                        let record = world.lookup(key).unwrap();
                        (ask, Answer::Hit(key, record))
                    })
                    .collect(),
            },
            Step::Tell(_) => {
                outside += paused.elapsed();
                continue;
            }
            other => panic!("nothing else is needed: {other:?}"),
        };
        outside += paused.elapsed();
        scheduler.complete(completion);
    }
    assert!(scheduler.results().is_some());
    start.elapsed() - outside
}

#[test]
fn two_hundred_cached_stages_cost_little() {
    let (script, stages) = stages(200);
    let mut world = World::default();
    world.image("alpine", "etc/os", "3");
    for i in 0..200 {
        world.file("context", &format!("f{i}"), "text");
    }
    build(&mut world, &script, &stages);
    let times = (0..5).map(|_| time_of_scheduling(&mut world, &script, &stages));
    let best = times.min().unwrap();
    // An order of magnitude above what it takes, for slow and busy machines and unoptimised code.
    assert!(best < Duration::from_millis(200), "{best:?}");
}
