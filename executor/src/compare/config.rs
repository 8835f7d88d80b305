//! What two image configs say differently, key by key.

use serde_json::Value;

use super::ConfigDifference;

/// So many keys are named; who wants more has the configs.
const MOST_KEYS: usize = 200;

/// Compares two configs; layers and their digests are compared elsewhere.
pub(super) fn compare(one: &Value, two: &Value) -> Vec<ConfigDifference> {
    let mut found = Vec::new();
    walk("", Some(one), Some(two), &mut found);
    found.truncate(MOST_KEYS);
    found
}

fn walk(key: &str, one: Option<&Value>, two: Option<&Value>, found: &mut Vec<ConfigDifference>) {
    if one == two || key == "rootfs.diff_ids" {
        return;
    }
    match (one, two) {
        (Some(Value::Object(one)), Some(Value::Object(two))) => {
            let only_two = two.keys().filter(|name| !one.contains_key(*name));
            for name in one.keys().chain(only_two) {
                let key = match key {
                    "" => name.clone(),
                    key => format!("{key}.{name}"),
                };
                walk(&key, one.get(name), two.get(name), found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(two))) => {
            for index in 0..one.len().max(two.len()) {
                let key = format!("{key}[{index}]");
                walk(&key, one.get(index), two.get(index), found);
            }
        }
        (one, two) => found.push(ConfigDifference {
            key: key.to_owned(),
            one: one.map(Value::to_string),
            two: two.map(Value::to_string),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_named_to_the_last() {
        let one = json!({
            "config": { "Env": ["A=1", "B=2"], "Labels": { "x": "1" } },
            "rootfs": { "diff_ids": ["a"] },
            "created": "1970",
        });
        let two = json!({
            "config": { "Env": ["A=1", "B=3", "C=4"], "Labels": { "y": "1" } },
            "rootfs": { "diff_ids": ["b"] },
            "created": "1970",
        });
        let words = compare(&one, &two).into_iter().map(|found| {
            let value = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
            format!("{} {} {}", found.key, value(found.one), value(found.two))
        });
        assert_eq!(
            words.collect::<Vec<_>>(),
            [
                r#"config.Env[1] "B=2" "B=3""#,
                r#"config.Env[2] - "C=4""#,
                r#"config.Labels.x "1" -"#,
                r#"config.Labels.y - "1""#,
            ]
        );
    }
}
