//! File actions in the making.

use super::{BuildError, Inputs, Place, Tree};
use crate::op::*;

/// A user or group: a number, or a name that is looked up in the tree that the action's op changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// By number.
    Id(u32),
    /// By name.
    Name(String),
}

impl From<u32> for User {
    fn from(id: u32) -> Self {
        Self::Id(id)
    }
}

impl From<&str> for User {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

/// One change of files; [`Tree::file`] takes a list of them.
#[derive(Debug, Clone)]
pub struct Action<'b> {
    kind: FileActionKind,
    from: Option<Tree<'b>>,
    user: Option<User>,
    group: Option<User>,
    /// The first setting that the action does not have.
    wrong: Option<&'static str>,
}

/// Copies a file, or what is in a directory, to `dest`, whose parents are made.
pub fn copy<'b>(from: impl Into<Place<'b>>, dest: impl Into<String>) -> Action<'b> {
    let options = CopyAction {
        dest: dest.into(),
        create_dest_path: true,
        ..CopyAction::default()
    };
    copy_with(from, options)
}

/// Copies with all that can be said of it; `src` is filled in.
pub fn copy_with<'b>(from: impl Into<Place<'b>>, options: CopyAction) -> Action<'b> {
    let Place { tree, path } = from.into();
    let src = if path.is_empty() {
        "/".to_owned()
    } else {
        path
    };
    Action {
        from: Some(tree),
        ..Action::new(FileActionKind::Copy(CopyAction { src, ..options }))
    }
}

/// Makes a directory with mode 0755.
pub fn mkdir<'b>(path: impl Into<String>) -> Action<'b> {
    Action::new(FileActionKind::Mkdir(MkdirAction {
        path: path.into(),
        mode: 0o755,
        ..MkdirAction::default()
    }))
}

/// Writes a file with mode 0644.
pub fn mkfile<'b>(path: impl Into<String>, data: impl Into<Vec<u8>>) -> Action<'b> {
    Action::new(FileActionKind::Mkfile(MkfileAction {
        path: path.into(),
        mode: 0o644,
        data: data.into(),
        ..MkfileAction::default()
    }))
}

/// Removes a file or a directory with all that is in it.
pub fn rm<'b>(path: impl Into<String>) -> Action<'b> {
    Action::new(FileActionKind::Rm(RmAction {
        path: path.into(),
        ..RmAction::default()
    }))
}

/// Makes a symbolic link at `path`, which says `target`.
pub fn symlink<'b>(path: impl Into<String>, target: impl Into<String>) -> Action<'b> {
    Action::new(FileActionKind::Symlink(SymlinkAction {
        target: target.into(),
        path: path.into(),
        ..SymlinkAction::default()
    }))
}

impl<'b> Action<'b> {
    fn new(kind: FileActionKind) -> Self {
        Self {
            kind,
            from: None,
            user: None,
            group: None,
            wrong: None,
        }
    }

    /// Sets permission bits.
    pub fn mode(mut self, mode: u32) -> Self {
        match &mut self.kind {
            FileActionKind::Copy(copy) => copy.mode = Some(mode),
            FileActionKind::Mkfile(file) => file.mode = mode,
            FileActionKind::Mkdir(directory) => directory.mode = mode,
            FileActionKind::Rm(_) | FileActionKind::Symlink(_) => {
                self.wrong.get_or_insert("mode");
            }
        }
        self
    }

    /// Sets the owner; the group is the user's own, if it is given by name, else 0.
    pub fn owner(mut self, user: impl Into<User>) -> Self {
        self.user = Some(user.into());
        self.with_owner()
    }

    /// Sets the group.
    pub fn group(mut self, group: impl Into<User>) -> Self {
        self.group = Some(group.into());
        self.with_owner()
    }

    fn with_owner(mut self) -> Self {
        if self.owner_mut().is_none() {
            self.wrong.get_or_insert("owner");
        }
        self
    }

    /// Takes it for removed if it is not there.
    pub fn if_there(mut self) -> Self {
        match &mut self.kind {
            FileActionKind::Rm(removal) => removal.allow_not_found = true,
            _ => {
                self.wrong.get_or_insert("if_there");
            }
        }
        self
    }

    /// Makes missing parents too, and takes a directory that is there.
    pub fn parents(mut self) -> Self {
        match &mut self.kind {
            FileActionKind::Mkdir(directory) => directory.make_parents = true,
            _ => {
                self.wrong.get_or_insert("parents");
            }
        }
        self
    }

    fn owner_mut(&mut self) -> Option<&mut Option<Owner>> {
        match &mut self.kind {
            FileActionKind::Copy(copy) => Some(&mut copy.owner),
            FileActionKind::Mkfile(file) => Some(&mut file.owner),
            FileActionKind::Mkdir(directory) => Some(&mut directory.owner),
            FileActionKind::Symlink(link) => Some(&mut link.owner),
            FileActionKind::Rm(_) => None,
        }
    }
}

pub(super) fn file<'b>(base: Tree<'b>, actions: impl IntoIterator<Item = Action<'b>>) -> Tree<'b> {
    let builder = base.builder;
    let mut inputs = Inputs::new(builder);
    let base = match inputs.index(base) {
        Some(index) => ActionInput::Input(index),
        None => ActionInput::Scratch,
    };
    let mut list: Vec<FileAction> = Vec::new();
    for (index, mut action) in (0u32..).zip(actions) {
        if let Some(setting) = action.wrong {
            let mut state = builder.state.borrow_mut();
            let error = BuildError::NoSuchSetting {
                number: state.made + 1,
                action: index as usize,
                kind: action.kind.name(),
                setting,
            };
            state.fail(error);
        }
        let named = |user: User| match user {
            User::Id(id) => UserRef::Id(id),
            User::Name(name) => UserRef::Name { name, input: base },
        };
        let owner = Owner {
            user: action.user.take().map(named),
            group: action.group.take().map(named),
        };
        if owner != Owner::default()
            && let Some(place) = action.owner_mut()
        {
            *place = Some(owner);
        }
        list.push(FileAction {
            input: match index.checked_sub(1) {
                Some(before) => ActionInput::Action(before),
                None => base,
            },
            secondary: match action.from.and_then(|tree| inputs.index(tree)) {
                Some(index) => ActionInput::Input(index),
                None => ActionInput::Scratch,
            },
            output: None,
            kind: action.kind,
        });
    }
    if let Some(last) = list.last_mut() {
        last.output = Some(0);
    }
    let op = Op::File(FileOp { actions: list });
    builder.finish_node(op, inputs, None).output(0)
}
