//! Two plans compared: what is named, in which words, and that nothing else is.

#![allow(clippy::unwrap_used)]

mod plans;

use std::collections::BTreeSet;

use kiln_ir::build::Builder;
use kiln_ir::compare::{OpChange, ResultChange};
use kiln_ir::*;
use proptest::prelude::*;

const BASE: &str = "%0 = image docker.io/library/alpine:3.20 linux/amd64\n";

/// What is said of two plans, each written after a base `%0`.
fn check(old: &str, new: &str, expected: &str) {
    let read = |text: &str| parse(&format!("{BASE}{text}")).unwrap();
    assert_eq!(compare(&read(old), &read(new)).to_text(), expected);
}

#[test]
fn nothing() {
    check("result %0\n", "result %0\n", "");
    assert!(compare(&Plan::default(), &Plan::default()).is_empty());
}

#[test]
fn numbers_and_order_are_no_change() {
    check(
        "%1 = local context\n%2 = exec %0 [make]\n%3 = file %2 { copy %1:/a -> /a }\nresult %3\n",
        "%b = exec %0 [make]\n%a = local context\n%c = file %b { copy %a:/a -> /a }\nresult %c\n",
        "",
    );
}

#[test]
fn an_argument() {
    check(
        "%1 = exec %0 [\"make\", \"-j4\", \"all\"]\nresult %1\n",
        "%1 = exec %0 [\"make\", \"-j8\", \"all\"]\nresult %1\n",
        "~ %1 exec make -j8 all\n    args[1]: \"-j4\" -> \"-j8\"\n",
    );
}

#[test]
fn long_arguments_show_what_differs() {
    let command = |word: &str| {
        let padding = "x".repeat(100);
        format!("%1 = exec %0 [\"sh\", \"-c\", \"echo {padding} {word} {padding}\"]\nresult %1\n")
    };
    check(
        &command("one"),
        &command("two"),
        "~ %1 exec sh -c echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…\n    \
         args[2]: …xxxxxxxxxxxxxxx one xxxxxxxxxxxxxxx… -> …xxxxxxxxxxxxxxx two xxxxxxxxxxxxxxx…\n",
    );
}

#[test]
fn lines_of_a_script() {
    check(
        "%1 = file %0 { mkfile /s data=\"a\\nb\\nc\\n\" }\nresult %1\n",
        "%1 = file %0 { mkfile /s data=\"a\\nB\\nc\\n\" }\nresult %1\n",
        "~ %1 mkfile /s\n    actions[0].kind.mkfile.data.text:\n      - b\n      + B\n",
    );
}

#[test]
fn a_variable_by_name() {
    check(
        "%1 = exec %0 [make] env=[\"A=1\", \"B=2\", \"D=4\"]\nresult %1\n",
        "%1 = exec %0 [make] env=[\"A=1\", \"B=3\", \"C=2\"]\nresult %1\n",
        "~ %1 exec make\n    env.B: \"B=2\" -> \"B=3\"\n    env.D: \"D=4\" -> (none)\n    \
         env.C: (none) -> \"C=2\"\n",
    );
}

#[test]
fn the_order_of_variables() {
    check(
        "%1 = exec %0 [make] env=[\"A=1\", \"B=2\"]\nresult %1\n",
        "%1 = exec %0 [make] env=[\"B=2\", \"A=1\"]\nresult %1\n",
        "~ %1 exec make\n    env: [\"A=1\",\"B=2\"] -> [\"B=2\",\"A=1\"]\n",
    );
}

#[test]
fn a_base() {
    let plan = |base: &str| {
        let text = format!(
            "%0 = image docker.io/library/{base} linux/amd64\n%1 = exec %0 [make]\nresult %1\n"
        );
        parse(&text).unwrap()
    };
    assert_eq!(
        compare(&plan("alpine:3.20"), &plan("debian:12")).to_text(),
        "~ %0 image docker.io/library/debian:12 linux/amd64\n    \
         reference: \"docker.io/library/alpine:3.20\" -> \"docker.io/library/debian:12\"\n"
    );
}

