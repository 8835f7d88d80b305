//! What is refused, with the message and the place.

#![allow(clippy::unwrap_used)]

use kiln_ir::*;

#[track_caller]
fn check(text: &str, expected: &str) {
    let error = parse(text).unwrap_err();
    assert_eq!(error.to_string(), expected, "for {text:?}");
    assert!(text.get(error.span.clone()).is_some());
}

#[test]
fn text_names_the_place() {
    check(
        "%0 = image",
        "line 1, column 11: expected an image reference, found the end",
    );
    check(
        "%0 = imag x",
        "line 1, column 6: `imag` is no op; known are image, local, git, http, oci-layout, blob, exec, file, merge, diff, build, passthrough",
    );
    check(
        "%0 = local x\n\n%1 = local y colour=red",
        "line 3, column 14: unknown `colour`",
    );
    check(
        "%0 = local x unique=a unique=b",
        "line 1, column 23: `unique` is given twice",
    );
    check(
        "%0 = local \"x",
        "line 1, column 12: text in double quotes does not end in its line",
    );
    check(
        "%0 = exec scratch [\"a\"",
        "line 1, column 19: `[` is not closed",
    );
    check(
        "%0 = exec scratch [\"\\q\"]",
        "line 1, column 21: unknown escape `\\q`; known are \\\" \\\\ \\n \\r \\t and \\u{hex}",
    );
    check(
        "%0 = exec scratch [] network=mars",
        "line 1, column 30: `mars` is no network mode; known are `default`, `host`, `none`",
    );
    check(
        "%0 = http u mode=9",
        "line 1, column 18: `9` is no octal number",
    );
    check(
        "%0 = http u uid=-1",
        "line 1, column 17: `-1` is no number (u32)",
    );
    check(
        "%0 = image a linux/",
        "line 1, column 14: `linux/` is no platform",
    );
    check(
        "what",
        "line 1, column 1: expected `%name = op …`, `result …` or `pin %name = …`, found `what`",
    );
    check(
        "%0 = local ü",
        "line 1, column 12: unexpected `ü`; write texts with such characters in double quotes",
    );
}

#[test]
fn references_have_to_be_there_and_lead_on() {
    check(
        "%0 = merge %1",
        "line 1, column 12: input 0 is node `1`, which is not in the graph",
    );
    check(
        "%a = merge %b\n%b = merge %c\n%c = merge %a",
        "line 1, column 1: nodes form a cycle: `a`, `b`, `c`",
    );
    check(
        "%a = merge %a",
        "line 1, column 12: nodes form a cycle: `a`",
    );
    check(
        "%a = local x\n%b = merge %a.3",
        "line 2, column 12: input 0 is output 3 of `a`, which yields 0",
    );
    check(
        "%a = local x\n%a = local y",
        "line 2, column 1: node `a` is defined twice",
    );
    check(
        "result %9",
        "line 1, column 8: input 0 is node `9`, which is not in the graph",
    );
    assert_eq!(
        parse("%b = merge %a scratch\n%a = local x")
            .unwrap()
            .graph
            .len(),
        2
    );
}

