//! Makes keys of what a walk over an op writes.

use kiln_ir::Platform;

use crate::keywriter::{KeyInput, KeyWriter};
use crate::{ContentId, ContentKey, DefinitionKey, OpKey, PinnedSource};

/// Makes a key: every part as a tag byte and length-prefixed strings.
pub(crate) struct Hasher<S = blake3::Hasher>(S);

/// Takes a key's bytes.
pub(crate) trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for blake3::Hasher {
    fn put(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

#[cfg(test)]
impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
impl Hasher<Vec<u8>> {
    pub(crate) fn bytes() -> Self {
        Hasher(Vec::new())
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl Hasher {
    pub(crate) fn definition() -> Self {
        Hasher(blake3::Hasher::new_derive_key("kiln definition key v0"))
    }

    pub(crate) fn content() -> Self {
        Hasher(blake3::Hasher::new_derive_key("kiln content key v0"))
    }

    pub(crate) fn op() -> Self {
        Hasher(blake3::Hasher::new_derive_key("kiln op key v0"))
    }

    fn finish(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }

    pub(crate) fn into_definition(self) -> DefinitionKey {
        DefinitionKey(self.finish())
    }

    pub(crate) fn into_content(self) -> ContentKey {
        ContentKey(self.finish())
    }

    pub(crate) fn into_op(self) -> OpKey {
        OpKey(self.finish())
    }
}

impl<S: Sink> Hasher<S> {
    fn tag(&mut self, tag: u8) {
        self.0.put(&[tag]);
    }

    fn number(&mut self, number: u64) {
        self.0.put(&number.to_be_bytes());
    }

    fn string(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.put(bytes);
    }
}

impl<S: Sink> KeyWriter for Hasher<S> {
    fn kind(&mut self, kind: &str, revision: u32) {
        self.tag(0);
        self.string(kind.as_bytes());
        self.number(revision.into());
    }

    fn platform(&mut self, platform: &Platform) {
        self.tag(1);
        for part in [
            &platform.os,
            &platform.architecture,
            &platform.variant,
            &platform.os_version,
        ] {
            self.string(part.as_bytes());
        }
        self.number(platform.os_features.len() as u64);
        for feature in &platform.os_features {
            self.string(feature.as_bytes());
        }
    }

    fn field(&mut self, name: &str, values: &[&[u8]]) {
        self.tag(2);
        self.string(name.as_bytes());
        self.number(values.len() as u64);
        for value in values {
            self.string(value);
        }
    }

    fn env(&mut self, name: &str, value: &str) {
        self.tag(3);
        self.string(name.as_bytes());
        self.string(value.as_bytes());
    }

    fn identity(&mut self, identity: &[u8], _: &PinnedSource) {
        self.tag(4);
        self.string(identity);
    }

    fn input(&mut self, index: u32, input: &KeyInput<'_>) {
        match input {
            KeyInput::Definition { key, output, .. } => {
                self.tag(5);
                self.number(index.into());
                self.0.put(&key.0);
                self.number((*output).into());
            }
            KeyInput::Files { selected, .. } => {
                self.tag(6);
                self.number(index.into());
                self.0.put(&selected.digest);
            }
            KeyInput::Layers(layers) => {
                self.tag(7);
                self.number(index.into());
                self.number(layers.len() as u64);
                for layer in *layers {
                    self.tag(match layer {
                        ContentId::DiffId(_) => 0,
                        ContentId::Layer(_) => 1,
                    });
                    self.0.put(layer.bytes());
                }
            }
            KeyInput::Selected(selected) => {
                self.tag(8);
                self.number(index.into());
                self.0.put(&selected.digest);
            }
        }
    }
}
