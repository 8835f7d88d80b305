//! Bytes and digests that may not change without a new version: docs/formats/node-encoding.md.

#![allow(clippy::unwrap_used)]

use kiln_ir::*;

const EVERY_FIELD: &str = include_str!("golden/every_field.plan");

fn check(name: &str, text: &str) {
    insta::with_settings!({ snapshot_path => "golden", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
}

#[test]
fn canonical_bytes_and_digests() {
    let plan = parse(EVERY_FIELD).unwrap();
    let mut text = String::new();
    for id in plan.order() {
        let node = plan.graph.node(id);
        let bytes = encode::encode_node(&plan.graph, node).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!(
            "{} {}\n{hex}\n\n",
            node.op.kind(),
            plan.graph.digest(id)
        ));
    }
    text.push_str(&format!("plan {}\n", plan.digest()));
    check("node_encoding", &text);
}

#[test]
fn text_form() {
    check("plan_text", &parse(EVERY_FIELD).unwrap().to_string());
}

#[test]
fn json_form() {
    check("plan_json", &json::to_json(&parse(EVERY_FIELD).unwrap()));
}

#[test]
fn image_config_document() {
    let plan = parse(EVERY_FIELD).unwrap();
    let config = plan.results["linux/arm64"].config.as_ref().unwrap();
    let json = config.to_json(&["sha256:01".to_owned()]).unwrap();
    check("image_config", &json);
    let mut read = ImageConfig::from_json(json.as_bytes()).unwrap();
    // An empty list and none are the same in the document.
    read.config.cmd = config.config.cmd.clone();
    assert_eq!(&read, config);
}

#[test]
fn decoding_refuses_what_is_not_canonical() {
    let plan = parse(EVERY_FIELD).unwrap();
    let id = plan.order()[0];
    let bytes = encode::encode_node(&plan.graph, plan.graph.node(id)).unwrap();
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(
        encode::decode_node(&longer),
        Err(encode::DecodeError::TrailingBytes { count: 1 })
    ));
    let mut newer = bytes.clone();
    newer[0] = 9;
    assert!(matches!(
        encode::decode_node(&newer),
        Err(encode::DecodeError::Version { found: 9 })
    ));
    let short = encode::decode_node(&bytes[..bytes.len() - 1]);
    assert!(matches!(short, Err(encode::DecodeError::Malformed { .. })));
    assert!(encode::decode_node(&[]).is_err());
}
