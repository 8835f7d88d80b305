//! What holds of every lowering with assumed bases.

use kiln_frontend::diagnostic::Diagnostic;
use kiln_frontend::lower::{Answers, LowerInput, Lowered, Lowering, lower};
use kiln_ir::{Platform, PrintOptions};

/// Lowers, and checks what came out.
pub(crate) fn check(text: &str) {
    let mut input = LowerInput {
        text: text.into(),
        file_name: "Dockerfile".to_owned(),
        build_args: [("A".to_owned(), Some("1".to_owned()))].into(),
        ignore: vec!["*.log".to_owned()],
        build_platform: Platform::linux("amd64"),
        ..LowerInput::default()
    };
    let (built, findings) = outcome(&input);
    let (again, same) = outcome(&input);
    assert_eq!(findings, same, "lowering is no function");
    assert_eq!(
        built.as_ref().map(|built| &built.plan),
        again.as_ref().map(|again| &again.plan)
    );
    check_places(text, &findings);
    input.every_stage = true;
    let (checked, findings) = outcome(&input);
    check_places(text, &findings);
    let Some(built) = built else {
        return;
    };
    check_plan(&built, text);
    // Looking at more stages changes nothing of what is built.
    if let Some(checked) = checked {
        assert_eq!(printed(&built), printed(&checked));
        assert_eq!(built.outline.name, checked.outline.name);
    }
}

/// The plan without what people see of it.
fn printed(lowered: &Lowered) -> String {
    let options = PrintOptions {
        display: false,
        pins: true,
    };
    kiln_ir::print(&lowered.plan, options)
}

fn outcome(input: &LowerInput) -> (Option<Box<Lowered>>, Vec<Diagnostic>) {
    let mut answers = Answers::default();
    let mut rounds = 0;
    loop {
        match lower(input, &answers) {
            Lowering::Lowered(lowered) => {
                let findings = lowered.diagnostics.clone();
                return (Some(lowered), findings);
            }
            Lowering::Failed(findings) => {
                assert!(findings.iter().any(Diagnostic::is_error));
                return (None, findings);
            }
            Lowering::Needs(questions) => {
                rounds += 1;
                assert!(!questions.is_empty(), "a round asks something");
                // Assumed images bring no triggers, so nothing new is to be asked.
                assert_eq!(rounds, 1, "asked again: {questions:?}");
                answers.assume(questions);
            }
        }
    }
}

fn check_places(text: &str, findings: &[Diagnostic]) {
    for finding in findings {
        let labels = finding.labels.iter().map(|(span, _)| *span);
        for span in labels.chain([finding.span]) {
            let (start, end) = (span.start as usize, span.end as usize);
            assert!(text.get(start..end).is_some(), "{finding:?}");
        }
    }
}

fn check_plan(lowered: &Lowered, text: &str) {
    let plan = &lowered.plan;
    plan.validate().unwrap();
    let lines = text.matches('\n').count() as u32 + 1;
    for display in plan.display.values() {
        for range in &display.ranges {
            assert!(
                1 <= range.start_line && range.end_line <= lines,
                "{range:?}"
            );
        }
    }
    let printed = printed(lowered);
    let read = kiln_ir::parse(&printed).unwrap();
    let options = PrintOptions {
        display: false,
        pins: true,
    };
    assert_eq!(kiln_ir::print(&read, options), printed);
}
