//! What an op sees of each of its inputs.

use kiln_ir::{ActionInput, ContentCache, ExecOp, FileActionKind, FileOp, Op, Owner, UserRef};

use crate::{Selection, SelectionItem};

/// What an op sees of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum View {
    /// An output derives from it: every layer counts.
    Whole,
    /// Only this is read, and nothing of the input is below any output.
    Selected(Selection),
}

/// What `op` sees of each of its `inputs` inputs, by index.
///
/// An input that the op does not name at all counts whole: it stands for ordering.
pub(crate) fn views(op: &Op, inputs: usize) -> Vec<View> {
    let mut seen: Vec<Option<View>> = vec![None; inputs];
    match op {
        Op::Exec(exec) => exec_views(exec, &mut seen),
        Op::File(file) => file_views(file, &mut seen),
        Op::Source(_) | Op::Merge(_) | Op::Diff(_) | Op::Build(_) | Op::Passthrough(_) => {}
    }
    seen.into_iter()
        .map(|view| match view {
            Some(View::Selected(selection)) => {
                View::Selected(Selection::from_items(selection.items))
            }
            Some(View::Whole) | None => View::Whole,
        })
        .collect()
}

/// Whether content may stand for definition at all: a mount can forbid it.
pub(crate) fn content_road_open(op: &Op) -> bool {
    match op {
        Op::Exec(exec) => exec
            .mounts
            .iter()
            .all(|mount| mount.content_cache != ContentCache::Off),
        _ => true,
    }
}

fn exec_views(exec: &ExecOp, seen: &mut [Option<View>]) {
    for mount in &exec.mounts {
        let Some(index) = mount.input else { continue };
        match mount.output {
            Some(_) => whole(seen, index),
            None => select(seen, index, SelectionItem::Subtree(rooted(&mount.selector))),
        }
    }
}

fn file_views(file: &FileOp, seen: &mut [Option<View>]) {
    for action in &file.actions {
        if let ActionInput::Input(index) = action.input {
            whole(seen, index);
        }
        let owner = match &action.kind {
            FileActionKind::Copy(copy) => {
                if let ActionInput::Input(index) = action.secondary {
                    select(seen, index, SelectionItem::Copy(copy.into()));
                }
                &copy.owner
            }
            FileActionKind::Mkfile(mkfile) => &mkfile.owner,
            FileActionKind::Mkdir(mkdir) => &mkdir.owner,
            FileActionKind::Symlink(link) => &link.owner,
            FileActionKind::Rm(_) => &None,
        };
        for index in owner.iter().flat_map(name_lookups) {
            select(seen, index, SelectionItem::Users);
        }
    }
}

/// The inputs in whose user database an owner is looked up.
fn name_lookups(owner: &Owner) -> impl Iterator<Item = u32> + '_ {
    [&owner.user, &owner.group]
        .into_iter()
        .flatten()
        .filter_map(|user| match user {
            UserRef::Name {
                input: ActionInput::Input(index),
                ..
            } => Some(*index),
            _ => None,
        })
}

fn whole(seen: &mut [Option<View>], index: u32) {
    if let Some(view) = seen.get_mut(index as usize) {
        *view = Some(View::Whole);
    }
}

fn select(seen: &mut [Option<View>], index: u32, item: SelectionItem) {
    let Some(view) = seen.get_mut(index as usize) else {
        return;
    };
    match view {
        Some(View::Whole) => {}
        Some(View::Selected(selection)) => selection.items.push(item),
        None => *view = Some(View::Selected(Selection { items: vec![item] })),
    }
}

fn rooted(selector: &str) -> String {
    format!("/{}", selector.trim_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CopySelection;
    use kiln_ir::{CopyAction, FileAction, MkdirAction, Mount};

    fn bind(target: &str, input: u32, output: Option<u32>, selector: &str) -> Mount {
        Mount {
            target: target.into(),
            input: Some(input),
            output,
            selector: selector.into(),
            ..Mount::default()
        }
    }

    fn exec(mounts: Vec<Mount>) -> Op {
        Op::Exec(ExecOp {
            mounts,
            ..ExecOp::default()
        })
    }

    fn subtree(path: &str) -> View {
        View::Selected(Selection {
            items: vec![SelectionItem::Subtree(path.into())],
        })
    }

    #[test]
    fn a_mount_with_an_output_counts_whole() {
        let op = exec(vec![
            bind("/", 0, Some(0), ""),
            bind("/src", 1, None, "a/b/"),
        ]);
        assert_eq!(views(&op, 2), [View::Whole, subtree("/a/b")]);
    }

    #[test]
    fn an_input_mounted_twice_counts_whole_if_once_it_does() {
        let op = exec(vec![bind("/src", 0, None, "a"), bind("/", 0, Some(0), "")]);
        assert_eq!(views(&op, 1), [View::Whole]);
    }

    #[test]
    fn a_read_only_root_is_a_selection() {
        let op = exec(vec![bind("/", 0, None, "")]);
        assert_eq!(views(&op, 1), [View::Selected(Selection::all())]);
    }

    #[test]
    fn an_input_that_nothing_names_counts_whole() {
        assert_eq!(views(&exec(vec![]), 1), [View::Whole]);
    }

    #[test]
    fn copies_and_owner_lookups_select() {
        let copy = FileAction {
            input: ActionInput::Input(0),
            secondary: ActionInput::Input(1),
            output: Some(0),
            kind: FileActionKind::Copy(CopyAction {
                src: "/app".into(),
                ..CopyAction::default()
            }),
        };
        let chowned = FileAction {
            input: ActionInput::Action(0),
            secondary: ActionInput::Scratch,
            output: Some(0),
            kind: FileActionKind::Mkdir(MkdirAction {
                owner: Some(Owner {
                    user: Some(UserRef::Name {
                        name: "www".into(),
                        input: ActionInput::Input(2),
                    }),
                    group: None,
                }),
                ..MkdirAction::default()
            }),
        };
        let op = Op::File(FileOp {
            actions: vec![copy, chowned],
        });
        let taken = CopySelection {
            src: "/app".into(),
            ..CopySelection::default()
        };
        assert_eq!(
            views(&op, 3),
            [
                View::Whole,
                View::Selected(Selection {
                    items: vec![SelectionItem::Copy(taken)]
                }),
                View::Selected(Selection {
                    items: vec![SelectionItem::Users]
                }),
            ]
        );
    }

    #[test]
    fn one_mount_can_close_the_content_road() {
        let mut mount = bind("/x", 0, None, "");
        assert!(content_road_open(&exec(vec![mount.clone()])));
        mount.content_cache = ContentCache::Off;
        assert!(!content_road_open(&exec(vec![mount])));
    }
}
