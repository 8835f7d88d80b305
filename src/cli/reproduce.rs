//! `kiln reproduce` and `kiln diff`: two images, and what differs between them.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use kiln::{
    BuildRequest, Built, Cancel, Conditions, Difference, Error, Export, FileDifference,
    ImageDifferences, ImageOptions, Kiln, LayerCompression, NoCache, StepInfo, culprit,
};
use serde_json::{Value, json};

use super::args::{Progress, RecordFormat, SourceArgs, TrustArgs};
use super::build::{self, Run};
use super::host::{self, Needs};
use super::progress::words_visible;
use super::{Done, Failure, print, report, trust};

#[derive(Debug, Args)]
#[command(after_help = "\
The first build runs one step at a time, on one processor, with another host name and another
proxy setting; both run without cache, with empty cache mounts, in different seconds. They share
what is pinned: images, files and commits from elsewhere. Standard output gets the digest of the
manifest if both made the same image, which is what a push of it would send; else what differs,
layer by layer.

Examples:
  SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) kiln reproduce .
  kiln reproduce --format json . | jq '.images[].layers[].files[].path'

Exit codes: 0 the same, 1 different or not built, 2 usage or Dockerfile error.")]
pub(crate) struct ReproduceArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Name the second image; may be given several times
    #[arg(short = 't', long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<String>,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    /// Run at most so many steps at once in the second build [default: 16, or twice the cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    /// How to show progress
    #[arg(long, value_enum, default_value = "auto", env = "BUILDKIT_PROGRESS")]
    pub(crate) progress: Progress,
    /// Print nothing but the result
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How to write the result: text or json
    #[arg(long, value_enum, default_value = "text", hide_possible_values = true)]
    pub(crate) format: RecordFormat,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Layers are compared by place, files by path, and of files that differ what is inside. Times count
where the archives of both layers have those of their files.

Exit codes: 0 the same, 1 different.")]
pub(crate) struct DiffArgs {
    /// Name or id of an image
    #[arg(value_name = "IMAGE")]
    pub(crate) one: String,
    /// Name or id of another
    #[arg(value_name = "IMAGE")]
    pub(crate) two: String,
    /// How to write it: text or json
    #[arg(long, value_enum, default_value = "text", hide_possible_values = true)]
    pub(crate) format: RecordFormat,
}

/// The host name that steps of the first build have.
const OTHER_NAME: &str = "kiln-reproduce-elsewhere";
/// What steps of the first build need no proxy for; nobody can have the name.
const OTHER_HOST: &str = "kiln-reproduce.invalid";
/// How much older files of the context and of earlier steps seem to steps of the first build.
const AGE: Duration = Duration::from_secs(60 * 60);
/// What the epoch is where nobody says it: without one, every image has the time at which it was built.
const EPOCH: i64 = 0;
/// So many files of a layer are shown; JSON has all.
const MOST_FILES: usize = 40;

/// Builds twice, and compares.
pub(crate) fn reproduce(args: &ReproduceArgs) -> Done {
    let mut request = request(args)?;
    let kiln = host::open(Needs::Layers, args.source.offline)?;
    // For an ordinary user only the process within the namespace comes here.
    trust::warn_of_unset(&args.trust.secret);
    let source = &mut request.source;
    let given = source.build_args.contains_key("SOURCE_DATE_EPOCH");
    if source.source_date_epoch.is_none() && !given {
        source.source_date_epoch = Some(EPOCH);
        report::note("SOURCE_DATE_EPOCH is not set, and taken as 0 for both builds");
    }
    let cancel = Cancel::new();
    let salt = format!("reproduce-{}", std::process::id());
    let caches = |number: u8| format!("{salt}-{number}/");
    let built = build_twice(args, &kiln, &request, &cancel, caches);
    // Nobody else can want them.
    for number in [1, 2] {
        kiln.forget_caches(&caches(number))?;
    }
    let (first, second) = built?;
    let digest = |built: &Built| {
        built
            .exported
            .manifest_digest()
            .unwrap_or_default()
            .to_owned()
    };
    let digests = [digest(&first), digest(&second)];
    let found = match digests[0] == digests[1] {
        true => Vec::new(),
        false => {
            let id = |built: &Built| built.exported.image_id.clone().unwrap_or_default();
            kiln.compare_images(&id(&first), &id(&second), &cancel)?
        }
    };
    host::settle_later(&kiln)?;
    let report = Report {
        digests,
        file: args
            .source
            .file
            .as_ref()
            .map(|path| path.display().to_string()),
        second: Some(&second),
        found,
    };
    report.print(args.format)
}

/// Compares two images of the store.
pub(crate) fn diff(args: &DiffArgs) -> Done {
    let kiln = host::open(Needs::Layers, true)?;
    let cancel = Cancel::new();
    host::stop_on_signals(cancel.clone())?;
    let found = kiln.compare_images(&args.one, &args.two, &cancel)?;
    let id = |name: &str| Ok::<_, Failure>(kiln.image_details(name)?.id);
    let report = Report {
        digests: [id(&args.one)?, id(&args.two)?],
        file: None,
        second: None,
        found: found.into_iter().filter(|one| !one.is_empty()).collect(),
    };
    report.print(args.format)
}