#[test]
fn ops_have_to_be_valid() {
    check(
        "%0 = exec [\"a\"]",
        "line 1, column 1: an exec op needs exactly one mount at `/`, but this one has 0",
    );
    check(
        "%0 = exec scratch [] { bind scratch -> / }",
        "line 1, column 1: an exec op needs exactly one mount at `/`, but this one has 2",
    );
    check(
        "%0 = exec scratch [] { bind scratch -> x }",
        "line 1, column 1: mount target `x` is not an absolute path",
    );
    check(
        "%0 = exec scratch [] { bind scratch -> /a/../b }",
        "line 1, column 1: mount target `/a/../b` has a `..` part",
    );
    check(
        "%0 = exec scratch [] { cache -> /c out=1 }",
        "line 1, column 1: the cache mount at `/c` cannot have an output, but has output 1",
    );
    check(
        "%0 = exec scratch [] { tmpfs -> /c out=1 }",
        "line 1, column 1: the tmpfs mount at `/c` cannot have an output, but has output 1",
    );
    check(
        "%0 = exec scratch [] { bind scratch -> /c out=4000000000 }",
        "line 1, column 1: the mount at `/c` yields output 4000000000, but the op has at most 2 outputs, from 0 on",
    );
    check(
        "%0 = exec scratch [] { bind scratch -> /c out=0 }",
        "line 1, column 1: output 0 is yielded twice, by the mount at `/` and the mount at `/c`",
    );
    check(
        "%0 = exec [] { tmpfs -> / }",
        "line 1, column 1: the mount at `/` is a tmpfs mount, but the root has to be a bind mount",
    );
    check(
        "%0 = exec scratch [] { bind scratch -> /o out=1 content-cache=on }",
        "line 1, column 1: the mount at `/o` has a writable output, so its content cache cannot be `on`",
    );
    check(
        "%0 = file scratch { mkdir /a on=@0 }",
        "line 1, column 1: the tree of action 0 reads the result of action 0, which does not come before it",
    );
    check(
        "%0 = local x\n%1 = local y inputs=[%0]",
        "line 2, column 1: a source reads nothing, but this one has 1 inputs",
    );
    check(
        "%0 = local a\n%1 = merge %0 inputs=[]",
        "line 2, column 12: `%0` is not in the node's `inputs`",
    );
}

#[test]
fn pins_have_to_fit() {
    check(
        "%0 = local x\npin %0 = commit 00",
        "line 2, column 1: `%0` is a local op, which cannot be pinned to a commit",
    );
    check(
        "%0 = image a\npin %0 = manifest x",
        "line 2, column 1: pin `x` of `%0` is no manifest: `sha256:` and 64 lower-case hex digits",
    );
}

#[test]
fn graphs_refuse_what_is_not_there() {
    let mut other = Graph::new();
    let source = |name: &str| Node {
        op: Op::Source(SourceOp::Local(LocalSource {
            name: name.to_owned(),
            ..LocalSource::default()
        })),
        inputs: Vec::new(),
        platform: None,
    };
    let node = other.add(source("x")).unwrap();
    let input = Input { node, output: 0 };
    let merge = |inputs: Vec<Input>| Node {
        op: Op::Merge(MergeOp {
            inputs: vec![Some(0)],
        }),
        inputs,
        platform: None,
    };
    let mut graph = Graph::new();
    assert!(matches!(
        graph.add(merge(vec![input])),
        Err(GraphError::DanglingInput { index: 0, .. })
    ));
    assert!(matches!(
        graph.add(merge(vec![])),
        Err(GraphError::NoSuchInput {
            index: 0,
            available: 0,
            ..
        })
    ));
    assert!(matches!(
        other.add(merge(vec![input, input])),
        Err(GraphError::DuplicateInput {
            first: 0,
            second: 1,
            ..
        })
    ));
    let platform = Some(Platform::linux("amd64"));
    let placed = Node {
        platform,
        ..source("y")
    };
    assert!(matches!(
        graph.add(placed),
        Err(GraphError::UnexpectedPlatform { op: "local", .. })
    ));
    assert!(graph.is_empty());
}

#[test]
fn equal_nodes_meet_and_paths_weigh() {
    let plan = parse("%a = local x\n%b = local x\n%c = merge %a scratch\n%d = merge %b scratch\n%e = merge %c scratch scratch\nresult %e").unwrap();
    assert_eq!(plan.graph.len(), 3);
    let order = plan.order();
    assert_eq!(plan.graph.consumers(order[0]), [order[1]]);
    let weights = plan.graph.critical_path(|_| 10);
    assert_eq!(
        order.iter().map(|id| weights[id]).collect::<Vec<_>>(),
        [30, 20, 10]
    );
}

