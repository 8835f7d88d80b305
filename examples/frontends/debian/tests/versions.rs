//! Versions are in the order that dpkg has them, asked of dpkg itself where it is there.
#![allow(clippy::unwrap_used)]

use std::cmp::Ordering;
use std::process::Command;

use kiln_debian::version::Version;
use proptest::prelude::*;

/// What dpkg says; nothing if it is not there.
fn asked(left: &str, operator: &str, right: &str) -> Option<bool> {
    let mut command = Command::new("dpkg");
    command.args(["--compare-versions", left, operator, right]);
    command.output().ok().map(|output| output.status.success())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn as_dpkg_says(
        left in "(0:|1:)?[0-9]{1,2}([.+~a-cZ0-9]{0,4})(-[.+~a-b0-9]{1,3})?",
        right in "(0:|1:)?[0-9]{1,2}([.+~a-cZ0-9]{0,4})(-[.+~a-b0-9]{1,3})?",
    ) {
        let order = Version::of(&left).cmp(&Version::of(&right));
        for (operator, expected) in [("lt", Ordering::Less), ("eq", Ordering::Equal)] {
            if let Some(holds) = asked(&left, operator, &right) {
                prop_assert_eq!(holds, order == expected, "{} {} {}", left, operator, right);
            }
        }
    }

    #[test]
    fn an_order(texts in proptest::collection::vec("[0-9a~.:+-]{0,8}", 3)) {
        let [a, b, c] = [0, 1, 2].map(|at| Version::of(&texts[at]));
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        if a <= b && b <= c {
            prop_assert!(a <= c);
        }
    }
}
