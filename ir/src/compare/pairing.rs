//! Which op of the old plan became which of the new one.
//!
//! Equal digests are pairs. The others are scored by what they say (the same op, or words in common)
//! and by where they stand (inputs, readers and results that are pairs, name and stage), and the best
//! pair is made first, since each pair tells more about its neighbours.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::side::Side;
use crate::Op;
use crate::describe::{describe, source_name};

/// Ops of one kind are all held against each other up to so many pairs, then only neighbours.
const MOST_PAIRS: usize = 250_000;
/// Neighbours of a pair are looked at again up to so many pairs.
const MOST_NEIGHBOURS: usize = 4_096;
/// Of an op's text, so many words are compared.
const MOST_WORDS: usize = 400;

const SAME_OP: u32 = 100;
const ALL_WORDS: u32 = 50;
const ALL_INPUTS: u32 = 30;
const ALL_READERS: u32 = 30;
const SAME_NAME: u32 = 15;
const SAME_STAGE: u32 = 5;
/// Two ops that are less alike are no pair.
const LEAST: u32 = 40;

/// Pairs of positions.
#[derive(Debug)]
pub(super) struct Pairing {
    to_new: Vec<Option<usize>>,
    to_old: Vec<Option<usize>>,
}

impl Pairing {
    pub(super) fn of(old: &Side<'_>, new: &Side<'_>) -> Pairing {
        let mut pairs = Pairing {
            to_new: vec![None; old.len()],
            to_old: vec![None; new.len()],
        };
        for position in 0..old.len() {
            let digest = old.plan().graph.digest(old.node_id(position));
            if let Some(found) = new.plan().graph.find(digest) {
                pairs.join(position, new.position(found));
            }
        }
        Matcher {
            words: [words(old, &pairs.to_new), words(new, &pairs.to_old)],
            old,
            new,
            pairs,
            heap: BinaryHeap::new(),
        }
        .run()
    }

    /// The position in the new plan of an op of the old one.
    pub(super) fn of_old(&self, position: usize) -> Option<usize> {
        self.to_new[position]
    }

    /// The position in the old plan of an op of the new one.
    pub(super) fn of_new(&self, position: usize) -> Option<usize> {
        self.to_old[position]
    }

    fn join(&mut self, old: usize, new: usize) {
        self.to_new[old] = Some(new);
        self.to_old[new] = Some(old);
    }
}

struct Matcher<'a> {
    old: &'a Side<'a>,
    new: &'a Side<'a>,
    /// Of the ops that have no partner by digest, what they say, sorted.
    words: [Vec<Vec<String>>; 2],
    pairs: Pairing,
    /// Best score first, then the order of the plans.
    heap: BinaryHeap<(u32, Reverse<usize>, Reverse<usize>)>,
}