#[test]
fn display_data_merges() {
    let mut plan = parse("%a = local x\nresult %a").unwrap();
    let id = plan.order()[0];
    let include = |paths: &[&str]| Display {
        include: paths.iter().map(|p| (*p).to_owned()).collect(),
        ..Display::default()
    };
    plan.annotate(id, include(&["a"]));
    plan.annotate(
        id,
        Display {
            ignore_cache: true,
            ..include(&["b"])
        },
    );
    assert_eq!(plan.display[&id].include.len(), 2);
    plan.annotate(id, include(&[]));
    plan.annotate(id, include(&["c"]));
    assert!(plan.display[&id].include.is_empty() && plan.display[&id].ignore_cache);
}

#[test]
fn json_names_the_place() {
    let check = |text: &str, expected: &str| {
        let error = json::from_json(text).unwrap_err();
        let cause = std::error::Error::source(&error)
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        assert!(
            format!("{error}{cause}").contains(expected),
            "{error}{cause}"
        );
    };
    check("{}", "missing field `version`");
    check(
        r#"{"version": "kiln.plan/9"}"#,
        "plan version `kiln.plan/9` is not `kiln.plan/0`",
    );
    check(
        r#"{"version": "kiln.plan/0", "more": 1}"#,
        "unknown field `more`",
    );
    let nodes = |node: &str| format!(r#"{{"version": "kiln.plan/0", "nodes": [{node}]}}"#);
    check(
        &nodes(r#"{"op": {"merge": {"inputs": [0]}}, "inputs": [{"node": 0}]}"#),
        "nodes form a cycle: `0`",
    );
    check(
        &nodes(r#"{"op": {"merge": {}}, "inputs": [{"node": 7}]}"#),
        "input 0 is node `7`, which is not in the graph",
    );
    check(
        &nodes(r#"{"op": {"source": {"local": {"nam": "x"}}}}"#),
        "unknown field `nam`",
    );
}

#[test]
fn platforms() {
    for (text, expected) in [
        ("linux/amd64", "linux/amd64"),
        ("arm64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("linux/arm", "linux/arm/v7"),
        ("armhf", "linux/arm/v7"),
        ("armel", "linux/arm/v6"),
        ("x86_64", "linux/amd64"),
        ("Linux/X86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("i386", "linux/386"),
        ("macos/arm64", "darwin/arm64"),
        ("linux", "linux/amd64"),
    ] {
        let platform = Platform::parse(text).unwrap();
        assert_eq!(platform.to_string(), expected);
        assert_eq!(Platform::parse(expected).unwrap(), platform);
    }
    let windows = Platform::parse("windows(10.0.17763+win32k)/amd64").unwrap();
    assert_eq!(windows.format_all(), "windows(10.0.17763+win32k)/amd64");
    for text in [
        "",
        "linux/",
        "pdp11",
        "a/b/c/d",
        "linux/amd 64",
        "windows(1/amd64",
    ] {
        assert!(Platform::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn image_configs() {
    let config = ImageConfig::from_json(
        br#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["a&b"],"Labels":{"k":null},"Hostname":"h"},
            "history":null,"rootfs":{"type":"layers"},"container":"c"}"#,
    )
    .unwrap();
    assert_eq!(config.config.cmd, Some(vec!["a&b".to_owned()]));
    assert_eq!(config.config.extra["Hostname"], "\"h\"");
    assert_eq!(config.extra["container"], "\"c\"");
    assert_eq!(
        config.to_json(&[]).unwrap(),
        r#"{"architecture":"amd64","config":{"Cmd":["a\u0026b"],"Labels":{"k":""},"Hostname":"h"},"container":"c","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#
    );
    let error = ImageConfig::from_json(br#"{"config":{"Env":[1]}}"#)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "`config.Env[0]` in the image config is a number, expected a string"
    );
    assert!(ImageConfig::from_json(b"[]").is_err());
}