#[test]
fn an_op_in_between() {
    check(
        "%1 = exec %0 [one]\n%2 = exec %1 [two]\nresult %2\n",
        "%1 = exec %0 [one]\n%2 = exec %1 [half]\n%3 = exec %2 [two]\nresult %3\n",
        "+ %2 exec half\n    reads %1 exec one\n    read by %3 exec two\n",
    );
}

#[test]
fn an_op_that_went() {
    check(
        "%1 = exec %0 [one]\n%2 = exec %1 [half]\nresult %2\n",
        "%1 = exec %0 [one]\nresult %1\n",
        "- %2 exec half\n    reads %1 exec one\n    read by the result\n",
    );
}

#[test]
fn ops_that_changed_places() {
    check(
        "%1 = exec %0 [one]\n%2 = exec %1 [two]\nresult %2\n",
        "%1 = exec %0 [two]\n%2 = exec %1 [one]\nresult %2\n",
        "~ %1 exec two\n    mounts[/].input: %1 exec one -> %0 image docker.io/library/alpine:3.20 linux/amd64\n\
         ~ %2 exec one\n    mounts[/].input: %0 image docker.io/library/alpine:3.20 linux/amd64 -> %1 exec two\n\
         ~ result\n    output: %2 exec two -> %2 exec one\n",
    );
}

#[test]
fn where_a_copy_comes_from() {
    check(
        "%1 = exec %0 [one]\n%2 = exec %0 [two]\n%3 = file %0 { copy %1:/a -> /a; copy %2:/b -> /b }\nresult %3\n",
        "%1 = exec %0 [one]\n%2 = exec %0 [two]\n%3 = file %0 { copy %2:/a -> /a; copy %1:/b -> /b }\nresult %3\n",
        "~ %3 copy /a -> /a; copy /b -> /b\n    actions[0].secondary: %1 exec one -> %1 exec two\n    \
         actions[1].secondary: %2 exec two -> %2 exec one\n",
    );
}

#[test]
fn an_action_in_between() {
    check(
        "%3 = file %0 { mkdir /a; rm /c }\nresult %3\n",
        "%3 = file %0 { mkdir /a; mkdir /b; rm /c }\nresult %3\n",
        "~ %1 mkdir /a; mkdir /b; rm /c\n    \
         actions[1]: (none) -> {\"output\":\"none\",\"kind\":{\"mkdir\":{\"path\":\"/b\",\"mode\":0}}}\n",
    );
}

#[test]
fn a_mount_by_its_target() {
    check(
        "%1 = exec %0 [make] { tmpfs -> /t; cache -> /c id=c }\nresult %1\n",
        "%1 = exec %0 [make] { cache -> /c id=d }\nresult %1\n",
        "~ %1 exec make\n    mounts[/t]: {\"target\":\"/t\",\"kind\":{\"tmpfs\":{\"size_bytes\":0}},\"content_cache\":\"default\"} -> (none)\n    \
         mounts[/c].kind.cache.id: \"c\" -> \"d\"\n",
    );
}

#[test]
fn a_result() {
    check(
        "result %0 { cmd=[a] labels={x=1 y=2} user=app }\nresult other %0\n",
        "result %0 { cmd=[b] labels={x=2 z=2} }\nresult third scratch\n",
        "~ result\n    config.user: \"app\" -> \"\"\n    config.cmd[0]: \"a\" -> \"b\"\n    \
         config.labels.x: \"1\" -> \"2\"\n    config.labels.y: \"2\" -> (none)\n    \
         config.labels.z: (none) -> \"2\"\n- result other\n+ result third\n",
    );
}

