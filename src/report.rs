//! One build as one page: a document that needs nothing but a browser, and asks nobody for anything.
//!
//! There is no script in it, and its policy allows none: whatever a step printed, it is text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use kiln_executor::StepLog;
use kiln_ir::picture::{Mark, to_marked_svg};
use kiln_ir::{NodeId, Plan};

use crate::steps::Steps;
use crate::words::{bytes, duration};
use crate::{BuildRecord, Error, Kiln, StepRecord};

mod costs;
mod text;
mod timeline;

use text::{escaped, log_lines};

/// Nothing is loaded from anywhere, and no script is run; styles stand in the page.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

const STYLE: &str = include_str!("report/style.css");

/// Wider pictures begin as an overview; in pixels.
const WIDE: usize = 1400;

/// All that the page of a build is made of.
pub(crate) struct Report<'a> {
    pub(crate) build: &'a BuildRecord,
    pub(crate) plan: Option<&'a Plan>,
    pub(crate) logs: &'a [StepLog],
    /// By the index of a cached step, the build that made it.
    pub(crate) origins: &'a BTreeMap<usize, BuildRecord>,
}

impl Kiln {
    /// Writes the page of a build.
    pub fn report(&self, build: &BuildRecord) -> Result<String, Error> {
        let (plan, logs) = (self.plan_of(build)?, self.logs(build)?);
        let report = Report {
            build,
            plan: plan.as_ref(),
            logs: &logs,
            origins: &self.origins(build)?,
        };
        Ok(report.page())
    }
}

