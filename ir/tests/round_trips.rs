//! Every form of a plan reads back to an equal plan.

#![allow(clippy::unwrap_used)]

mod plans;

use kiln_ir::*;
use proptest::prelude::*;

/// What the text form does not carry is dropped.
fn without_display(plan: &Plan) -> Plan {
    let Plan {
        graph,
        results,
        pins,
        ..
    } = plan.clone();
    Plan {
        graph,
        results,
        pins,
        ..Plan::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text_reads_back(plan in plans::plan()) {
        let printed = plan.to_string();
        let parsed = parse(&printed).map_err(|error| TestCaseError::fail(format!("{error}\n{printed}")))?;
        prop_assert_eq!(&parsed.to_string(), &printed);
        prop_assert!(parsed == without_display(&plan), "{}", printed);
        prop_assert_eq!(parsed.digest(), plan.digest());
    }

    #[test]
    fn text_with_comments_reads_back(plan in plans::plan()) {
        let printed = print(&plan, PrintOptions { display: true, pins: true });
        prop_assert!(parse(&printed).is_ok_and(|parsed| parsed == without_display(&plan)), "{}", printed);
    }

    #[test]
    fn json_reads_back(plan in plans::plan()) {
        let document = json::to_json(&plan);
        let read = json::from_json(&document).map_err(|error| TestCaseError::fail(format!("{error:?}\n{document}")))?;
        prop_assert_eq!(&json::to_json(&read), &document);
        prop_assert!(read == plan, "{}", document);
    }

    #[test]
    fn canonical_bytes_read_back(plan in plans::plan()) {
        for id in plan.graph.ids() {
            let node = plan.graph.node(id);
            let bytes = encode::encode_node(&plan.graph, node).unwrap();
            let decoded = encode::decode_node(&bytes).unwrap();
            prop_assert_eq!(&decoded.op, &node.op);
            prop_assert_eq!(&decoded.platform, &node.platform);
            prop_assert_eq!(decoded.to_bytes().unwrap(), bytes.clone());
            prop_assert_eq!(encode::digest_bytes(&bytes), plan.graph.digest(id));
        }
    }

    #[test]
    fn changed_bytes_are_refused_or_another_node(plan in plans::plan(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        for id in plan.graph.ids() {
            let mut bytes = encode::encode_node(&plan.graph, plan.graph.node(id)).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = to;
            if let Ok(node) = encode::decode_node(&bytes) {
                prop_assert_eq!(node.to_bytes().unwrap(), bytes);
            }
        }
    }

    #[test]
    fn order_does_not_depend_on_insertion(plan in plans::plan()) {
        // Another valid order of insertion: the reverse of the usual one where inputs allow it.
        let mut other = Graph::new();
        let mut ids = std::collections::BTreeMap::new();
        let mut waiting: Vec<NodeId> = plan.graph.ids().rev().collect();
        while !waiting.is_empty() {
            waiting.retain(|&id| {
                let node = plan.graph.node(id);
                let inputs: Option<Vec<Input>> =
                    node.inputs.iter().map(|i| Some(Input { node: *ids.get(&i.node)?, output: i.output })).collect();
                let Some(inputs) = inputs else { return true };
                let added = other.add(Node { inputs, ..node.clone() }).unwrap();
                ids.insert(id, added);
                false
            });
        }
        let digests = |graph: &Graph| graph.topological().into_iter().map(|id| graph.digest(id)).collect::<Vec<_>>();
        prop_assert_eq!(digests(&plan.graph), digests(&other));
        prop_assert!(plan.graph == other);
    }

    #[test]
    fn pruning_keeps_what_results_mean(plan in plans::plan()) {
        let mut pruned = plan.clone();
        pruned.prune();
        prop_assert_eq!(pruned.digest(), plan.digest());
        prop_assert!(pruned.validate().is_ok());
        prop_assert_eq!(pruned.graph.len(), plan.graph.reachable(plan.goals()).len());
    }

    #[test]
    fn no_text_panics(text in "(%[0-9]|=|image|exec|file|result|pin|[ \\[\\]{};,\"=:@.#\n-]|->|scratch|copy|[a-z]|\\PC){0,40}") {
        let _ = parse(&text);
        let _ = json::from_json(&text);
    }

    #[test]
    fn no_damaged_text_panics(plan in plans::plan(), at in any::<prop::sample::Index>(), with in "\\PC") {
        for mut text in [plan.to_string(), json::to_json(&plan)] {
            let mut places = text.char_indices().map(|(at, _)| at).collect::<Vec<_>>();
            places.push(text.len());
            text.insert_str(places[at.index(places.len())], &with);
            let _ = parse(&text);
            let _ = json::from_json(&text);
        }
    }
}
