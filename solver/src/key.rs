//! Keys: under which names a result may be used again.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::content::Hex;

/// The first road to a result: the op and its inputs' definition keys. Known without running.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DefinitionKey(pub [u8; 32]);

/// The second road: the op and the content of its inputs as this op sees them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentKey(pub [u8; 32]);

/// An op with its platform, without its inputs: where neither road can lead is known by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpKey(pub [u8; 32]);

macro_rules! shown_as_hex {
    ($($key:ident),*) => {$(
        impl fmt::Display for $key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Hex(&self.0).fmt(f)
            }
        }

        impl fmt::Debug for $key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($key), "({})"), Hex(&self.0[..6]))
            }
        }
    )*};
}

shown_as_hex!(DefinitionKey, ContentKey, OpKey);
