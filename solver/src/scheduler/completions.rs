//! What the end of each step changes.

use std::time::Duration;

use super::{Asking, CellState, Digests, Found, Scheduler, State};
use crate::outline::{At, Role};
use crate::step::{Answer, Cutoff, Failed, Notice, Ran, Step, Ticket, Waited};
use crate::{
    Content, Fetched, Key, NewRecord, Outputs, Pinned, Record, Road, SelectionDigest, Sought,
    StepStatus, Wanted,
};

impl<H: Clone> Scheduler<H> {
    pub(super) fn pinned(&mut self, at: At, result: Result<Pinned, Failed>) {
        match result {
            Ok(pinned) => {
                self.steps.push_back(Step::Tell(Notice::Pinned {
                    node: self.outline.nodes[at].id,
                    label: pinned.label.clone(),
                    pin: pinned.pin.clone(),
                }));
                self.nodes[at].pinned = Some(pinned);
                self.touch(at);
            }
            Err(Failed) => self.fail(at, StepStatus::Failed),
        }
    }

    pub(super) fn digested(
        &mut self,
        ticket: Ticket,
        result: Result<Option<SelectionDigest>, Failed>,
    ) {
        let cell = &mut self.cells[ticket.cell];
        if cell.generation != ticket.generation {
            return;
        }
        let local = self.outline.nodes[cell.source].role == Role::Local;
        cell.state = match (result, &cell.state) {
            (Ok(Some(digest)), _) => CellState::Done(digest),
            (Ok(None), _) if local => panic!("BUG: no digest of a local source"),
            (
                Ok(None),
                CellState::Asked {
                    source_present: true,
                },
            ) => CellState::Unavailable,
            (Ok(None), _) => CellState::Absent,
            (Err(Failed), _) => CellState::Failed,
        };
        let source = cell.source;
        self.touch_consumers(source);
    }

    pub(super) fn answered(&mut self, at: At, answer: Answer) {
        let State::Keyed(asking) = self.nodes[at].state else {
            return;
        };
        if let Answer::Hit(key, record) = answer {
            let expected = match (asking, key) {
                (Asking::Definition | Asking::Recheck { asked: true, .. }, Key::Definition(_)) => {
                    true
                }
                (Asking::Content(asked), Key::Content(found)) => asked == found,
                (Asking::Recheck { asked: true, .. }, Key::Content(_)) => true,
                // An input was reopened meanwhile; what was asked is not the question any more.
                _ => false,
            };
            if !expected {
                return;
            }
            if self.is_whole(at, &record) && !self.dropped.contains(&record.id) {
                return self.hit(at, key, record, matches!(asking, Asking::Recheck { .. }));
            }
            return self.missed(at, asking, false);
        }
        let Answer::Miss { op_known } = answer else {
            return;
        };
        self.missed(at, asking, op_known);
    }

    pub(super) fn missed(&mut self, at: At, asking: Asking, op_known: bool) {
        match asking {
            // What is elsewhere comes before whatever would have to be brought here to go on.
            Asking::Definition if self.seeks => {
                let key = Key::Definition(self.definition(at));
                let op = !op_known && !self.nodes[at].content_closed;
                self.nodes[at].op_known = op_known;
                self.seek(at, vec![key], op, Asking::DefinitionElsewhere);
            }
            Asking::Op if self.seeks && !op_known => {
                self.nodes[at].op_known = false;
                self.seek(at, Vec::new(), true, Asking::DefinitionElsewhere);
            }
            Asking::Definition | Asking::Op => self.set_asking(at, Asking::Inputs { op_known }),
            Asking::Content(key) if self.seeks => {
                let keys = vec![Key::Content(key)];
                self.seek(at, keys, false, Asking::ContentElsewhere(key));
            }
            Asking::Content(_) => self.set_asking(at, Asking::Presence),
            Asking::Recheck { asked: true, .. } => self.prepare(at),
            _ => {}
        }
    }

    /// Takes what another machine has, or has not.
    pub(super) fn sought(&mut self, at: At, wanted: &Wanted, sought: Sought) {
        let State::Keyed(asking) = self.nodes[at].state else {
            return;
        };
        let is_question = match asking {
            Asking::DefinitionElsewhere => !matches!(wanted.keys.first(), Some(Key::Content(_))),
            Asking::ContentElsewhere(key) => wanted.keys.contains(&Key::Content(key)),
            // An input was reopened meanwhile.
            _ => false,
        };
        if !is_question {
            return;
        }
        let usable = sought.found.filter(|found| {
            let fits = match found.key {
                // While this was on its way, something that it needs may have run.
                Key::Definition(_) => self.may_ask_definition(at),
                Key::Content(_) => true,
            };
            let is_wanted = wanted.keys.contains(&found.key);
            let record = &found.record;
            fits && is_wanted && self.is_whole(at, record) && !self.dropped.contains(&record.id)
        });
        if let Some(found) = usable {
            self.steps.push_back(Step::Tell(Notice::Imported {
                node: self.outline.nodes[at].id,
                from: found.from,
            }));
            return self.hit(at, found.key, found.record, false);
        }
        let op_known = self.nodes[at].op_known || sought.op_known;
        let next = match asking {
            Asking::DefinitionElsewhere => Asking::Inputs { op_known },
            _ => Asking::Presence,
        };
        self.set_asking(at, next);
    }

