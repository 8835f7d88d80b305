//! Frames of a scripted build, on terminals of every size.

use kiln::{StepInfo, StepStatus, Stream};

use super::*;

/// What a build told, with the moment in milliseconds.
struct Script {
    board: Board,
    started: Instant,
    now: Instant,
}

impl Script {
    fn new(steps: &[(&str, &str)]) -> Script {
        let started = Instant::now();
        let mut script = Script {
            board: Board::default(),
            started,
            now: started,
        };
        let steps = steps.iter().zip(1..).map(|((stage, text), line)| StepInfo {
            stage: (*stage).to_owned(),
            text: (*text).to_owned(),
            line,
        });
        script.tell(Event::Planned {
            steps: steps.collect(),
        });
        script
    }

    fn after(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    fn tell(&mut self, event: Event) {
        self.board.on(&event, self.now);
    }

    fn starts(&mut self, step: usize) {
        self.tell(Event::Started { step });
    }

    fn writes(&mut self, step: usize, text: &str) {
        self.tell(Event::Output {
            step,
            stream: Stream::Out,
            bytes: text.as_bytes().to_vec(),
        });
    }

    fn moves(&mut self, step: usize, what: &str, done_bytes: u64, total_bytes: Option<u64>) {
        self.tell(Event::Progress {
            step,
            what: what.to_owned(),
            done_bytes,
            total_bytes,
        });
    }

    fn ends(&mut self, step: usize, status: StepStatus, reason: &str) {
        self.tell(Event::Finished {
            step,
            status,
            reason: reason.to_owned(),
        });
    }

    /// The frame on a terminal of this size, each line checked to fit into it.
    fn frame(&self, width: usize, height: usize) -> String {
        let plain = Paint(false);
        let lines = draw(&self.board, self.started, self.now, width, height, plain);
        assert!(lines.len() < height.max(2), "{} lines", lines.len());
        fits(&lines.join("\n"), width);
        // Colours change nothing but colours.
        let colours = draw(
            &self.board,
            self.started,
            self.now,
            width,
            height,
            Paint(true),
        );
        let stripped: Vec<_> = colours
            .iter()
            .map(|line| console::strip_ansi_codes(line).into_owned())
            .collect();
        assert_eq!(stripped, lines);
        lines.join("\n")
    }

    /// Frames of three widths, one below the other.
    fn frames(&self, height: usize) -> String {
        let frame = |width: usize| format!("-- {width}\n{}\n", self.frame(width, height));
        [40, 80, 200].map(frame).concat()
    }

    fn ending(&self) -> String {
        let ending = Ending {
            took: self.now - self.started,
            id: Some(format!("sha256:{}", "9f2c41d07b3e".repeat(5))),
            same_as_before: true,
            failed: false,
        };
        let table = |width: usize| {
            let table = table::draw(&self.board, &ending, Some(width), Paint(false));
            fits(&table, width);
            format!("-- {width}\n{table}")
        };
        [40, 80, 200].map(table).concat()
    }
}

fn fits(text: &str, width: usize) {
    for line in text.lines() {
        let length = measure_text_width(line);
        assert!(length <= width, "{length} of {width}: {line}");
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

fn build() -> Script {
    let mut script = Script::new(&[
        ("base", "FROM demo/base"),
        ("count", "RUN --mount=type=bind wc -l < big > /count"),
        ("app", "COPY --from=count /count /"),
    ]);
    script.starts(0);
    script.after(400);
    script.moves(
        0,
        "sha256:25109184c71bdad752c8312a8623239686a9a2071e8825f20acb8f2198c3f659",
        1_200_000,
        Some(3_400_000),
    );
    script.moves(0, "sha256:0b3e", 7_000, None);
    script
}

#[test]
fn a_build() {
    let mut script = build();
    insta::assert_snapshot!("pulling", script.frames(24));
    script.ends(0, StepStatus::Ran(Duration::from_millis(800)), "new");
    script.starts(1);
    script.after(61_000);
    script.writes(1, "one\ntwo\nthree\nfour\nfive\nsi");
    insta::assert_snapshot!("running", script.frames(24));
    script.ends(
        1,
        StepStatus::Ran(Duration::from_secs(61)),
        "big changed (4,812 -> 4,815 bytes)",
    );
    script.tell(Event::Waiting {
        step: 2,
        what: WaitsFor::SameStep,
        pid: Some(4711),
    });
    insta::assert_snapshot!("waiting", script.frames(24));
    script.tell(Event::Waiting {
        step: 2,
        what: WaitsFor::CacheMount("/var/cache/apt".to_owned()),
        pid: Some(4711),
    });
    insta::assert_snapshot!("waiting_for_a_cache_mount", script.frames(24));
    script.ends(2, StepStatus::Cached, "the step above wrote the same bytes");
    script.tell(Event::Exporting(
        "exporting to oci archive /tmp/\n\x1b[2Jout.tar".to_owned(),
    ));
    script.after(2_000);
    insta::assert_snapshot!("exporting", script.frames(24));
    script.tell(Event::Exported {
        what: "exporting to oci archive /tmp/\n\x1b[2Jout.tar".to_owned(),
        took: Duration::from_secs(2),
    });
    insta::assert_snapshot!("ending", script.ending());
}

#[test]
fn what_steps_write_cannot_draw() {
    let mut script = Script::new(&[("base", "FROM demo/base")]);
    script.starts(0);
    script.writes(0, "\x1b[2J\x1b[31mred\x1b[0m\ttab\x07\n10%\r20%\r100%\n");
    script.writes(0, "\u{9b}2Jc1 \u{1f980}\u{1f980}\u{1f980} wide\n");
    script.writes(0, &format!("{}\n", "long ".repeat(100)));
    insta::assert_snapshot!("control_characters", script.frames(24));
}

#[test]
fn what_a_cache_elsewhere_brings_has_a_bar() {
    let mut script = Script::new(&[("base", "FROM demo/base"), ("app", "RUN make")]);
    script.ends(1, StepStatus::Cached, "from registry.example/app:cache");
    let comes = |done_bytes| Event::Progress {
        step: 1,
        what: "sha256:0123456789abcdef0123456789abcdef".to_owned(),
        done_bytes,
        total_bytes: Some(100 << 20),
    };
    script.tell(comes(30 << 20));
    script.after(1_000);
    insta::assert_snapshot!("brought", script.frames(24));
    script.tell(comes(100 << 20));
    let ended = script.frames(24);
    assert!(!ended.contains("sha256"), "{ended}");
}

#[test]
fn pieces_that_come_after_a_failure_are_not_shown() {
    let mut script = Script::new(&[("base", "FROM debian")]);
    script.starts(0);
    script.moves(0, "sha256:0a", 1_000, Some(2_000));
    script.ends(0, StepStatus::Failed, "");
    let before = script.frames(24);
    script.moves(0, "sha256:0b", 2_000, Some(2_000));
    assert_eq!(script.frames(24), before);
    assert!(!script.board.steps[0].is_brought);
}

#[test]
fn long_names_leave_room_for_the_rest() {
    let long = "a-stage-with-a-name-that-nobody-would-ever-want-to-type-twice";
    let text = format!("RUN echo {}", "and so on ".repeat(30));
    let mut script = Script::new(&[(long, &text), ("b", "RUN \x1b[2Jtrue"), (long, "COPY . .")]);
    script.starts(0);
    script.starts(1);
    script.after(12_300);
    script.writes(0, "a line\n");
    insta::assert_snapshot!("long_names", script.frames(24));
    script.ends(0, StepStatus::Ran(Duration::from_secs(12)), "RUN changed");
    script.ends(1, StepStatus::Failed, "new");
    script.ends(2, StepStatus::Skipped, "");
    insta::assert_snapshot!("long_names_end", script.ending());
}

#[test]
fn many_steps_share_a_screen() {
    let names: Vec<String> = (0..30).map(|index| format!("s{index}")).collect();
    let steps: Vec<(&str, &str)> = names.iter().map(|name| (&name[..], "RUN make")).collect();
    let mut script = Script::new(&steps);
    for step in 0..30 {
        script.starts(step);
        script.writes(step, "first\nsecond\nthird\n");
    }
    script.after(1_000);
    insta::assert_snapshot!("many_steps", script.frames(12));
    for step in 8..30 {
        script.ends(step, StepStatus::Ran(Duration::from_secs(1)), "new");
    }
    insta::assert_snapshot!("fewer_steps", script.frames(24));
}

#[test]
fn every_size_is_kept_to() {
    let mut script = build();
    script.starts(1);
    script.writes(1, &"word ".repeat(100));
    script.tell(Event::Exporting("exporting to image app".to_owned()));
    for width in 0..60 {
        for height in 0..12 {
            script.frame(width, height);
        }
    }
}