fn request(args: &ReproduceArgs) -> Result<BuildRequest, Failure> {
    let reads_stdin = args.source.context.as_deref() == Some(build::STDIN)
        || args
            .source
            .file
            .as_deref()
            .is_some_and(|path| path == std::path::Path::new(build::STDIN));
    if reads_stdin {
        report::usage(
            "a build from standard input cannot be built twice",
            Some("put it into a directory, and build that"),
        );
        return Err(Failure::Told(2));
    }
    let mut source = build::source_request(&args.source)?;
    source.no_cache = NoCache::All;
    let options = ImageOptions {
        // What a push of the image would send.
        packing: Some(LayerCompression::default()),
        ..ImageOptions::default()
    };
    Ok(BuildRequest {
        source,
        exports: vec![Export::Image { options }],
        tags: args.tags.clone(),
        secrets: trust::secrets(&args.trust.secret, &args.trust.ssh)?,
        allow: trust::allow(&args.trust.allow)?,
        ..BuildRequest::default()
    })
}

/// First in unusual conditions, then as always, so that what is cached afterwards is what a build gives.
fn build_twice(
    args: &ReproduceArgs,
    kiln: &Kiln,
    request: &BuildRequest,
    cancel: &Cancel,
    caches: impl Fn(u8) -> String,
) -> Result<(Built, Built), Failure> {
    let once = |request: BuildRequest| {
        build::run(Run {
            kiln,
            request,
            progress: args.progress,
            quiet: args.quiet,
            explain: false,
            cancel: cancel.clone(),
        })
    };
    let say = |line: &str| {
        if !args.quiet {
            report::note(line);
        }
    };
    say(&format!(
        "build 1 of 2: one step at a time, one processor, host name {OTHER_NAME}, older files, empty cache mounts"
    ));
    let processors = one_processor();
    let first = once(BuildRequest {
        jobs: Some(1),
        tags: Default::default(),
        conditions: Conditions {
            host_name: Some(OTHER_NAME.to_owned()),
            no_proxy: Some(OTHER_HOST.to_owned()),
            caches: Some(caches(1)),
            age: Some(AGE),
        },
        ..request.clone()
    });
    give_back(processors);
    let first = first?;
    next_second();
    say("build 2 of 2: as always, later, empty cache mounts");
    let second = once(BuildRequest {
        jobs: args.jobs.map(usize::from),
        conditions: Conditions {
            host_name: None,
            no_proxy: None,
            caches: Some(caches(2)),
            age: None,
        },
        ..request.clone()
    });
    if let Err(Failure::Kiln(Error::Steps(_) | Error::StepsLack(_))) = &second {
        report::warning(&format!(
            "the first build came to its end; it had one processor, host name {OTHER_NAME} and an earlier time, and the second has not"
        ));
    }
    Ok((first, second?))
}

/// Lets this thread, and all that it starts, see one processor; returns what it had.
fn one_processor() -> Option<rustix::thread::CpuSet> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let had = sched_getaffinity(None).ok()?;
    let first = (0..CpuSet::MAX_CPU).find(|&cpu| had.is_set(cpu))?;
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).ok()?;
    Some(had)
}

fn give_back(processors: Option<rustix::thread::CpuSet>) {
    if let Some(had) = processors {
        let _ = rustix::thread::sched_setaffinity(None, &had);
    }
}

/// Waits until the clock shows another second, which many files have in them.
fn next_second() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanos = now.map_or(0, |now| now.subsec_nanos());
    std::thread::sleep(Duration::from_secs(1).saturating_sub(Duration::from_nanos(nanos.into())));
}

/// What came of it.
struct Report<'a> {
    digests: [String; 2],
    file: Option<String>,
    /// The build whose steps made the layers.
    second: Option<&'a Built>,
    found: Vec<ImageDifferences>,
}

