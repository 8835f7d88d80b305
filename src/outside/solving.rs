//! A plan that a front end asks to have carried out, so that it can read what comes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_executor::{BuildWorker, Peek};
use kiln_frontend::outside::PlanForm;
use kiln_solver::{Goal, Need, SolveError, SolveOptions, SolveRequest, Solver};

use super::desk::Desk;
use super::failure::FrontendProblem;
use crate::build::failed;
use crate::delivery::Asker;
use crate::missing::Contexts;
use crate::steps::{Steps, Teller};
use crate::{Error, Event, StepStatus, entitlement};

impl Desk<'_> {
    /// Carries out a plan with one result; a step that fails fails the build, as any step does.
    pub(super) async fn carry_out(&mut self, asker: &Asker, form: PlanForm) -> Result<Peek, Error> {
        self.solved += 1;
        let wrong = |reason: String| FrontendProblem::SubPlan { reason };
        let plan = self.read_plan(form, &BTreeMap::new());
        let plan = plan.map_err(|reason| self.failure(wrong(reason)))?;
        let mut outputs = plan.results.values().map(|result| result.output);
        let (Some(Some(input)), None) = (outputs.next(), outputs.next()) else {
            let reason = "it must have one result, and that an output".to_owned();
            return Err(self.failure(wrong(reason)));
        };
        drop(outputs);
        entitlement::check(&plan, &asker.allow)?;
        // Whoever stops the build waits for this: no step is left running.
        let _busy = asker.solving.lock().await;
        let plan = Arc::new(plan);
        let steps = Steps::of(&plan);
        let texts: Vec<String> = steps.infos.iter().map(|info| info.text.clone()).collect();
        let (tell, shown) = (Arc::clone(&asker.tell), self.shown.clone());
        let sink = move |event: Event| {
            let (step, what) = match event {
                Event::Started { step } => (step, "runs"),
                Event::Finished {
                    step,
                    status: StepStatus::Failed,
                    ..
                } => (step, "failed:"),
                _ => return,
            };
            tell(Event::Notice(format!("{shown} {what} {}", texts[step])));
        };
        let teller = Arc::new(Teller::new(steps, std::time::Instant::now(), sink));
        let worker = BuildWorker::new(
            asker.resolver.executor(),
            Arc::clone(&asker.resolver),
            self.locals.clone(),
        );
        let worker = worker
            .with_secrets(asker.secrets.clone())
            .with_cancel(&asker.cancel);
        let worker = Arc::new(worker);
        // Each question of a front end has a history of its own.
        let lineage = format!("{}\nquestion {}", self.lineage, self.solved);
        let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
        let request = SolveRequest {
            plan: Arc::clone(&plan),
            goals: vec![Goal {
                input,
                need: Need::Present,
            }],
            notes: teller
                .steps
                .notes(&lineage, &self.declared_args, &self.no_cache),
            options: SolveOptions::for_cores(cores),
        };
        let events: Arc<dyn kiln_solver::Events> = teller.clone();
        let solved = Solver::new()
            .solve(Arc::clone(&worker), request, events, asker.cancel.clone())
            .await;
        let mut solved = match solved {
            Ok(solved) => solved,
            Err(SolveError::Cancelled { .. }) => return Err(Error::Cancelled),
            Err(SolveError::Failed { failures, .. }) => {
                let contexts = Contexts {
                    directories: self.locals.directories.clone(),
                    ..Contexts::default()
                };
                return Err(failed(&plan, &teller, &contexts, failures));
            }
            Err(error) => return Err(Error::Solver(Box::new(error))),
        };
        let handle = solved.goals.pop().and_then(|goal| goal.handle);
        let Some(handle) = handle else {
            unreachable!("BUG: a goal that was to be present is not");
        };
        Ok(Peek::result(asker.resolver.executor(), &worker, &handle)?)
    }
}
