//! Results that only go to registries: what a registry has of them can stay there.

use std::collections::BTreeSet;

use kiln_ir::{NodeId, Op, Plan};
use kiln_store::Content;
use kiln_tree::tar::MtimePolicy;

use super::Export;
use super::layers::filed_tar;
use crate::compress::LayerCompression;
use crate::worker::BuildWorker;

/// The results of a build that are sent, and not kept.
#[derive(Default)]
pub struct Sent {
    /// Nodes whose files nothing looks at.
    unread: BTreeSet<NodeId>,
    /// How the layers are packed.
    packs: Vec<(MtimePolicy, LayerCompression)>,
}

impl Sent {
    /// The results of a plan whose `exports` all send it; `epoch` is that of the build.
    pub fn of(plan: &Plan, exports: &[Export], epoch: Option<i64>) -> Sent {
        let mut read = BTreeSet::new();
        let mut unread = BTreeSet::new();
        for id in plan.order().into_iter().rev() {
            let node = plan.graph.node(id);
            let arranges = matches!(node.op, Op::Merge(_) | Op::Passthrough(_));
            let is_unread = !read.contains(&id);
            if is_unread {
                unread.insert(id);
            }
            if !(arranges && is_unread) {
                read.extend(node.inputs.iter().map(|input| input.node));
            }
        }
        let options = exports.iter().filter_map(Export::options);
        let packs = options.map(|options| (options.mtime(epoch), options.packing()));
        Sent {
            unread,
            packs: packs.collect(),
        }
    }
}

impl BuildWorker {
    /// Whether a result of another machine need not come here: it is only sent, and registries have those of its
    /// layers that are `missing` here, packed as they would be here.
    pub(crate) async fn can_leave(
        &self,
        node: NodeId,
        layers: &[Content],
        missing: &[Content],
    ) -> bool {
        let Some(elsewhere) = self.elsewhere() else {
            return false;
        };
        if !self.sent.unread.contains(&node) {
            return false;
        }
        let first = layers.iter().position(|layer| missing.contains(layer));
        let above = first.map_or(&[][..], |first| &layers[first..]);
        // How a layer is packed is seen only on top of those below it.
        let is_own = |layer: &&Content| matches!(layer, Content::Layer(_));
        let own: Vec<Content> = above.iter().filter(is_own).copied().collect();
        if !own.iter().all(|layer| missing.contains(layer)) {
            return false;
        }
        let mut bases = missing.iter().filter(|layer| !is_own(layer));
        if !bases.all(|layer| self.is_afar(layer)) {
            return false;
        }
        for (mtime, packing) in &self.sent.packs {
            let (times, packed) = (filed_tar(*mtime), packing.filed_as());
            if !elsewhere.has_packed(&own, &times, &packed).await {
                return false;
            }
        }
        true
    }
}