impl Report<'_> {
    fn print(&self, format: RecordFormat) -> Done {
        let same = self.digests[0] == self.digests[1];
        let text = match format {
            RecordFormat::Json => format!("{:#}\n", self.json(same)),
            RecordFormat::Text if same => format!("{}\n", self.digests[0]),
            RecordFormat::Text => self.text(),
        };
        print(&text)?;
        Ok(ExitCode::from(u8::from(!same)))
    }

    /// The step that made a layer.
    fn step(&self, image: &ImageDifferences, layer: usize) -> Option<&StepInfo> {
        let by_result = &self.second?.layer_steps;
        let steps = by_result
            .get(&image.platform)
            .or_else(|| by_result.get(""))?;
        let from_top = image.layer_counts[1].checked_sub(layer + 1)?;
        steps.get(from_top)
    }

    /// The step as people know it, else what the history says.
    fn maker(&self, image: &ImageDifferences, index: usize, created_by: &str) -> String {
        match self.step(image, index) {
            Some(step) if step.line > 0 => {
                let file = self.file.as_deref().unwrap_or("Dockerfile");
                format!("{} ({file}:{})", step.text, step.line)
            }
            Some(step) if !step.text.is_empty() => step.text.clone(),
            _ if created_by.is_empty() => "a layer without a history".to_owned(),
            _ => created_by.to_owned(),
        }
    }

    fn text(&self) -> String {
        let [one, two] = &self.digests;
        let mut text = match self.second {
            Some(_) => format!("not reproducible: {one} and {two}\n"),
            None => format!("{one} and {two} differ\n"),
        };
        let mut line = |line: String| {
            text.push_str(&words_visible(&line));
            text.push('\n');
        };
        for image in &self.found {
            if self.found.len() > 1 {
                line(format!("\n{}", image.platform));
            }
            let [first, second] = image.layer_counts;
            if first != second {
                line(format!("  layers: {first} and {second}"));
            }
            for layer in &image.layers {
                line(String::new());
                let maker = self.maker(image, layer.index, &layer.created_by);
                line(format!("layer {}: {maker}", layer.index + 1));
                let shown = layer.files.len().min(MOST_FILES);
                let mut last = None;
                for file in &layer.files[..shown] {
                    last = draw_file(file, last, &mut line);
                }
                let more = layer.files.len() - shown + layer.more;
                if more > 0 {
                    line(format!("  and {more} more"));
                }
                if layer.files.is_empty() {
                    line("  the archives differ, and their files do not".to_owned());
                }
            }
            if !image.config.is_empty() {
                line(String::new());
                line("config".to_owned());
            }
            for key in &image.config {
                line(format!("  {}", key.key));
                for (mark, value) in [('-', &key.one), ('+', &key.two)] {
                    if let Some(value) = value {
                        line(format!("    {mark} {value}"));
                    }
                }
            }
        }
        text
    }

    fn json(&self, same: bool) -> Value {
        let images = self.found.iter().map(|image| {
            let layers = image.layers.iter().map(|layer| {
                let step = self.step(image, layer.index).map(
                    |step| json!({ "stage": step.stage, "text": step.text, "line": step.line }),
                );
                let files = layer.files.iter().map(|file| {
                    let mut value = json!(file);
                    if let Some(culprit) = culprit(file, &[OTHER_NAME]) {
                        value["culprit"] =
                            json!({ "what": culprit.what, "way_out": culprit.way_out });
                    }
                    value
                });
                json!({
                    "index": layer.index,
                    "created_by": layer.created_by,
                    "step": step,
                    "files": files.collect::<Vec<_>>(),
                    "more": layer.more,
                })
            });
            json!({
                "platform": image.platform,
                "layer_counts": image.layer_counts,
                "config": image.config,
                "layers": layers.collect::<Vec<_>>(),
            })
        });
        json!({
            "version": 0,
            "same": same,
            "digests": self.digests,
            "images": images.collect::<Vec<_>>(),
        })
    }
}

/// Draws a file; its culprit only if it is another one than that of the file before, which is returned.
fn draw_file(
    file: &FileDifference,
    last: Option<&'static str>,
    line: &mut dyn FnMut(String),
) -> Option<&'static str> {
    let words = file.differences.iter().map(words).collect::<Vec<_>>();
    line(format!("  {}  {}", file.path, words.join(", ")));
    for difference in &file.differences {
        let Difference::Content(content) = difference else {
            continue;
        };
        if let Some(lines) = &content.line {
            for (mark, text) in [('-', &lines.one), ('+', &lines.two)] {
                line(match text {
                    Some(text) => format!("    {mark} {text}"),
                    None => format!("    {mark} (the file has ended)"),
                });
            }
        }
    }
    let found = culprit(file, &[OTHER_NAME])?;
    if last != Some(found.what) {
        line(format!("    {}: {}", found.what, found.way_out));
    }
    Some(found.what)
}

fn words(difference: &Difference) -> String {
    match difference {
        Difference::OnlyInFirst => "only in the first".to_owned(),
        Difference::OnlyInSecond => "only in the second".to_owned(),
        Difference::Type { one, two } => format!("{one} and {two}"),
        Difference::Mode { one, two } => format!("mode {one} and {two}"),
        Difference::Owner { one, two } => format!("owner {one} and {two}"),
        Difference::Size { one, two } => format!("{one} and {two} bytes"),
        Difference::Mtime { one, two } => format!("time {one} and {two}"),
        Difference::Target { one, two } => format!("{one} and {two}"),
        Difference::Attribute { name } => format!("attribute {name}"),
        Difference::Content(content) => {
            let mut parts = content.within.clone();
            match (&content.said, &content.line) {
                (said, _) if !said.is_empty() => parts.push(said.clone()),
                (_, Some(line)) => parts.push(format!("line {}", line.number)),
                _ => parts.push(format!("byte {}", content.offset)),
            }
            format!("content at {}", parts.join(", "))
        }
    }
}
