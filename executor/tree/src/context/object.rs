//! A directory of a context as an object named by its digest; docs/formats/context-tree.md.

use crate::digest::{FileDigest, TreeDigest};
use crate::path;
use crate::wire::{DecodeError, Reader, Writer};

const MAGIC: &[u8; 8] = b"kilndir0";
const DIGEST_CONTEXT: &str = "kiln context directory v0";
/// A name and the smallest node.
const LEAST_CHILD_BYTES: usize = 4 + 1 + 1 + 4;

const FILE: u8 = 1;
const DIRECTORY: u8 = 2;
const SYMLINK: u8 = 3;
const FIFO: u8 = 4;
const CHAR_DEVICE: u8 = 5;
const BLOCK_DEVICE: u8 = 6;

/// What a directory holds, sorted by name as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    children: Vec<Child>,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// One path component.
    pub name: Vec<u8>,
    /// What it names.
    pub node: Node,
}

/// What counts of a file; never its owner, times or xattrs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File {
        /// The lower twelve mode bits.
        mode: u32,
        /// Length of its bytes.
        size: u64,
        /// Their digest.
        digest: FileDigest,
    },
    /// A directory.
    Directory {
        /// The lower twelve mode bits.
        mode: u32,
        /// What is in it.
        digest: TreeDigest,
    },
    /// A symbolic link.
    Symlink {
        /// Its target, as bytes.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo {
        /// The lower twelve mode bits.
        mode: u32,
    },
    /// A device.
    Device {
        /// The lower twelve mode bits.
        mode: u32,
        /// Which.
        device: Device,
    },
}

/// A device by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Whether it is one of blocks, not of characters.
    pub is_block: bool,
    /// Device class.
    pub major: u32,
    /// Device in its class.
    pub minor: u32,
}

impl Device {
    /// Whether overlays mean a deletion by it.
    pub fn is_whiteout(&self) -> bool {
        !self.is_block && (self.major, self.minor) == (0, 0)
    }
}

impl Directory {
    /// Returns the directory of `children` in any order; names must be distinct components.
    pub fn new(mut children: Vec<Child>) -> Result<Self, DecodeError> {
        children.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let unread = Reader::new(FORMAT, &[]);
        check(&children).map_err(|reason| unread.error(reason))?;
        Ok(Self { children })
    }

    /// The children, sorted by name.
    pub fn children(&self) -> &[Child] {
        &self.children
    }

    /// The digest that names this directory.
    pub fn digest(&self) -> TreeDigest {
        digest(&self.encode())
    }

    /// Returns the bytes that [`Directory::decode`] reads.
    pub fn encode(&self) -> Vec<u8> {
        encode(
            self.children
                .iter()
                .map(|child| (child.name.as_slice(), child.node.clone())),
        )
    }

    /// Reads an encoded directory, strictly: only bytes that `encode` gives are accepted.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(FORMAT, bytes);
        input.magic(MAGIC)?;
        let count = input.count(LEAST_CHILD_BYTES)?;
        let mut children = Vec::with_capacity(count);
        for _ in 0..count {
            let name = input.bytes()?.to_vec();
            let node = match input.u8()? {
                FILE => Node::File {
                    mode: input.u32()?,
                    size: input.u64()?,
                    digest: FileDigest(input.array()?),
                },
                DIRECTORY => Node::Directory {
                    mode: input.u32()?,
                    digest: TreeDigest(input.array()?),
                },
                SYMLINK => Node::Symlink {
                    target: input.bytes()?.to_vec(),
                },
                FIFO => Node::Fifo { mode: input.u32()? },
                kind @ (CHAR_DEVICE | BLOCK_DEVICE) => Node::Device {
                    mode: input.u32()?,
                    device: Device {
                        is_block: kind == BLOCK_DEVICE,
                        major: input.u32()?,
                        minor: input.u32()?,
                    },
                },
                _ => return Err(input.error("a child has an unknown kind")),
            };
            children.push(Child { name, node });
        }
        check(&children).map_err(|reason| input.error(reason))?;
        input.finish()?;
        Ok(Self { children })
    }
}

const FORMAT: &str = "context directory";

/// Encodes children that are sorted and checked.
pub(super) fn encode<'a>(children: impl ExactSizeIterator<Item = (&'a [u8], Node)>) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(12 + 64 * children.len()));
    out.raw(MAGIC);
    out.count(children.len());
    for (name, node) in children {
        out.bytes(name);
        match node {
            Node::File { mode, size, digest } => {
                out.u8(FILE);
                out.u32(mode);
                out.u64(size);
                out.raw(&digest.0);
            }
            Node::Directory { mode, digest } => {
                out.u8(DIRECTORY);
                out.u32(mode);
                out.raw(&digest.0);
            }
            Node::Symlink { target } => {
                out.u8(SYMLINK);
                out.bytes(&target);
            }
            Node::Fifo { mode } => {
                out.u8(FIFO);
                out.u32(mode);
            }
            Node::Device { mode, device } => {
                out.u8(if device.is_block {
                    BLOCK_DEVICE
                } else {
                    CHAR_DEVICE
                });
                out.u32(mode);
                out.u32(device.major);
                out.u32(device.minor);
            }
        }
    }
    out.0
}

pub(super) fn digest(encoded: &[u8]) -> TreeDigest {
    TreeDigest(blake3::derive_key(DIGEST_CONTEXT, encoded))
}

fn check(children: &[Child]) -> Result<(), &'static str> {
    if children.windows(2).any(|pair| pair[0].name >= pair[1].name) {
        return Err("names are out of order");
    }
    for child in children {
        if child.name.is_empty()
            || child.name.contains(&b'/')
            || path::TreePath::new(&child.name[..]).is_err()
        {
            return Err("a name is not one path component");
        }
        match &child.node {
            Node::File { mode, .. }
            | Node::Directory { mode, .. }
            | Node::Fifo { mode }
            | Node::Device { mode, .. }
                if mode & !0o7777 != 0 =>
            {
                return Err("a mode has bits beyond 07777");
            }
            Node::Symlink { target } if target.is_empty() || target.contains(&0) => {
                return Err("a symbolic link has an impossible target");
            }
            _ => {}
        }
    }
    Ok(())
}
