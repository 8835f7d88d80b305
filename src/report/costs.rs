//! Where time and bytes went: the steps that took the most of each.

use std::fmt::Write as _;
use std::time::Duration;

use super::text::escaped;
use crate::words::{bytes, duration};
use crate::{BuildRecord, StepRecord};

/// So many steps are named of each.
const NAMED: usize = 8;

/// Writes the section; nothing where there is nothing to tell.
pub(super) fn draw(page: &mut String, build: &BuildRecord) {
    type Measure = fn(&StepRecord) -> Option<u64>;
    type Words = fn(u64) -> String;
    let measures: [(&str, Measure, Words); 3] = [
        (
            "Time",
            |step| step.ran_micros,
            |micros| duration(Duration::from_micros(micros)),
        ),
        ("Bytes written", |step| step.written_bytes, bytes),
        ("Bytes pulled", |step| step.pulled_bytes, bytes),
    ];
    let columns: Vec<String> = measures
        .iter()
        .filter_map(|(name, measure, words)| column(build, name, *measure, *words))
        .collect();
    if columns.is_empty() {
        return;
    }
    page.push_str(
        "<section id=\"costs\"><h2>Where time and bytes went</h2><div class=\"columns\">",
    );
    columns.iter().for_each(|column| page.push_str(column));
    page.push_str("</div></section>\n");
}

fn column(
    build: &BuildRecord,
    name: &str,
    measure: fn(&StepRecord) -> Option<u64>,
    words: fn(u64) -> String,
) -> Option<String> {
    let steps = build.steps.iter().enumerate();
    let mut steps: Vec<(u64, usize, &StepRecord)> = steps
        .filter_map(|(index, step)| Some((measure(step)?, index, step)))
        .filter(|(cost, ..)| *cost > 0)
        .collect();
    steps.sort_by_key(|(cost, index, _)| (std::cmp::Reverse(*cost), *index));
    let all: u64 = steps.iter().map(|(cost, ..)| cost).sum();
    let most = steps.first()?.0;
    let mut html = format!("<div><h3>{name} <small>{} in all</small></h3>", words(all));
    for (cost, index, step) in steps.iter().take(NAMED) {
        let _ = write!(
            html,
            "<a class=\"cost\" href=\"#step-{}\"><span title=\"{}\">{}</span><b>{}</b>\
             <i style=\"width:{:.1}%\"></i></a>",
            index + 1,
            escaped(&step.text),
            escaped(&step.text),
            words(*cost),
            100.0 * *cost as f64 / most as f64
        );
    }
    let rest = steps.get(NAMED..).unwrap_or_default();
    if !rest.is_empty() {
        let cost = rest.iter().map(|(cost, ..)| cost).sum();
        let _ = write!(
            html,
            "<p class=\"line\">{} more: {}</p>",
            rest.len(),
            words(cost)
        );
    }
    html.push_str("</div>");
    Some(html)
}
