//! A world in memory: files are texts, layers are maps, and steps are words of a small language.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use kiln_ir::{ActionInput, FileActionKind, Input, MountKind, NodeId, Op, Pin, Plan, SourceOp};

use crate::*;

pub(crate) type Files = BTreeMap<String, String>;

/// What can go wrong in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WorldError(pub(crate) String);

#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) record: Record,
    pub(crate) new: NewRecord,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) locals: BTreeMap<String, Files>,
    /// By reference: manifest, and layers lowest first.
    pub(crate) images: BTreeMap<String, (String, Vec<Files>)>,
    /// Layers that are here.
    pub(crate) layers: HashMap<ContentId, Files>,
    pub(crate) records: BTreeMap<RecordId, Stored>,
    pub(crate) by_definition: HashMap<DefinitionKey, RecordId>,
    pub(crate) by_content: HashMap<ContentKey, RecordId>,
    pub(crate) tombstones: HashMap<DefinitionKey, Tombstone>,
    pub(crate) trees: HashMap<TreeRef, Files>,
    /// What `random` writes next.
    pub(crate) chance: u32,
    /// Digests of layers are refused.
    pub(crate) blind: bool,
    /// Another machine, whose records and layers can be had.
    pub(crate) far: Option<Box<World>>,
    /// Records that are of the other machine, with their ids there.
    imported: HashMap<RecordId, RecordId>,
    next_record: i64,
}

fn hash(text: &str) -> [u8; 32] {
    *blake3::hash(text.as_bytes()).as_bytes()
}

/// A world with a base and a context of one file.
pub(crate) fn world() -> World {
    let mut world = World::default();
    world
        .image("alpine", "etc/os", "alpine 3")
        .file("context", "big", "1234");
    world
}

impl World {
    pub(crate) fn file(&mut self, local: &str, path: &str, text: &str) -> &mut Self {
        self.locals
            .entry(local.into())
            .or_default()
            .insert(path.into(), text.into());
        self
    }

    pub(crate) fn image(&mut self, reference: &str, path: &str, text: &str) -> &mut Self {
        let layer = Files::from([(path.to_owned(), text.to_owned())]);
        let manifest = format!("sha256:{}", blake3::hash(format!("{layer:?}").as_bytes()));
        self.images
            .insert(reference.into(), (manifest, vec![layer]));
        self
    }

    /// Takes a record away, and its layers.
    pub(crate) fn evict(&mut self, step: &str) {
        let gone: Vec<RecordId> = self.find(step);
        assert!(!gone.is_empty(), "no record of {step}");
        for id in gone {
            let stored = self.records[&id].clone();
            self.forget(id);
            let tombstone = Tombstone {
                rule: "prune".into(),
                when: "3 minutes ago".into(),
            };
            self.tombstones.insert(stored.new.definition, tombstone);
        }
    }

    /// Takes the layers that a step made away behind the cache's back.
    pub(crate) fn lose_layers(&mut self, step: &str) {
        for id in self.find(step) {
            for output in self.records[&id].record.outputs.iter().flatten() {
                self.layers.remove(output.last().unwrap());
            }
        }
    }

    fn find(&self, step: &str) -> Vec<RecordId> {
        let found = self.records.values();
        found
            .filter(|stored| stored.new.facts.step.text == step)
            .map(|stored| stored.record.id)
            .collect()
    }

    pub(crate) fn forget(&mut self, id: RecordId) {
        self.records.remove(&id);
        self.by_definition.retain(|_, found| *found != id);
        self.by_content.retain(|_, found| *found != id);
        if let (Some(far_id), Some(far)) = (self.imported.remove(&id), &mut self.far) {
            far.forget(far_id);
        }
    }

    /// Takes everything that this world has to another machine, and leaves nothing here.
    pub(crate) fn move_away(&mut self) {
        let far = World {
            far: None,
            imported: HashMap::new(),
            ..self.clone()
        };
        *self = World {
            locals: self.locals.clone(),
            images: self.images.clone(),
            chance: self.chance,
            // Ids are of one store.
            next_record: 1_000,
            far: Some(Box::new(far)),
            ..World::default()
        };
    }

