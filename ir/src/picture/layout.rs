//! Where the boxes of a sketch stand: stages as columns of boxes, inputs above their consumers.
//!
//! A stage is a *block*: its boxes one below the other, without a gap. A box without a stage is a
//! block of its own. Blocks are put, inputs first, below what they read, into the column where the
//! tree that they go on from stands, if there is room, else into the nearest free one. There are
//! about as many columns as make a picture as wide as it is high; a block that would need one more
//! goes below another.

use std::collections::{BTreeMap, BTreeSet};

use super::sketch::Sketch;

/// Rows and columns, each counted from 0.
#[derive(Debug)]
pub(super) struct Layout {
    /// Where each box of the sketch stands.
    pub(super) cells: Vec<Cell>,
    /// The stages, in the order in which they were put.
    pub(super) frames: Vec<Frame>,
    pub(super) columns: usize,
    pub(super) rows: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) column: usize,
    pub(super) row: usize,
}

/// Boxes of one stage, one below the other.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) stage: String,
    pub(super) column: usize,
    pub(super) first_row: usize,
    pub(super) last_row: usize,
}

#[derive(Debug, Default)]
struct Block {
    boxes: Vec<usize>,
    /// Blocks that its boxes read directly.
    reads: BTreeSet<usize>,
    /// A bit for each block that it needs, directly or not.
    needs: Vec<u64>,
}

impl Block {
    fn needs(&self, block: usize) -> bool {
        self.needs
            .get(block / 64)
            .is_some_and(|word| word >> (block % 64) & 1 == 1)
    }

    fn add_needs(&mut self, block: usize, others: &[u64]) {
        let length = (block / 64 + 1).max(others.len()).max(self.needs.len());
        self.needs.resize(length, 0);
        self.needs[block / 64] |= 1 << (block % 64);
        for (word, other) in self.needs.iter_mut().zip(others) {
            *word |= other;
        }
    }
}

impl Layout {
    pub(super) fn of(sketch: &Sketch) -> Self {
        let inputs = inputs(sketch);
        let (blocks, block_of) = blocks(sketch, &inputs);
        let most_columns = most_columns(blocks.len());
        let mut cells = vec![Cell { column: 0, row: 0 }; sketch.boxes.len()];
        // The first free row of each column.
        let mut free: Vec<usize> = Vec::new();
        let mut frames = Vec::new();
        for number in topological(&blocks) {
            let block = &blocks[number];
            let row = block.boxes.iter().enumerate().map(|(offset, &drawn)| {
                let others = inputs[drawn]
                    .iter()
                    .filter(|&&from| block_of[from] != number);
                let below = others.map(|&from| cells[from].row + 1).max().unwrap_or(0);
                below.saturating_sub(offset)
            });
            let row = row.max().unwrap_or(0);
            let wanted = block.boxes.first().and_then(|&first| inputs[first].first());
            let wanted = wanted.map_or(0, |&from| cells[from].column);
            let column = column(&mut free, wanted, row, most_columns);
            let row = row.max(free[column]);
            for (offset, &drawn) in block.boxes.iter().enumerate() {
                cells[drawn] = Cell {
                    column,
                    row: row + offset,
                };
            }
            free[column] = row + block.boxes.len();
            let stage = &sketch.boxes[block.boxes[0]].stage;
            if !stage.is_empty() {
                frames.push(Frame {
                    stage: stage.clone(),
                    column,
                    first_row: row,
                    last_row: row + block.boxes.len() - 1,
                });
            }
        }
        Self {
            cells,
            frames,
            columns: free.len(),
            rows: free.into_iter().max().unwrap_or(0),
        }
    }
}

/// Returns the column for a block that may begin at `row`: the wanted one if it is free there, else
/// the free one that is nearest to it, else a new one, else that which is free soonest.
fn column(free: &mut Vec<usize>, wanted: usize, row: usize, most: usize) -> usize {
    let nearest = (0..free.len())
        .filter(|&column| free[column] <= row)
        .min_by_key(|column| column.abs_diff(wanted));
    if let Some(column) = nearest {
        return column;
    }
    if free.len() < most {
        free.push(0);
        return free.len() - 1;
    }
    (0..free.len())
        .min_by_key(|&column| (free[column], column.abs_diff(wanted)))
        .unwrap_or(0)
}

fn most_columns(blocks: usize) -> usize {
    let square = (1..).find(|side| side * side >= blocks).unwrap_or(1);
    8.max(square + square / 2)
}

/// Returns what each box reads, in the order of its inputs.
fn inputs(sketch: &Sketch) -> Vec<Vec<usize>> {
    let mut inputs = vec![Vec::new(); sketch.boxes.len()];
    for arrow in &sketch.arrows {
        inputs[arrow.to].push(arrow.from);
    }
    inputs
}

/// Parts the boxes into blocks that do not need each other; returns the block of each box too.
///
/// A stage whose own box needs it again through another stage goes on in a second block.
fn blocks(sketch: &Sketch, inputs: &[Vec<usize>]) -> (Vec<Block>, Vec<usize>) {
    let mut blocks: Vec<Block> = Vec::new();
    let mut block_of = Vec::with_capacity(sketch.boxes.len());
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    for (drawn, sources) in inputs.iter().enumerate() {
        let stage = sketch.boxes[drawn].stage.as_str();
        let read: BTreeSet<usize> = sources.iter().map(|&from| block_of[from]).collect();
        let known = open.get(stage).copied();
        let joins = known.filter(|&own| {
            !stage.is_empty() && !read.iter().any(|&other| blocks[other].needs(own))
        });
        let own = joins.unwrap_or_else(|| {
            open.insert(stage, blocks.len());
            blocks.push(Block::default());
            blocks.len() - 1
        });
        blocks[own].boxes.push(drawn);
        block_of.push(own);
        for other in read.into_iter().filter(|&other| other != own) {
            if !blocks[own].reads.insert(other) {
                continue;
            }
            let needs = blocks[other].needs.clone();
            for (number, block) in blocks.iter_mut().enumerate() {
                if number == own || block.needs(own) {
                    block.add_needs(other, &needs);
                }
            }
        }
    }
    (blocks, block_of)
}

/// Returns the blocks, inputs first, otherwise in the order of their first boxes.
fn topological(blocks: &[Block]) -> Vec<usize> {
    let mut waiting: Vec<usize> = blocks.iter().map(|block| block.reads.len()).collect();
    let mut readers = vec![Vec::new(); blocks.len()];
    for (number, block) in blocks.iter().enumerate() {
        for &read in &block.reads {
            readers[read].push(number);
        }
    }
    let mut ready: BTreeSet<usize> = (0..blocks.len()).filter(|&b| waiting[b] == 0).collect();
    let mut order = Vec::with_capacity(blocks.len());
    while let Some(next) = ready.pop_first() {
        order.push(next);
        for &reader in &readers[next] {
            waiting[reader] -= 1;
            if waiting[reader] == 0 {
                ready.insert(reader);
            }
        }
    }
    order
}
