//! The config of an image that is exported: its history brought into line with its layers, and all
//! times filled in.
//!
//! The rules are BuildKit's (`exporter/containerimage/writer.go`), so that what reads its images
//! reads these. Times come from when layers were first made, never from a clock: a build that runs
//! nothing gives the same image again.

use jiff::Timestamp;
use kiln_ir::{History, ImageConfig, Platform};

use super::times;

/// Marks the entries of layers that nothing else tells about.
const COMMENT: &str = "kiln.exporter.image.v0";

/// The config of files that came without one, for this host.
pub(super) fn plain() -> ImageConfig {
    let host = kiln_oci::platform::Platform::host();
    plain_for(&Platform {
        variant: host.variant,
        ..Platform::linux(&host.architecture)
    })
}

/// The config of files that came without one.
pub(super) fn plain_for(platform: &Platform) -> ImageConfig {
    ImageConfig {
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        ..ImageConfig::default()
    }
}

/// Completes a config for layers that were made at these times, lowest first.
///
/// Returns the image's own time beside it, if there is any.
pub(super) fn complete(
    config: &ImageConfig,
    layers: &[Timestamp],
    epoch: Option<i64>,
) -> (ImageConfig, Option<Timestamp>) {
    let mut config = config.clone();
    let epoch = epoch.map(times::of_epoch);
    match_layers(&mut config.history, layers);
    fill_times(&mut config.history);
    if let Some(epoch) = epoch {
        for entry in &mut config.history {
            let time = entry.created.as_deref().and_then(times::parse);
            if time.is_none_or(|time| time > epoch) {
                entry.created = Some(epoch.to_string());
            }
        }
        config.created = Some(epoch.to_string());
    }
    if config.created.is_none() {
        config.created = config
            .history
            .iter()
            .rev()
            .find_map(|entry| entry.created.clone());
    }
    let created = config.created.as_deref().and_then(times::parse);
    (config, created)
}

/// Makes the history count as many layers as there are.
fn match_layers(history: &mut Vec<History>, layers: &[Timestamp]) {
    let mut times = layers.iter();
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        match times.next() {
            Some(time) if entry.created.is_none() => entry.created = Some(time.to_string()),
            Some(_) => {}
            // It claims a layer that is not there.
            None => entry.empty_layer = true,
        }
    }
    history.extend(times.map(|time| History {
        created: Some(time.to_string()),
        comment: COMMENT.to_owned(),
        ..History::default()
    }));
}

/// Gives entries without a layer the time of the layer before them.
///
/// Those before the first new layer get that one's time, since a base image may be years older.
fn fill_times(history: &mut [History]) {
    let first_open = history.iter().position(|entry| entry.created.is_none());
    let Some(first_open) = first_open else { return };
    let known = |entries: &[History]| entries.iter().find_map(|entry| entry.created.clone());
    let mut time =
        known(&history[first_open..]).or_else(|| history[..first_open].last()?.created.clone());
    for entry in &mut history[first_open..] {
        match &entry.created {
            Some(created) => time = Some(created.clone()),
            None => entry.created = time.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a history as one word an entry: `-` has no layer; what follows `@` is the second.
    fn history(words: &str) -> Vec<History> {
        let entry = |word: &str| {
            let (name, created) = match word.split_once('@') {
                Some((name, second)) => (
                    name,
                    Some(times::of_epoch(second.parse().unwrap()).to_string()),
                ),
                None => (word, None),
            };
            let created_by = name.trim_start_matches('-').to_owned();
            History {
                created,
                created_by,
                empty_layer: name.starts_with('-'),
                ..History::default()
            }
        };
        words.split_whitespace().map(entry).collect()
    }

    fn words(config: &ImageConfig) -> String {
        let word = |entry: &History| {
            let mark = if entry.empty_layer { "-" } else { "" };
            let name = if entry.comment == COMMENT {
                "added"
            } else {
                &entry.created_by
            };
            let time = entry.created.as_deref().and_then(times::parse);
            let time = time.map_or(String::new(), |time| format!("@{}", time.as_second()));
            format!("{mark}{name}{time}")
        };
        config
            .history
            .iter()
            .map(word)
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn check(given: &str, layers: &[i64], epoch: Option<i64>, expected: &str) {
        let config = ImageConfig {
            history: history(given),
            ..ImageConfig::default()
        };
        let layers: Vec<Timestamp> = layers.iter().copied().map(times::of_epoch).collect();
        let (config, created) = complete(&config, &layers, epoch);
        assert_eq!(words(&config), expected);
        let last = config
            .history
            .last()
            .and_then(|entry| entry.created.as_deref())
            .and_then(times::parse);
        assert_eq!(created, epoch.map(times::of_epoch).or(last));
    }

    #[test]
    fn layers_give_their_times() {
        check("a b", &[5, 7], None, "a@5 b@7");
        check("a@1 b", &[5, 7], None, "a@1 b@7");
    }

    #[test]
    fn entries_without_a_layer_follow_the_layer_before() {
        check("a@1 -env b -cmd", &[1, 7], None, "a@1 -env@7 b@7 -cmd@7");
        check("a -env b -cmd", &[5, 7], None, "a@5 -env@7 b@7 -cmd@7");
        check("a@1 -x@2 -cmd", &[1], None, "a@1 -x@2 -cmd@2");
        check("-env", &[], None, "-env");
    }

    #[test]
    fn history_is_made_to_fit() {
        check("", &[5, 7], None, "added@5 added@7");
        check("a -cmd", &[5, 7], None, "a@5 -cmd@7 added@7");
        check("a b c", &[5], None, "a@5 -b@5 -c@5");
    }

    #[test]
    fn an_epoch_bounds_all_times() {
        check("a@1 b -cmd", &[1, 9], Some(4), "a@1 b@4 -cmd@4");
        check("-env", &[], Some(4), "-env@4");
    }

    #[test]
    fn a_fixed_time_stays() {
        let config = ImageConfig {
            created: Some("2001-09-09T01:46:40Z".to_owned()),
            ..plain()
        };
        let (config, created) = complete(&config, &[times::of_epoch(5)], None);
        assert_eq!(config.created.as_deref(), Some("2001-09-09T01:46:40Z"));
        assert_eq!(created, Some(times::of_epoch(1_000_000_000)));
    }
}