    /// Looks on the other machine. What is found there has an id here from then on, and no layers.
    pub(crate) fn seek(&mut self, wanted: &Wanted) -> Sought {
        let Some(far) = &self.far else {
            return Sought::default();
        };
        let op_known = wanted.op.is_some_and(|op| far.known_op(op));
        let mut keys = wanted.keys.iter();
        let found = keys.find_map(|&key| Some((key, far.lookup(key)?)));
        let Some((key, record)) = found else {
            return Sought {
                found: None,
                op_known,
            };
        };
        let new = far.records[&record.id].new.clone();
        let filed = self.file_record(new);
        self.imported.insert(filed.id, record.id);
        Sought {
            found: Some(Imported {
                key,
                record: filed,
                from: "far".into(),
            }),
            op_known,
        }
    }

    pub(crate) fn pin(&self, plan: &Plan, node: NodeId) -> Result<Pinned, WorldError> {
        let Op::Source(SourceOp::Image(image)) = &plan.graph.node(node).op else {
            panic!("only images are pinned here");
        };
        let Some((manifest, layers)) = self.images.get(&image.reference) else {
            return Err(WorldError(format!("no image `{}`", image.reference)));
        };
        Ok(Pinned {
            identity: manifest.clone().into_bytes(),
            content: Some(layers.iter().map(diff_id).collect()),
            pin: Pin::Manifest(manifest.clone()),
            label: manifest.chars().take(15).collect(),
        })
    }

    pub(crate) fn digest(
        &mut self,
        plan: &Plan,
        of: &DigestOf,
        selection: &Selection,
    ) -> Result<Option<SelectionDigest>, WorldError> {
        let (files, what) = match of {
            DigestOf::Local(node) => {
                let Op::Source(SourceOp::Local(local)) = &plan.graph.node(*node).op else {
                    panic!("not a local source");
                };
                let files = self.locals.get(&local.name).cloned().unwrap_or_default();
                (files, local.name.clone())
            }
            DigestOf::Layers(_) if self.blind => return Ok(None),
            DigestOf::Layers(layers) => match self.merged(layers) {
                Some(files) => (files, "the layers".to_owned()),
                None => return Ok(None),
            },
        };
        let mut selected = Files::new();
        for item in &selection.items {
            let path = match item {
                SelectionItem::Subtree(path) => path.trim_start_matches('/'),
                SelectionItem::Copy(copy) => copy.src.trim_start_matches('/'),
                SelectionItem::Users => continue,
            };
            let found = below(&files, path);
            if found.is_empty() && matches!(item, SelectionItem::Copy(_)) {
                return Err(WorldError(format!("`{path}` is not in {what}")));
            }
            selected.extend(found);
        }
        let digest = hash(&format!("{selected:?}"));
        self.trees.insert(TreeRef(digest), selected.clone());
        Ok(Some(SelectionDigest {
            digest,
            tree: Some(TreeRef(digest)),
            summary: format!("{} files", selected.len()),
        }))
    }

    fn merged(&self, layers: &[ContentId]) -> Option<Files> {
        let mut files = Files::new();
        for layer in layers {
            files.extend(self.layers.get(layer)?.clone());
        }
        Some(files)
    }

    pub(crate) fn lookup(&self, key: Key) -> Option<Record> {
        let id = match key {
            Key::Definition(key) => self.by_definition.get(&key)?,
            Key::Content(key) => self.by_content.get(&key)?,
        };
        Some(self.records.get(id)?.record.clone())
    }

    pub(crate) fn known_op(&self, op: OpKey) -> bool {
        self.records.values().any(|stored| stored.new.op == op)
    }

    pub(crate) fn load(&mut self, record: &Record) -> Option<Vec<Option<Content>>> {
        let is_imported = self.imported.contains_key(&record.id);
        if let (true, Some(far)) = (is_imported, &self.far) {
            for id in record.outputs.iter().flatten().flatten() {
                if let Some(files) = far.layers.get(id) {
                    self.layers.insert(*id, files.clone());
                }
            }
        }
        let all_here = record
            .outputs
            .iter()
            .flatten()
            .flatten()
            .all(|id| matches!(id, ContentId::DiffId(_)) || self.layers.contains_key(id));
        all_here.then(|| record.outputs.clone())
    }