#[test]
fn pins_stand_apart() {
    let pin = |digit: &str| format!("result %0\npin %0 = manifest sha256:{}\n", digit.repeat(64));
    check(
        &pin("1"),
        &pin("2"),
        &format!(
            "pins\n    ~ %0 image docker.io/library/alpine:3.20 linux/amd64: manifest sha256:{} -> sha256:{}\n",
            "1".repeat(64),
            "2".repeat(64)
        ),
    );
    let expected = "    + %0 image docker.io/library/alpine:3.20 linux/amd64: manifest sha256:";
    check(
        "result %0\n",
        &pin("3"),
        &format!("pins\n{expected}{}\n", "3".repeat(64)),
    );
}

#[test]
fn the_order_of_inputs_alone() {
    check(
        "%1 = exec %0 [one]\n%2 = merge %0 %1 inputs=[%0, %1]\nresult %2\n",
        "%1 = exec %0 [one]\n%2 = merge %0 %1 inputs=[%1, %0]\nresult %2\n",
        "~ %2 merge\n    inputs: [\"%0 image docker.io/library/alpine:3.20 linux/amd64\",\"%1 exec one\"] -> \
         [\"%1 exec one\",\"%0 image docker.io/library/alpine:3.20 linux/amd64\"]\n",
    );
}