    /// Whether a record has every output that the graph has.
    pub(super) fn is_whole(&self, at: At, record: &Record) -> bool {
        self.outline
            .plan
            .graph
            .outputs(self.outline.nodes[at].id)
            .iter()
            .all(|&output| matches!(record.outputs.get(output as usize), Some(Some(_))))
    }

    pub(super) fn hit(&mut self, at: At, key: Key, record: Record, locked: bool) {
        let node = self.outline.nodes[at].id;
        let (road, cutoff) = match key {
            Key::Definition(_) => (Road::Definition, None),
            Key::Content(_) => {
                self.steps.push_back(Step::Alias {
                    record: record.id,
                    definition: self.definition(at),
                });
                self.taint_consumers(at);
                let an_input_ran = !self.ran_inputs(at).is_empty();
                let cutoff = match (an_input_ran, self.nodes[at].tainted) {
                    (true, _) => Some(Cutoff::SameBytes),
                    (false, false) => Some(Cutoff::SameInput),
                    // The input was cut off itself, and says so.
                    (false, true) => None,
                };
                (Road::Content, cutoff)
            }
        };
        self.nodes[at].state = State::Known {
            found: Found {
                outputs: record.outputs.clone(),
                record: Some(record),
            },
            loading: false,
        };
        if locked {
            self.steps.push_back(Step::Unlock { node });
        }
        self.tell(at, StepStatus::Cached { road }, cutoff);
        self.touch(at);
        self.touch_consumers(at);
    }

    pub(super) fn loaded(&mut self, at: At, result: Result<Option<Outputs<H>>, Failed>) {
        let State::Known { found, .. } = &self.nodes[at].state else {
            return;
        };
        match result {
            Ok(Some(handles)) => {
                self.nodes[at].state = State::Present {
                    found: found.clone(),
                    handles,
                };
                self.touch(at);
                self.touch_consumers(at);
            }
            Ok(None) => self.reopen(at),
            Err(Failed) => self.fail(at, StepStatus::Failed),
        }
    }

    /// Begins a node again whose record names content that is gone.
    ///
    /// What was found about its consumers from that content stands where they are done, since a
    /// record is a whole result; those that are still asking ask again.
    pub(super) fn reopen(&mut self, at: At) {
        let node = self.outline.nodes[at].id;
        let State::Known { found, .. } = &self.nodes[at].state else {
            panic!(
                "BUG: `{}` is reopened and was not known",
                self.outline.name(at)
            );
        };
        if let Some(record) = &found.record {
            self.dropped.insert(record.id);
            self.steps.push_back(Step::Drop { record: record.id });
        }
        self.steps.push_back(Step::Tell(Notice::Reopened { node }));
        let state = &mut self.nodes[at];
        state.content_gone = true;
        state.status = None;
        state.state = State::Keyed(Asking::Nothing);
        for cell in &mut self.cells {
            if cell.source == at {
                cell.generation += 1;
                cell.state = CellState::Empty;
            }
        }
        for i in 0..self.outline.nodes[at].consumers.len() {
            let consumer = self.outline.nodes[at].consumers[i];
            let forced = self.outline.nodes[consumer].forced;
            let consumer = &mut self.nodes[consumer];
            match consumer.state {
                State::Keyed(
                    Asking::Digests
                    | Asking::Content(_)
                    | Asking::ContentElsewhere(_)
                    | Asking::Presence,
                ) => {
                    consumer.content = None;
                    consumer.state = State::Keyed(Asking::Inputs {
                        op_known: !consumer.content_closed && !forced,
                    });
                }
                State::Keyed(
                    Asking::Lock
                    | Asking::Recheck { .. }
                    | Asking::Reservation
                    | Asking::Slot
                    | Asking::Running,
                ) => panic!("BUG: an input is reopened that was present"),
                _ => {}
            }
        }
        self.touch(at);
        self.touch_consumers(at);
    }

    pub(super) fn fetched(
        &mut self,
        at: At,
        result: Result<Fetched<H>, Failed>,
        duration: Duration,
    ) {
        self.nodes[at].active = false;
        let fetched = match result {
            Ok(fetched) => fetched,
            Err(Failed) => return self.fail(at, StepStatus::Failed),
        };
        let status = if fetched.transferred {
            StepStatus::Fetched { duration }
        } else {
            StepStatus::Cached { road: Road::Pin }
        };
        let handles = vec![Some(fetched.handle)];
        match &self.nodes[at].state {
            State::Known { found, .. } => {
                self.nodes[at].state = State::Present {
                    found: found.clone(),
                    handles,
                };
            }
            _ => self.made(at, handles, vec![Some(fetched.content)], duration),
        }
        self.tell(at, status, None);
        self.touch(at);
        self.touch_consumers(at);
    }