    pub(crate) fn fetch(
        &mut self,
        plan: &Plan,
        node: NodeId,
    ) -> Result<Fetched<Content>, WorldError> {
        let mut content = Content::new();
        let mut transferred = false;
        if let Op::Source(SourceOp::Image(image)) = &plan.graph.node(node).op {
            for layer in self.images[&image.reference].1.clone() {
                content.push(diff_id(&layer));
                transferred |= self.layers.insert(diff_id(&layer), layer).is_none();
            }
        }
        Ok(Fetched {
            handle: content.clone(),
            content,
            transferred,
        })
    }

    /// Does what an op says, whatever the cache has.
    pub(crate) fn run(
        &mut self,
        plan: &Plan,
        node: NodeId,
        inputs: &[Content],
    ) -> Result<Vec<Option<Content>>, StepFailure> {
        let op_node = plan.graph.node(node);
        let tree = |world: &World, index: u32| -> Files {
            let input: Input = op_node.inputs[index as usize];
            match &plan.graph.node(input.node).op {
                Op::Source(SourceOp::Local(local)) => {
                    world.locals.get(&local.name).cloned().unwrap_or_default()
                }
                _ => {
                    for id in &inputs[index as usize] {
                        assert!(
                            world.image_layer(id).is_some(),
                            "runs on layers that are gone"
                        );
                    }
                    let layers = inputs[index as usize].iter();
                    layers
                        .flat_map(|id| world.image_layer(id).unwrap())
                        .collect()
                }
            }
        };
        let (below, made) = match &op_node.op {
            Op::Exec(exec) => {
                let mut view = Files::new();
                let mut below = Content::new();
                for mount in &exec.mounts {
                    if matches!(mount.kind, MountKind::Cache { .. }) {
                        continue;
                    }
                    assert_eq!(mount.kind, MountKind::Bind);
                    let Some(index) = mount.input else { continue };
                    if mount.output == Some(0) {
                        below = inputs[index as usize].clone();
                    }
                    let target = mount.target.trim_matches('/');
                    for (path, text) in tree(self, index) {
                        let path = format!("{target}/{path}");
                        view.insert(path.trim_start_matches('/').into(), text);
                    }
                }
                let words: Vec<&str> = exec.meta.args.iter().map(String::as_str).collect();
                (below, self.interpret(&words, &exec.meta.env, &view)?)
            }
            Op::File(file) => {
                let mut below = Content::new();
                let mut made = Files::new();
                for action in &file.actions {
                    if let ActionInput::Input(index) = action.input {
                        below = inputs[index as usize].clone();
                    }
                    match (&action.kind, action.secondary) {
                        (FileActionKind::Copy(copy), ActionInput::Input(index)) => {
                            let src = copy.src.trim_matches('/');
                            for (path, text) in crate::tests::world::below(&tree(self, index), src)
                            {
                                let path = format!("{}/{path}", copy.dest.trim_matches('/'));
                                made.insert(path.trim_start_matches('/').into(), text);
                            }
                        }
                        (FileActionKind::Mkfile(mkfile), _) => {
                            let text = String::from_utf8(mkfile.data.clone()).unwrap();
                            made.insert(mkfile.path.trim_matches('/').into(), text);
                        }
                        other => panic!("not in this world: {other:?}"),
                    }
                }
                (below, made)
            }
            other => panic!("not in this world: {other:?}"),
        };
        let id = ContentId::Layer(hash(&format!("{made:?}")));
        self.layers.insert(id, made);
        let mut content = below;
        content.push(id);
        Ok(vec![Some(content)])
    }

    fn image_layer(&self, id: &ContentId) -> Option<Files> {
        if let Some(files) = self.layers.get(id) {
            return Some(files.clone());
        }
        let mut layers = self.images.values().flat_map(|(_, layers)| layers);
        layers.find(|files| diff_id(files) == *id).cloned()
    }