#[test]
fn as_json() {
    let read = |text: &str| parse(&format!("{BASE}{text}")).unwrap();
    let comparison = compare(
        &read("%1 = exec %0 [one]\nresult %1 { user=a }\n"),
        &read("%1 = exec %0 [two]\n%2 = exec %1 [three]\nresult %2 { user=b }\n"),
    );
    insta::assert_snapshot!(format!("{:#}", comparison.to_json()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_equals_itself(plan in plans::plan()) {
        prop_assert!(compare(&plan, &plan.clone()).is_empty());
        let read = json::from_json(&json::to_json(&plan)).unwrap();
        prop_assert!(compare(&plan, &read).is_empty());
    }

    #[test]
    fn what_differs_is_named(old in plans::plan(), new in plans::plan()) {
        let text = |plan: &Plan| plan.to_string();
        let comparison = compare(&old, &new);
        prop_assert_eq!(comparison.is_empty(), text(&old) == text(&new));
        prop_assert_eq!(comparison.is_empty(), comparison.to_text().is_empty());
        prop_assert_eq!(&comparison, &compare(&old, &new));
        for change in &comparison.ops {
            if let OpChange::Changed { fields, .. } = change {
                prop_assert!(!fields.is_empty());
            }
        }
    }

    #[test]
    fn edits_are_named_and_nothing_else(steps in steps(), edits in edits()) {
        let old = Model::of(steps);
        let (new, expected) = old.clone().edited(&edits);
        let comparison = compare(&old.plan(), &new.plan());
        let mut found = Expected::default();
        for change in &comparison.ops {
            match change {
                OpChange::Added(around) => found.added.insert(around.op.name.clone()),
                OpChange::Removed(around) => found.removed.insert(around.op.name.clone()),
                OpChange::Changed { new, .. } => found.changed.insert(new.name.clone()),
            };
        }
        prop_assert_eq!(&found, &expected, "{}\n{}\n{}", old.plan(), new.plan(), comparison.to_text());
        let went = comparison.results.iter().map(|change| match change {
            ResultChange::Removed { name } => name.clone(),
            other => panic!("{other:?}"),
        });
        prop_assert_eq!(went.collect::<BTreeSet<_>>(), expected.removed);
    }
}

/// A step: what it is called, which one it builds upon, and a variable.
#[derive(Debug, Clone)]
struct Step {
    name: String,
    below: Option<usize>,
    variable: u32,
}

/// Steps upon steps, each with a text of its own and a result.
#[derive(Debug, Clone)]
struct Model {
    base: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
enum Edit {
    Variable(prop::sample::Index),
    Insert(prop::sample::Index),
    Remove(prop::sample::Index),
    Base,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    added: BTreeSet<String>,
    removed: BTreeSet<String>,
    changed: BTreeSet<String>,
}

fn steps() -> impl Strategy<Value = Vec<(bool, prop::sample::Index)>> {
    prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..20)
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let index = any::<prop::sample::Index>;
    let edit = prop_oneof![
        4 => index().prop_map(Edit::Variable),
        2 => index().prop_map(Edit::Insert),
        2 => index().prop_map(Edit::Remove),
        1 => Just(Edit::Base),
    ];
    prop::collection::vec(edit, 0..4)
}

impl Model {
    fn of(steps: Vec<(bool, prop::sample::Index)>) -> Model {
        let steps = steps
            .iter()
            .enumerate()
            .map(|(number, (on_base, below))| Step {
                name: format!("tool-{number} with its-{number} words-{number}"),
                below: (number > 0 && !on_base).then(|| below.index(number)),
                variable: 0,
            });
        Model {
            base: "base".to_owned(),
            steps: steps.collect(),
        }
    }

    fn edited(mut self, edits: &[Edit]) -> (Model, Expected) {
        let mut expected = Expected::default();
        let original = self.steps.len();
        let mut gone = BTreeSet::new();
        // One that went where another came is the same as one that changed.
        let grows = edits.iter().find_map(|edit| match edit {
            Edit::Insert(_) => Some(true),
            Edit::Remove(_) => Some(false),
            _ => None,
        });
        for (number, edit) in edits.iter().enumerate() {
            match edit {
                Edit::Base => self.base = "foundation".to_owned(),
                Edit::Variable(index) => {
                    let at = index.index(original);
                    if !gone.contains(&at) {
                        self.steps[at].variable += 1;
                        expected.changed.insert(self.steps[at].name.clone());
                    }
                }
                Edit::Insert(index) => {
                    if grows == Some(false) {
                        continue;
                    }
                    let at = index.index(original);
                    let name = format!("fresh{number} thing{number}");
                    expected.added.insert(name.clone());
                    let below = self.steps[at].below;
                    self.steps[at].below = Some(self.steps.len());
                    let variable = 0;
                    self.steps.push(Step {
                        name,
                        below,
                        variable,
                    });
                }
                Edit::Remove(index) => {
                    let at = index.index(original);
                    if grows == Some(true) || !gone.insert(at) {
                        continue;
                    }
                    expected.changed.remove(&self.steps[at].name);
                    expected.removed.insert(self.steps[at].name.clone());
                    let below = self.steps[at].below;
                    for step in &mut self.steps {
                        if step.below == Some(at) {
                            step.below = below;
                        }
                    }
                }
            }
        }
        if self.base == "foundation" {
            let base = "image docker.io/demo/foundation:1 linux/amd64";
            expected.changed.insert(base.to_owned());
        }
        for at in gone {
            self.steps[at].name.clear();
        }
        (self, expected)
    }

    fn plan(&self) -> Plan {
        let builder = Builder::new();
        let base = builder.image(
            format!("docker.io/demo/{}:1", self.base),
            &Platform::linux("amd64"),
        );
        builder.result("base", base, None);
        let mut made: Vec<Option<build::Tree<'_>>> = vec![None; self.steps.len()];
        while made
            .iter()
            .zip(&self.steps)
            .any(|(made, step)| made.is_none() && !step.name.is_empty())
        {
            for (at, step) in self.steps.iter().enumerate() {
                if made[at].is_some() || step.name.is_empty() {
                    continue;
                }
                let below = match step.below {
                    None => base,
                    Some(below) => match &made[below] {
                        Some(made) => *made,
                        None => continue,
                    },
                };
                let run = below
                    .exec(step.name.split(' '))
                    .env("N", &step.variable.to_string())
                    .root()
                    .named(&step.name);
                made[at] = Some(run);
            }
        }
        for (step, made) in self.steps.iter().zip(made) {
            if let Some(made) = made.filter(|_| step.name.starts_with("tool")) {
                builder.result(&step.name, made, None);
            }
        }
        builder.finish().unwrap()
    }
}
