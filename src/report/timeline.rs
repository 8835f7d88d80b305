//! When what ran: a bar for each step that took time, the critical path marked.

use std::fmt::Write as _;
use std::time::Duration;

use super::text::escaped;
use crate::BuildRecord;
use crate::words::duration;

/// So many marks on the axis, about.
const TICKS: u64 = 6;

struct Bar {
    label: String,
    text: String,
    link: String,
    class: &'static str,
    started: u64,
    took: u64,
}

/// Writes the section; nothing where nothing took time.
pub(super) fn draw(page: &mut String, build: &BuildRecord, critical: &[usize]) {
    let mut bars = bars(build, critical);
    bars.sort_by_key(|bar| (bar.started, bar.started + bar.took));
    let end = bars.iter().map(|bar| bar.started + bar.took).max();
    let Some(end) = end.map(|end| end.max(1)) else {
        page.push_str(
            "<section><h2>Timeline</h2><p class=\"line\">No step took time: all was found.</p></section>\n",
        );
        return;
    };
    let (cached, _) = build.hits();
    page.push_str("<section id=\"timeline\"><h2>Timeline</h2><p class=\"legend\">");
    page.push_str("<i class=\"s-critical\"></i>critical path <i class=\"s-ran\"></i>beside it <i class=\"s-export\"></i>written at the end");
    match cached {
        0 => {}
        1 => page.push_str(" <span>· 1 cached step took no time</span>"),
        cached => {
            let _ = write!(page, " <span>· {cached} cached steps took no time</span>");
        }
    }
    page.push_str("</p><div class=\"chart\"><div class=\"axis\"><span></span><div>");
    for tick in ticks(end) {
        let _ = write!(
            page,
            "<span style=\"left:{:.2}%\">{}</span>",
            percent(tick, end),
            duration(Duration::from_micros(tick))
        );
    }
    page.push_str("</div></div>\n");
    for bar in &bars {
        let took = duration(Duration::from_micros(bar.took));
        let left = percent(bar.started, end);
        let width = percent(bar.took, end).max(0.15);
        // The label stands beside the bar where there is more room.
        let side = if left + width > 70.0 {
            format!("right:{:.2}%", 100.5 - left)
        } else {
            format!("left:{:.2}%", left + width + 0.5)
        };
        let _ = writeln!(
            page,
            "<a class=\"row\"{}><span title=\"{}\"><small>{}</small> {}</span><div>\
             <i class=\"{}\" style=\"left:{left:.2}%;width:{width:.2}%\"></i>\
             <b style=\"{side}\">{took}</b></div></a>",
            match bar.link.as_str() {
                "" => String::new(),
                link => format!(" href=\"{link}\""),
            },
            escaped(&bar.text),
            escaped(&bar.label),
            escaped(&bar.text),
            bar.class
        );
    }
    page.push_str("</div></section>\n");
}

fn bars(build: &BuildRecord, critical: &[usize]) -> Vec<Bar> {
    let steps = build.steps.iter().enumerate().filter_map(|(index, step)| {
        Some(Bar {
            label: step.stage.clone(),
            text: step.text.clone(),
            link: format!("#step-{}", index + 1),
            class: match step.status.as_str() {
                "failed" => "failed",
                "cancelled" => "cancelled",
                _ if critical.contains(&index) => "critical",
                _ => "ran",
            },
            started: step.started_micros?,
            took: step.ran_micros?,
        })
    });
    let exports = build.details.exports.iter().map(|export| Bar {
        label: String::new(),
        text: export.what.clone(),
        link: String::new(),
        class: "export",
        started: export.started_micros,
        took: export.took_micros,
    });
    steps.chain(exports).collect()
}

/// Round times up to the end.
fn ticks(end: u64) -> Vec<u64> {
    let rough = (end / TICKS).max(1);
    let mut unit = 1;
    while unit * 10 <= rough {
        unit *= 10;
    }
    let steps = [1, 2, 5, 10].map(|factor| unit * factor);
    let step = steps
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    // One that stands at the very end has no room for its words.
    (0..)
        .map(|n| n * step)
        .take_while(|tick| tick * 100 <= end * 95)
        .collect()
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_at_round_times() {
        assert_eq!(ticks(1_000_000), [0, 200_000, 400_000, 600_000, 800_000]);
        assert_eq!(ticks(6_300_000), [0, 2_000_000, 4_000_000]);
        assert_eq!(ticks(1), [0]);
    }
}