impl Matcher<'_> {
    fn run(mut self) -> Pairing {
        let (old, new) = (
            by_kind(self.old, &self.pairs.to_new),
            by_kind(self.new, &self.pairs.to_old),
        );
        for (kind, old) in &old {
            let Some(new) = new.get(kind) else { continue };
            if old.len().saturating_mul(new.len()) <= MOST_PAIRS {
                for &one in old {
                    new.iter().for_each(|&two| self.push(one, two));
                }
            } else {
                self.push_equal(old, new);
            }
        }
        // What stands beside a pair that is known by digest is looked at even among very many.
        for position in 0..self.old.len() {
            if let Some(partner) = self.pairs.of_old(position) {
                self.push_neighbours(position, partner);
            }
        }
        while let Some((_, Reverse(one), Reverse(two))) = self.heap.pop() {
            if self.pairs.to_new[one].is_none() && self.pairs.to_old[two].is_none() {
                self.pairs.join(one, two);
                self.push_neighbours(one, two);
            }
        }
        self.pairs
    }

    /// Of very many, only ops that say the same are held against each other, in order.
    fn push_equal(&mut self, old: &[usize], new: &[usize]) {
        let mut waiting: BTreeMap<[u8; 32], Vec<usize>> = BTreeMap::new();
        let identity = |side: &Side<'_>, position| {
            let node = side.node(position);
            let mut hasher = blake3::Hasher::new();
            let said = serde_json::to_vec(&(&node.op, &node.platform));
            hasher.update(&said.unwrap_or_default());
            *hasher.finalize().as_bytes()
        };
        for &two in new.iter().rev() {
            waiting
                .entry(identity(self.new, two))
                .or_default()
                .push(two);
        }
        for &one in old {
            let equal = waiting.get_mut(&identity(self.old, one));
            if let Some(two) = equal.and_then(Vec::pop) {
                self.push(one, two);
            }
        }
    }

    fn push(&mut self, one: usize, two: usize) {
        if self.pairs.to_new[one].is_some() || self.pairs.to_old[two].is_some() {
            return;
        }
        if let Some(score) = self.score(one, two).filter(|&score| score >= LEAST) {
            self.heap.push((score, Reverse(one), Reverse(two)));
        }
    }

    fn push_neighbours(&mut self, one: usize, two: usize) {
        let inputs = |side: &Side<'_>, position| -> Vec<usize> {
            let inputs = side.node(position).inputs.iter();
            inputs.map(|input| side.position(input.node)).collect()
        };
        let around = [
            (inputs(self.old, one), inputs(self.new, two)),
            (
                self.old.readers(one).to_vec(),
                self.new.readers(two).to_vec(),
            ),
        ];
        for (mut old, mut new) in around {
            old.retain(|&one| self.pairs.to_new[one].is_none());
            new.retain(|&two| self.pairs.to_old[two].is_none());
            if old.len().saturating_mul(new.len()) > MOST_NEIGHBOURS {
                continue;
            }
            for &one in &old {
                new.iter().for_each(|&two| self.push(one, two));
            }
        }
    }

    /// How alike two ops are; none if they never are a pair.
    fn score(&self, one: usize, two: usize) -> Option<u32> {
        let (old, new) = (self.old.node(one), self.new.node(two));
        if old.op.kind() != new.op.kind() {
            return None;
        }
        let mut score = match old.op == new.op && old.platform == new.platform {
            true => SAME_OP,
            false => share(&self.words[0][one], &self.words[1][two], ALL_WORDS),
        };
        let inputs = old.inputs.iter().zip(&new.inputs).filter(|(one, two)| {
            let partner = self.pairs.to_new[self.old.position(one.node)];
            one.output == two.output && partner == Some(self.new.position(two.node))
        });
        score += part(
            ALL_INPUTS,
            inputs.count(),
            old.inputs.len().max(new.inputs.len()),
        );
        let (old_readers, new_readers) = (self.old.readers(one), self.new.readers(two));
        let (old_results, new_results) = (self.old.results(one), self.new.results(two));
        let readers = old_readers.iter().filter(|&&reader| {
            self.pairs.to_new[reader].is_some_and(|partner| new_readers.contains(&partner))
        });
        let results = old_results.iter().filter(|name| new_results.contains(name));
        score += part(
            ALL_READERS,
            readers.count() + results.count(),
            (old_readers.len() + old_results.len()).max(new_readers.len() + new_results.len()),
        );
        let equal = |one: &str, two: &str| !one.is_empty() && one == two;
        if equal(self.old.given_name(one), self.new.given_name(two)) {
            score += SAME_NAME;
        }
        if equal(self.old.stage(one), self.new.stage(two)) {
            score += SAME_STAGE;
        }
        Some(score)
    }
}

fn part(whole: u32, count: usize, of: usize) -> u32 {
    match of {
        0 => 0,
        of => u32::try_from(whole as usize * count / of).unwrap_or(whole),
    }
}

/// How much two sorted lists have in common.
fn share(one: &[String], two: &[String], whole: u32) -> u32 {
    let (mut at_one, mut at_two, mut common) = (0, 0, 0);
    while let (Some(left), Some(right)) = (one.get(at_one), two.get(at_two)) {
        match left.cmp(right) {
            std::cmp::Ordering::Less => at_one += 1,
            std::cmp::Ordering::Greater => at_two += 1,
            std::cmp::Ordering::Equal => {
                common += 1;
                at_one += 1;
                at_two += 1;
            }
        }
    }
    part(whole, 2 * common, one.len() + two.len())
}

fn by_kind(side: &Side<'_>, partner: &[Option<usize>]) -> BTreeMap<&'static str, Vec<usize>> {
    let mut kinds: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for position in (0..side.len()).filter(|&position| partner[position].is_none()) {
        let kind = side.node(position).op.kind();
        kinds.entry(kind).or_default().push(position);
    }
    kinds
}

/// What each op without a partner says, as sorted words.
fn words(side: &Side<'_>, partner: &[Option<usize>]) -> Vec<Vec<String>> {
    let all = (0..side.len()).map(|position| {
        if partner[position].is_some() {
            return Vec::new();
        }
        let node = side.node(position);
        let text = match &node.op {
            // Every shell form begins alike.
            Op::Exec(op) => match op.meta.args.as_slice() {
                [_, flag, command] if flag == "-c" => command.clone(),
                args => args.join(" "),
            },
            Op::Source(source) => source_name(source).to_owned(),
            _ => describe(node),
        };
        let separates = |character: char| {
            character.is_whitespace() || matches!(character, '/' | ':' | '=' | '@' | ';' | ',')
        };
        let words = text.split(separates).filter(|word| !word.is_empty());
        let mut words: Vec<String> = words.take(MOST_WORDS).map(str::to_owned).collect();
        words.sort_unstable();
        words
    });
    all.collect()
}
