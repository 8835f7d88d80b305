//! Where a finding is for tools that count in lines: the lines of its instruction, as BuildKit
//! reports them.

use super::super::ast::{Dockerfile, Instruction};
use super::super::lines::{Lines, Logical};
use super::super::span::{LineIndex, LineRange, Span};
use super::Rule;
use crate::diagnostic::Diagnostic;

/// Returns the lines that a finding about `text` is about.
///
/// These are all lines of the instruction that it points into, heredocs included; what points
/// elsewhere has the lines that it points at. An empty continuation line is told where its
/// instruction ends. `index` is that of `text`.
pub fn lines(
    finding: &Diagnostic,
    dockerfile: &Dockerfile,
    text: &str,
    index: &LineIndex,
) -> LineRange {
    if finding.code == Rule::NoEmptyContinuation.name() {
        let escape = dockerfile.directives.escape;
        let end = end_of_instruction(finding.span, text, escape);
        let line = index.line(u32::try_from(end).unwrap_or(u32::MAX));
        return LineRange {
            first: line,
            last: line,
        };
    }
    instruction_at(dockerfile, finding.span.start).unwrap_or_else(|| index.lines(finding.span))
}

/// Finds the lines of the instruction at `offset`.
fn instruction_at(dockerfile: &Dockerfile, offset: u32) -> Option<LineRange> {
    fn of<K>(instructions: &[Instruction<K>], offset: u32) -> Option<LineRange> {
        let after = instructions.partition_point(|one| one.span.start <= offset);
        let one = &instructions[after.checked_sub(1)?];
        (offset < one.span.end).then_some(one.lines)
    }
    let stages = &dockerfile.stages;
    let after = stages.partition_point(|stage| stage.from.span.start <= offset);
    let Some(stage) = after.checked_sub(1).map(|place| &stages[place]) else {
        return of(&dockerfile.global_args, offset);
    };
    of(std::slice::from_ref(&stage.from), offset).or_else(|| of(&stage.instructions, offset))
}

/// Returns the end of the logical line that has the empty line at `empty` within it.
fn end_of_instruction(empty: Span, text: &str, escape: char) -> usize {
    let mut lines = Lines::new(text, empty.start as usize);
    while let Some(line) = lines.next() {
        if !line.is_blank() && !line.is_comment() {
            return Logical::read(line, &mut lines, escape).end;
        }
    }
    text.strip_suffix('\n').unwrap_or(text).len()
}
