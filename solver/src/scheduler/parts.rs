//! What the keys of a node are made of: digests of what it sees, layers, definitions, facts.

use super::{Cell, CellState, Digests, Scheduler, State, Want};
use crate::outline::{At, InputKey, Role, Seen, index};
use crate::step::{Brief, Step, Ticket};
use crate::{ContentId, ContentKey, DefinitionKey, DigestOf, Facts, Pinned};

impl<H: Clone> Scheduler<H> {
    /// Asks for the digests of all that a node sees.
    pub(super) fn digests(&mut self, at: At) -> Digests {
        for i in 0..self.nodes[at].cells.len() {
            if let Some(cell) = self.nodes[at].cells[i] {
                self.ask_digest(at, cell);
            }
        }
        match self.digests_so_far(at) {
            Digests::Unavailable => {
                self.nodes[at].content_closed = true;
                Digests::Unavailable
            }
            digests => digests,
        }
    }

    pub(super) fn digests_so_far(&self, at: At) -> Digests {
        let mut all = Digests::Done;
        for cell in self.nodes[at].cells.iter().flatten() {
            match self.cells[*cell].state {
                CellState::Done(_) => {}
                CellState::Empty | CellState::Asked { .. } | CellState::Absent => {
                    if matches!(all, Digests::Done) {
                        all = Digests::Waiting;
                    }
                }
                CellState::Unavailable => all = Digests::Unavailable,
                CellState::Failed => return Digests::Failed,
            }
        }
        all
    }

    /// Asks for a digest if it is not asked, and can be.
    pub(super) fn ask_digest(&mut self, consumer: At, cell: usize) {
        let Cell {
            source,
            output,
            generation,
            ..
        } = self.cells[cell];
        let source_present = matches!(self.nodes[source].state, State::Present { .. });
        match self.cells[cell].state {
            CellState::Empty => {}
            CellState::Absent if source_present => {}
            CellState::Absent => return self.want(source, Want::Present),
            _ => return,
        }
        let of = match self.outline.nodes[source].role {
            Role::Local => DigestOf::Local(self.outline.nodes[source].id),
            _ => match self.layers(source, output) {
                Some(layers) => DigestOf::Layers(layers.to_vec()),
                None => return,
            },
        };
        self.cells[cell].state = CellState::Asked { source_present };
        self.steps.push_back(Step::Digest {
            ticket: Ticket { cell, generation },
            consumer: self.outline.nodes[consumer].id,
            of,
            selection: self.cells[cell].selection.clone(),
        });
    }

    pub(super) fn find_content_key(&mut self, at: At) -> ContentKey {
        let seen: Option<Vec<Seen<'_>>> = self.seen(at).into_iter().collect();
        let Some(seen) = seen else {
            panic!(
                "BUG: the content key of `{}` lacks a part",
                self.outline.name(at)
            );
        };
        let key = self.outline.content_key(at, &seen);
        self.nodes[at].content = Some(key);
        key
    }

    /// What a node sees of each input, as far as that is known.
    pub(super) fn seen(&self, at: At) -> Vec<Option<Seen<'_>>> {
        let inputs = self.outline.nodes[at].inputs.iter();
        inputs
            .zip(&self.nodes[at].cells)
            .map(
                |(input, cell)| match cell.map(|cell| &self.cells[cell].state) {
                    Some(CellState::Done(digest)) if self.is_local(input.node) => {
                        Some(Seen::Files(digest))
                    }
                    Some(CellState::Done(digest)) => Some(Seen::Selected(digest)),
                    Some(_) => None,
                    None => self.layers(input.node, input.output).map(Seen::Layers),
                },
            )
            .collect()
    }

    pub(super) fn is_local(&self, at: At) -> bool {
        self.outline.nodes[at].role == Role::Local
    }

    pub(super) fn layers(&self, at: At, output: u32) -> Option<&[ContentId]> {
        match &self.nodes[at].state {
            State::Known { found, .. } | State::Present { found, .. } => {
                found.outputs.get(output as usize)?.as_deref()
            }
            _ => None,
        }
    }

    pub(super) fn definition(&self, at: At) -> DefinitionKey {
        match self.nodes[at].definition {
            Some(key) => key,
            None => panic!("BUG: `{}` has no definition key yet", self.outline.name(at)),
        }
    }

    /// What stands for the inputs in the definition key, once all of it is known.
    pub(super) fn input_keys(&self, at: At) -> Vec<InputKey> {
        let inputs = self.outline.nodes[at].inputs.iter();
        inputs
            .zip(&self.nodes[at].cells)
            .map(
                |(input, cell)| match cell.map(|cell| &self.cells[cell].state) {
                    Some(CellState::Done(digest)) if self.is_local(input.node) => {
                        InputKey::Files(digest.clone())
                    }
                    _ => InputKey::Definition(self.definition(input.node)),
                },
            )
            .collect()
    }

    pub(super) fn facts(&self, at: At) -> Facts {
        let pins: Vec<Option<&Pinned>> = self.outline.nodes[at]
            .inputs
            .iter()
            .map(|input| self.nodes[input.node].pinned.as_ref())
            .collect();
        self.outline.facts(
            at,
            self.nodes[at].pinned.as_ref(),
            &self.input_keys(at),
            &pins,
            &self.seen(at),
        )
    }

    pub(super) fn brief(&self, at: At) -> Brief {
        let outline = &self.outline.nodes[at];
        Brief {
            definition: self.definition(at),
            op: outline.op,
            slot: outline.slot.clone(),
            facts: self.facts(at),
            forced: outline.forced.then(|| outline.forced_by.clone()),
            content_gone: self.nodes[at].content_gone,
            ran_inputs: self.ran_inputs(at),
        }
    }

    pub(super) fn ran_inputs(&self, at: At) -> Vec<u32> {
        let inputs = self.outline.nodes[at].inputs.iter().enumerate();
        inputs
            .filter(|(_, input)| self.nodes[input.node].ran)
            .map(|(i, _)| index(i))
            .collect()
    }
}