    fn interpret(
        &mut self,
        words: &[&str],
        env: &[String],
        view: &Files,
    ) -> Result<Files, StepFailure> {
        let read = |path: &str| {
            let found = view.get(path.trim_matches('/')).cloned();
            found.ok_or(StepFailure::Exit(1))
        };
        let (to, text) = match words {
            ["write", to, text] => (to, (*text).to_owned()),
            ["len", from, to] => (to, read(from)?.len().to_string()),
            ["cat", from, to] => (to, read(from)?),
            ["all", to] => (
                to,
                format!("{:x?}", &hash(&format!("{view:?} {env:?}"))[..4]),
            ),
            ["random", to] => {
                self.chance += 1;
                (to, self.chance.to_string())
            }
            ["exit", code] => return Err(StepFailure::Exit(code.parse().unwrap())),
            other => panic!("not in this world: {other:?}"),
        };
        Ok(Files::from([(to.trim_matches('/').to_owned(), text)]))
    }

    pub(crate) fn file_record(&mut self, new: NewRecord) -> Record {
        self.next_record += 1;
        let record = Record {
            id: RecordId(self.next_record),
            outputs: new.outputs.clone(),
            created_unix_nanos: self.next_record,
            duration: new.duration,
        };
        self.by_definition.insert(new.definition, record.id);
        if let Some(content) = new.content {
            self.by_content.insert(content, record.id);
        }
        let stored = Stored {
            record: record.clone(),
            new,
        };
        self.records.insert(record.id, stored);
        record
    }

    pub(crate) fn nearest(
        &self,
        definition: DefinitionKey,
        op: OpKey,
        slot: Option<&Slot>,
    ) -> Nearest {
        let candidate = |stored: &Stored| Candidate {
            definition: stored.new.definition,
            op: stored.new.op,
            slot: stored.new.slot.clone(),
            facts: stored.new.facts.clone(),
            outputs: stored.new.outputs.clone(),
            created_unix_nanos: stored.record.created_unix_nanos,
        };
        let newest = |test: &dyn Fn(&Stored) -> bool| {
            let mut records = self.records.values().rev();
            records.find(|stored| test(stored)).map(candidate)
        };
        Nearest {
            lost_elsewhere: None,
            same_slot: newest(&|stored| slot.is_some() && stored.new.slot.as_ref() == slot)
                .into_iter()
                .collect(),
            same_op: newest(&|stored| stored.new.op == op),
            tombstone: self.tombstones.get(&definition).cloned(),
            slot_tombstone: None,
        }
    }

    pub(crate) fn diff_trees(&self, old: TreeRef, new: TreeRef, limit: usize) -> Option<TreeDiff> {
        let (old, new) = (self.trees.get(&old)?, self.trees.get(&new)?);
        let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let mut changes: Vec<FileChange> = paths
            .into_iter()
            .filter(|path| old.get(*path) != new.get(*path))
            .map(|path| FileChange {
                path: path.clone(),
                what: match (old.get(path), new.get(path)) {
                    (None, _) => FileChangeKind::Added,
                    (_, None) => FileChangeKind::Removed,
                    (Some(old), Some(new)) => FileChangeKind::Content {
                        old_size: old.len() as u64,
                        new_size: new.len() as u64,
                    },
                },
            })
            .collect();
        let more = changes.len().saturating_sub(limit);
        changes.truncate(limit);
        Some(TreeDiff { changes, more })
    }

    /// How long everything takes here.
    pub(crate) const DURATION: Duration = Duration::from_millis(10);
}

fn diff_id(files: &Files) -> ContentId {
    ContentId::DiffId(hash(&format!("{files:?}")))
}

/// The files at or below a path, relative to it; a file by its own name.
fn below(files: &Files, path: &str) -> Files {
    let path = path.trim_matches('/');
    let inside = |file: &str| match path {
        "" => Some(file.to_owned()),
        path if file == path => Some(path.rsplit('/').next().unwrap().to_owned()),
        path => Some(file.strip_prefix(path)?.strip_prefix('/')?.to_owned()),
    };
    files
        .iter()
        .filter_map(|(file, text)| Some((inside(file)?, text.clone())))
        .collect()
}
