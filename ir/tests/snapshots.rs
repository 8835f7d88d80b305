//! Plans with the arguments they were made with: as text, and read back.

#![allow(clippy::unwrap_used)]

mod plans;

use kiln_ir::*;
use proptest::prelude::*;

const PLAN: &str = "%0 = image docker.io/library/alpine:3.20 linux/amd64\nresult %0\n";

fn refused(text: &str) -> String {
    Snapshot::parse(text).unwrap_err().to_string()
}

#[test]
fn golden() {
    let mut plan = parse(
        "%0 = image docker.io/library/alpine:3.20 linux/amd64\n%1 = local context\n\
         %2 = file %0 { copy %1:/src -> /app }\nresult %2 { cmd=[\"/app/run\"] }\n",
    )
    .unwrap();
    let goal = plan.goals()[0];
    *plan.display_mut(goal) = Display {
        name: "COPY src /app".to_owned(),
        stage: "app".to_owned(),
        ..Display::default()
    };
    let argument = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let arguments = vec![
        argument("platform", "linux/amd64"),
        argument("target", "app"),
        argument("build-arg", "VERSION=1: a \"b\""),
        argument("build-arg", "LINES=one\ntwo"),
        argument("label", ""),
    ];
    let text = Snapshot { arguments, plan }.to_text();
    insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => "golden" }, {
        insta::assert_snapshot!("plan_snapshot", text);
    });
}

#[test]
fn names_come_back() {
    let text = format!("# kiln plan snapshot 0\n#\n# [one] FROM alpine\n{PLAN}");
    let snapshot = Snapshot::parse(&text).unwrap();
    assert_eq!(snapshot.to_text(), text);
    assert_eq!(Snapshot::parse(&text.replace('\n', "\r\n")), Ok(snapshot));
}

#[test]
fn what_is_no_snapshot() {
    assert_eq!(
        refused(PLAN),
        "the first line is not `# kiln plan snapshot 0`"
    );
    assert_eq!(
        refused(""),
        "the first line is not `# kiln plan snapshot 0`"
    );
    assert_eq!(
        refused("# kiln plan snapshot 1\n#\n"),
        "the snapshot has version `1`, and only `0` is known"
    );
    assert_eq!(
        refused(&format!("# kiln plan snapshot 0\n# target: x\n{PLAN}")),
        "line 3: `%0 = image docker.io/library/alpine:3.20 linux/amd64` is not `# NAME: VALUE`; \
         a line `#` ends the header"
    );
    assert_eq!(
        refused("# kiln plan snapshot 0\n# a: \"b\n#\n"),
        "line 2: `# a: \"b` is not `# NAME: VALUE`; a line `#` ends the header"
    );
    assert!(refused("# kiln plan snapshot 0\n#\n%0 = what\n").starts_with("line 3"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reads_back(plan in plans::plan(), values in prop::collection::vec(".{0,12}", 0..4)) {
        let arguments: Vec<_> = values.into_iter().map(|value| ("build-arg".to_owned(), value)).collect();
        let snapshot = Snapshot { arguments: arguments.clone(), plan };
        let text = snapshot.to_text();
        let read = Snapshot::parse(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(&read.arguments, &arguments);
        prop_assert!(compare(&read.plan, &snapshot.plan).is_empty(), "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "(# kiln plan snapshot 0\n)?(# [a-z]{0,3}: .{0,5}\n){0,3}(#\n)?.{0,20}") {
        let _ = Snapshot::parse(&text);
    }
}