impl Report<'_> {
    /// The whole document.
    pub(crate) fn page(&self) -> String {
        let build = self.build;
        let critical = build.critical_path();
        let title = build.tags.first().unwrap_or(&build.context);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n\
             <title>{} · build {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
            escaped(title),
            escaped(&build.id)
        );
        self.summary(&mut page, title, &critical);
        timeline::draw(&mut page, build, &critical);
        self.graph(&mut page, &critical);
        costs::draw(&mut page, build);
        self.steps(&mut page, &critical);
        let _ = write!(
            page,
            "<footer>written by kiln {} · this page loads nothing and runs no script</footer>\n</body>\n</html>\n",
            env!("CARGO_PKG_VERSION")
        );
        page
    }

    fn summary(&self, page: &mut String, title: &str, critical: &[usize]) {
        let build = self.build;
        let outcome = match build.outcome() {
            "" => "unknown",
            outcome => outcome,
        };
        let _ = writeln!(
            page,
            "<header><h1>{}</h1><span class=\"badge {outcome}\">{outcome}</span>\
             <p>build <code>{}</code>, {} with kiln {}</p></header>",
            escaped(title),
            escaped(&build.id),
            escaped(&build.age),
            escaped(match build.details.kiln.as_str() {
                "" => "of an older version",
                version => version,
            })
        );
        if build.outcome() != "done" && !build.result.is_empty() {
            let _ = writeln!(page, "<p class=\"failure\">{}</p>", escaped(&build.result));
        }
        self.cards(page, critical);
        let id = build.result.strip_prefix("sha256:");
        let image = id.map(|_| build.result.clone()).unwrap_or_default();
        let facts = [
            ("context", build.context.clone()),
            ("Dockerfile", build.dockerfile.clone()),
            ("target", build.target.clone()),
            ("platform", build.details.platforms.join(", ")),
            ("names", build.tags.join(", ")),
            ("arguments", build.details.arguments.join(" ")),
            ("image", image),
        ];
        page.push_str("<dl class=\"facts\">");
        for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
            let _ = write!(page, "<dt>{name}</dt><dd>{}</dd>", escaped(value));
        }
        page.push_str("</dl>\n");
    }

    fn cards(&self, page: &mut String, critical: &[usize]) {
        let build = self.build;
        let count = |status: &str| {
            let same = |step: &&StepRecord| step.status == status;
            build.steps.iter().filter(same).count()
        };
        let (cached, all) = build.hits();
        let on_path: u64 = critical
            .iter()
            .filter_map(|&index| build.steps[index].ran_micros)
            .sum();
        let on_path = Duration::from_micros(on_path);
        let share = share(on_path, build.duration);
        let kinds = [
            ("ran", count("ran")),
            ("failed", count("failed")),
            ("cancelled", count("cancelled")),
            ("not run", count("not run")),
        ];
        let mut tally = format!("{cached} cached");
        for (kind, count) in kinds.iter().filter(|(_, count)| *count > 0) {
            let _ = write!(tally, ", {count} {kind}");
        }
        let written = bytes(build.total(|step| step.written_bytes));
        let pulled = bytes(build.total(|step| step.pulled_bytes));
        let path = match critical.len() {
            1 => "1 step".to_owned(),
            steps => format!("{steps} steps"),
        };
        let cards: [(&str, String, String); 5] = [
            ("took", duration(build.duration), String::new()),
            ("steps", all.to_string(), tally),
            (
                "critical path",
                duration(on_path),
                format!("{path}, {share} of the build"),
            ),
            ("written", written, "files of new layers".to_owned()),
            ("pulled", pulled, "brought here".to_owned()),
        ];
        page.push_str("<section class=\"cards\">");
        for (what, value, below) in &cards {
            let _ = write!(
                page,
                "<div><span>{what}</span><strong>{value}</strong><small>{below}</small></div>"
            );
        }
        page.push_str("</section>\n");
    }

    /// The plan as `kiln plan --format svg` draws it, coloured by what became of each step.
    fn graph(&self, page: &mut String, critical: &[usize]) {
        let Some(plan) = self.plan else { return };
        let marks = self.marks(plan, critical);
        let svg = to_marked_svg(plan, &marks);
        let width = svg
            .split("width=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        let is_wide = width.and_then(|width| width.parse().ok()).unwrap_or(0) > WIDE;
        let checked = if is_wide { " checked" } else { "" };
        let _ = writeln!(
            page,
            "<section id=\"graph\"><h2>Graph</h2>\
             <p class=\"legend\"><i class=\"s-ran\"></i>ran <i class=\"s-cached\"></i>cached \
             <i class=\"s-failed\"></i>failed <i class=\"s-critical\"></i>critical path \
             <label><input type=\"checkbox\" class=\"fit\"{checked}> fit to the window</label></p>\
             <div class=\"picture\">{svg}</div></section>"
        );
    }

    fn marks(&self, plan: &Plan, critical: &[usize]) -> BTreeMap<NodeId, Mark> {
        let steps = Steps::of(plan);
        let mut marks = BTreeMap::new();
        if steps.infos.len() != self.build.steps.len() {
            return marks;
        }
        for node in plan.order() {
            let Some(index) = steps.index(node) else {
                continue;
            };
            let step = &self.build.steps[index];
            let mark = Mark {
                class: class(step),
                link: format!("#step-{}", index + 1),
                note: match step.ran() {
                    Some(time) => format!("{} {}", step.status, duration(time)),
                    None => step.status.clone(),
                },
                critical: critical.contains(&index),
            };
            marks.insert(node, mark);
        }
        marks
    }

    fn steps(&self, page: &mut String, critical: &[usize]) {
        page.push_str(
            "<section id=\"steps\"><h2>Steps</h2><p class=\"legend\">\
             <label><input type=\"radio\" name=\"show\" class=\"all\" checked> all</label> \
             <label><input type=\"radio\" name=\"show\" class=\"only-ran\"> that ran</label> \
             <label><input type=\"radio\" name=\"show\" class=\"only-path\"> on the critical path</label></p>\n",
        );
        let mut stage = None;
        for (index, step) in self.build.steps.iter().enumerate() {
            if stage != Some(&step.stage) {
                stage = Some(&step.stage);
                let _ = writeln!(page, "<h3>{}</h3>", escaped(&step.stage));
            }
            self.step(page, index, step, critical.contains(&index));
        }
        page.push_str("</section>\n");
    }

    fn step(&self, page: &mut String, index: usize, step: &StepRecord, is_critical: bool) {
        let log = self.logs.iter().find(|log| log.step as usize == index);
        let opened = match step.status.as_str() {
            "failed" => " open",
            _ => "",
        };
        let critical = if is_critical { " on-path" } else { "" };
        let why = self.why(index, step);
        let took = step.ran().map(duration).unwrap_or_default();
        let _ = write!(
            page,
            "<details class=\"step {}{critical}\"{opened}><summary>\
             <b>{}</b><i class=\"s-{}\"></i><code>{}</code><em>{}</em><span>{took}</span></summary>\
             <div class=\"inside\" id=\"step-{}\">",
            class(step),
            index + 1,
            class(step),
            escaped(&step.text),
            escaped(&why),
            index + 1
        );
        let mut facts = vec![step.status.clone()];
        if step.line > 0 {
            facts.push(format!("line {} of {}", step.line, self.build.dockerfile));
        }
        if let Some(micros) = step.started_micros {
            facts.push(format!(
                "began at {}",
                duration(Duration::from_micros(micros))
            ));
        }
        if let Some(written) = step.written_bytes {
            facts.push(format!("{} written", bytes(written)));
        }
        if let Some(pulled) = step.pulled_bytes {
            facts.push(format!("{} pulled", bytes(pulled)));
        }
        if is_critical {
            facts.push("on the critical path".to_owned());
        }
        let _ = write!(
            page,
            "<p class=\"line\">{}</p>",
            escaped(&facts.join(" · "))
        );
        let lines = step.explanation.lines();
        if !lines.is_empty() {
            page.push_str("<ul class=\"reasons\">");
            for line in &lines {
                let deeper = if line.starts_with(' ') {
                    " class=\"deeper\""
                } else {
                    ""
                };
                let _ = write!(page, "<li{deeper}>{}</li>", escaped(line.trim_start()));
            }
            page.push_str("</ul>");
        }
        if let Some(log) = log {
            let (html, left_out) = (log_lines(log), log.left_out_bytes());
            let gap = match left_out {
                0 => String::new(),
                left_out => format!(", {} of them left out", bytes(left_out)),
            };
            let _ = write!(
                page,
                "<p class=\"line\">output: {}{gap}</p><pre>{html}</pre>",
                bytes(log.bytes)
            );
        }
        page.push_str("</div></details>\n");
    }

    /// Why, in one line.
    fn why(&self, index: usize, step: &StepRecord) -> String {
        match (step.reason.as_str(), self.origins.get(&index)) {
            ("", Some(origin)) => format!("as in build {}, {}", origin.id, origin.age),
            (reason, _) => reason.to_owned(),
        }
    }
}

/// The class of a step by what became of it.
fn class(step: &StepRecord) -> &'static str {
    match step.status.as_str() {
        "cached" => "cached",
        "ran" => "ran",
        "failed" => "failed",
        "cancelled" => "cancelled",
        _ => "idle",
    }
}

/// How much of a time another is, in percent.
fn share(part: Duration, whole: Duration) -> String {
    let percent = 100.0 * part.as_secs_f64() / whole.as_secs_f64().max(1e-9);
    format!("{:.0} %", percent.min(100.0))
}