    pub(super) fn locked(&mut self, at: At, result: Result<Waited, Failed>) {
        match result {
            Err(Failed) => self.fail(at, StepStatus::Failed),
            // It takes no other's result.
            Ok(_) if self.outline.nodes[at].forced => self.prepare(at),
            Ok(Waited(waited)) => self.set_asking(
                at,
                Asking::Recheck {
                    waited,
                    asked: false,
                },
            ),
        }
    }

    pub(super) fn reserved(&mut self, at: At, result: Result<(), Failed>) {
        match result {
            Ok(()) => self.await_slot(at),
            Err(Failed) => self.fail(at, StepStatus::Failed),
        }
    }

    pub(super) fn ended(&mut self, at: At, result: Ran<H>, duration: Duration) {
        self.running -= 1;
        self.nodes[at].active = false;
        match result {
            Ran::Done(outputs) => {
                let (handles, contents) = outputs.into_iter().map(|output| output.unzip()).unzip();
                self.made(at, handles, contents, duration);
                self.tell(at, StepStatus::Ran { duration }, None);
                self.touch(at);
                self.touch_consumers(at);
            }
            Ran::Failed => self.fail(at, StepStatus::Failed),
            Ran::Cancelled => {
                self.fail(at, StepStatus::Cancelled);
            }
        }
    }

    /// Takes the outputs of a run. Consumers go on with them while the record is being filed.
    pub(super) fn made(
        &mut self,
        at: At,
        handles: Outputs<H>,
        outputs: Outputs<Content>,
        duration: Duration,
    ) {
        for &output in self.outline.plan.graph.outputs(self.outline.nodes[at].id) {
            assert!(
                matches!(outputs.get(output as usize), Some(Some(_))),
                "BUG: `{}` ran and has no output {output}",
                self.outline.name(at)
            );
        }
        let node = &mut self.nodes[at];
        node.state = State::Present {
            found: Found {
                outputs,
                record: None,
            },
            handles,
        };
        node.ran = true;
        node.unfiled = Some(duration);
        self.taint_consumers(at);
    }

    /// Files what a run made, once its content key is known or can't be.
    pub(super) fn file(&mut self, at: At) {
        if !self.nodes[at].content_closed && self.nodes[at].content.is_none() {
            let digests = if self.stopped {
                self.digests_so_far(at)
            } else {
                self.digests(at)
            };
            match digests {
                Digests::Done => {
                    self.find_content_key(at);
                }
                Digests::Waiting if !self.stopped => return,
                // A digest that fails after the run did not: the result is good by definition.
                Digests::Waiting | Digests::Unavailable | Digests::Failed => {}
            }
        }
        let (State::Present { found, .. }, Some(duration)) =
            (&self.nodes[at].state, self.nodes[at].unfiled)
        else {
            panic!("BUG: `{}` is filed and did not run", self.outline.name(at));
        };
        let outline = &self.outline.nodes[at];
        let record = NewRecord {
            definition: self.definition(at),
            content: self.nodes[at].content,
            op: outline.op,
            slot: outline.slot.clone(),
            facts: self.facts(at),
            outputs: found.outputs.clone(),
            duration,
        };
        self.nodes[at].unfiled = None;
        self.steps.push_back(Step::File {
            node: outline.id,
            record: Box::new(record),
        });
    }

    pub(super) fn filed(&mut self, at: At, filed: Record) {
        if let State::Present { found, .. } = &mut self.nodes[at].state {
            found.record = Some(filed);
        }
        self.steps.push_back(Step::Unlock {
            node: self.outline.nodes[at].id,
        });
    }

    pub(super) fn fail(&mut self, at: At, status: StepStatus) {
        if matches!(
            self.nodes[at].state,
            State::Keyed(
                Asking::Recheck { .. } | Asking::Reservation | Asking::Slot | Asking::Running
            )
        ) {
            self.steps.push_back(Step::Unlock {
                node: self.outline.nodes[at].id,
            });
        }
        self.nodes[at].state = State::Failed;
        self.tell(at, status, None);
        self.touch_consumers(at);
        if !self.options.keep_going {
            self.stop();
        }
    }

    pub(super) fn tell(&mut self, at: At, status: StepStatus, cutoff: Option<Cutoff>) {
        self.nodes[at].status = Some(status);
        self.steps.push_back(Step::Tell(Notice::Finished {
            node: self.outline.nodes[at].id,
            status,
            cutoff,
        }));
    }

    /// Marks all that needs a node: its records may not fit any more.
    pub(super) fn taint_consumers(&mut self, at: At) {
        let mut stack = vec![at];
        while let Some(at) = stack.pop() {
            for &consumer in &self.outline.nodes[at].consumers {
                if !std::mem::replace(&mut self.nodes[consumer].tainted, true) {
                    stack.push(consumer);
                }
            }
        }
    }
}
