//! Keeps what a walk over an op writes, in the words that people know.

use kiln_ir::Platform;

use crate::content::Hex;
use crate::keywriter::{KeyInput, KeyWriter};
use crate::{Part, PinnedSource};

/// Keeps the parts of a key with the words that people know.
pub(crate) struct Explainer<'a> {
    parts: Vec<Part>,
    is_build_arg: &'a dyn Fn(&str) -> bool,
}

/// A longer value is cut to this many bytes and ends in its digest.
const LONGEST_VALUE_BYTES: usize = 1024;

impl<'a> Explainer<'a> {
    pub(crate) fn new(is_build_arg: &'a dyn Fn(&str) -> bool) -> Self {
        Explainer {
            parts: Vec::new(),
            is_build_arg,
        }
    }

    pub(crate) fn into_parts(self) -> Vec<Part> {
        self.parts
    }
}

impl KeyWriter for Explainer<'_> {
    fn kind(&mut self, kind: &str, revision: u32) {
        self.parts.push(Part::Kind {
            kind: kind.to_owned(),
            revision,
        });
    }

    fn platform(&mut self, platform: &Platform) {
        self.parts.push(Part::Platform(platform.to_string()));
    }

    fn field(&mut self, name: &str, values: &[&[u8]]) {
        self.parts.push(Part::Field {
            name: name.to_owned(),
            value: values.iter().map(|value| readable(value)).collect(),
        });
    }

    fn env(&mut self, name: &str, value: &str) {
        self.parts.push(Part::Env {
            name: name.to_owned(),
            value: readable(value.as_bytes()),
            build_arg: (self.is_build_arg)(name),
        });
    }

    fn identity(&mut self, identity: &[u8], source: &PinnedSource) {
        self.parts.push(Part::Source {
            source: source.clone(),
            identity: *blake3::hash(identity).as_bytes(),
        });
    }

    fn input(&mut self, index: u32, input: &KeyInput<'_>) {
        self.parts.push(match input {
            KeyInput::Definition { key, output, from } => Part::Input {
                index,
                output: *output,
                definition: key.0,
                from: (*from).clone(),
            },
            KeyInput::Files { source, selected } => Part::Files {
                index,
                source: (*source).to_owned(),
                selected: (*selected).clone(),
            },
            KeyInput::Layers(layers) => {
                let mut hasher = blake3::Hasher::new();
                for layer in *layers {
                    hasher.update(layer.bytes());
                }
                Part::Content {
                    index,
                    digest: *hasher.finalize().as_bytes(),
                }
            }
            KeyInput::Selected(selected) => Part::Content {
                index,
                digest: selected.digest,
            },
        });
    }
}

/// A value as text, not longer than what a record should keep, and unequal for unequal values.
fn readable(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if text.len() <= LONGEST_VALUE_BYTES => text.to_owned(),
        text => {
            let cut = text
                .unwrap_or("")
                .char_indices()
                .take_while(|(at, _)| *at < LONGEST_VALUE_BYTES);
            let mut start: String = cut.map(|(_, char)| char).collect();
            start.push_str(&format!(
                "… {} bytes, {}",
                value.len(),
                Hex(blake3::hash(value).as_bytes())
            ));
            start
        }
    }
}
