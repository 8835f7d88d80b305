//! `kiln build --call` and `--check`: questions about a build, answered without building.

use std::io::IsTerminal;
use std::process::ExitCode;

use kiln::{
    Checked, ContextListing, DockerfileRequest, Kiln, Outlined, SeenContext, Sight, SourceRequest,
    Targets,
};

use super::args::{AnswerFormat, BuildArgs, SourceArgs};
use super::build::source_request;
use super::host::{self, Needs};
use super::images::columns;
use super::progress::{colours, words_bytes, words_visible};
use super::spec::SpecError;
use super::{Done, Failure, print, report};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Check,
    Outline,
    Targets,
    Describe,
    Context,
}

/// `--call METHOD[,format=FORMAT][,ignorestatus=BOOL]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    method: Method,
    format: AnswerFormat,
    /// Findings do not make the command fail.
    ignore_status: bool,
}

const METHODS: &str = "build, check, outline, targets, context and describe are there";

const CONVERT: &str = "`kiln plan --format json` writes what a build would do";

fn refused(text: &str, reason: &str, hint: &str) -> SpecError {
    SpecError {
        message: format!("`--call {text}`: {reason}"),
        hint: Some(hint.to_owned()),
    }
}

/// Reads a `--call`; none where it says to build.
fn parse(text: &str) -> Result<Option<Call>, SpecError> {
    let mut parts = text.split(',');
    let method = match parts.next().unwrap_or_default() {
        "build" => None,
        "check" | "lint" => Some(Method::Check),
        "outline" => Some(Method::Outline),
        "targets" => Some(Method::Targets),
        "describe" | "subrequests.describe" => Some(Method::Describe),
        "context" => Some(Method::Context),
        "convertllb" | "frontend.convertllb" => {
            let reason = "kiln has plans of its own instead of LLB";
            return Err(refused(text, reason, CONVERT));
        }
        other => {
            let reason = format!("there is no method `{other}`");
            return Err(refused(text, &reason, METHODS));
        }
    };
    let mut format = AnswerFormat::Text;
    let mut ignore_status = false;
    for part in parts {
        match part.split_once('=') {
            Some(("format", name)) => {
                format = match name {
                    "text" => AnswerFormat::Text,
                    "json" => AnswerFormat::Json,
                    "sarif" => AnswerFormat::Sarif,
                    other => {
                        let reason = format!("there is no format `{other}`");
                        return Err(refused(text, &reason, "text, json and sarif are there"));
                    }
                }
            }
            Some(("ignorestatus", value)) => {
                ignore_status = match value {
                    "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                    "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                    other => {
                        let reason = format!("`{other}` is neither true nor false");
                        return Err(refused(text, &reason, "write ignorestatus=true"));
                    }
                }
            }
            _ => {
                let reason = format!("`{part}` is no option of it");
                return Err(refused(
                    text,
                    &reason,
                    "format=FORMAT and ignorestatus=true are",
                ));
            }
        }
    }
    Ok(method.map(|method| Call {
        method,
        format,
        ignore_status,
    }))
}

/// Reads what is asked instead of a build; none where a build is.
pub(crate) fn asked(args: &BuildArgs) -> Result<Option<Call>, Failure> {
    let call = match (&args.call, args.check) {
        (Some(text), _) => parse(text)?,
        (None, true) => parse("check")?,
        (None, false) => None,
    };
    let usage = |message: &str, hint: &str| {
        report::usage(message, Some(hint));
        Err(Failure::Told(2))
    };
    let Some(mut call) = call else {
        if args.format.is_some() {
            return usage(
                "`--format` is for answers, and a build was asked for",
                "`kiln build --check --format json .` checks without building",
            );
        }
        if let Some(file) = args.files.first() {
            let message = format!("there is one build context, and `{file}` is a second");
            return usage(&message, "`--call context PATH FILE` asks about a file");
        }
        return Ok(None);
    };
    if let Some(format) = args.format {
        call.format = format;
    }
    if call.format == AnswerFormat::Sarif && call.method != Method::Check {
        return usage("only checks have the format sarif", "use format=json");
    }
    if call.method != Method::Context
        && let Some(file) = args.files.first()
    {
        let message = format!("there is one build context, and `{file}` is a second");
        return usage(&message, "`--call context PATH FILE` asks about a file");
    }
    Ok(Some(call))
}

/// Answers.
pub(crate) fn answer(call: Call, args: &BuildArgs) -> Done {
    if call.method == Method::Describe {
        return print(&match call.format {
            AnswerFormat::Json => ended(kiln::subrequests_json()),
            AnswerFormat::Text | AnswerFormat::Sarif => describe(),
        });
    }
    if let Some(frontend) = &args.source.frontend {
        let reason = format!("the front end `{frontend}` answers no questions");
        let hint = "`kiln plan --frontend` shows what it makes of the file";
        return Err(refused("METHOD", &reason, hint).into());
    }
    let request = source_request(&args.source)?;
    let is_text = call.format == AnswerFormat::Text;
    match call.method {
        Method::Check => check(call, &request, &args.source),
        Method::Outline => {
            let outlined = outline(&request, &args.source)?;
            print(&match is_text {
                true => outline_text(&outlined),
                false => ended(outlined.json()),
            })
        }
        Method::Targets => {
            let targets = match is_here(&request) {
                true => Targets::local(&request)?,
                false => {
                    let kiln = host::open(Needs::Layers, &args.source)?;
                    host::runtime()?.block_on(kiln.targets(&request))?
                }
            };
            print(&match is_text {
                true => targets_text(&targets),
                false => ended(targets.json()),
            })
        }
        Method::Context | Method::Describe => {
            let seen = match is_here(&request) {
                true => SeenContext::local(&request)?,
                false => {
                    let kiln = host::open(Needs::Layers, &args.source)?;
                    host::runtime()?.block_on(kiln.context(&request))?
                }
            };
            context(&seen, &args.files, is_text)
        }
    }
}

/// Whether context and Dockerfile are files of the caller, or standard input.
fn is_here(request: &SourceRequest) -> bool {
    request.delivery.is_none() && !matches!(request.dockerfile, Some(DockerfileRequest::Url(_)))
}

/// The store, for what it knows of base images; who cannot have one asks nobody.
fn store(request: &SourceRequest, args: &SourceArgs) -> Option<(Kiln, tokio::runtime::Runtime)> {
    // What is brought here becomes a layer.
    let needs = match is_here(request) {
        true => Needs::Records,
        false => Needs::Layers,
    };
    let kiln = host::open(needs, args);
    match kiln.and_then(|kiln| Ok((kiln, host::runtime()?))) {
        Ok(opened) => Some(opened),
        Err(failure) => {
            super::tell(&failure);
            report::warning("base images are not looked at");
            None
        }
    }
}

fn check(call: Call, request: &SourceRequest, args: &SourceArgs) -> Done {
    let checked = match store(request, args) {
        Some((kiln, runtime)) => runtime.block_on(kiln.check(request))?,
        None => Checked::assuming(request)?,
    };
    for (image, reason) in &checked.unseen {
        report::warning(&format!(
            "`{image}` cannot be looked at, so what depends on it is not checked: {reason}"
        ));
    }
    print(&match call.format {
        AnswerFormat::Json => ended(checked.json()),
        AnswerFormat::Sarif => ended(checked.sarif()),
        AnswerFormat::Text => check_text(&checked),
    })?;
    Ok(
        match (checked.errors().count(), checked.warnings().count()) {
            (0, 0) => ExitCode::SUCCESS,
            (0, _) if call.ignore_status => ExitCode::SUCCESS,
            (0, _) => ExitCode::from(1),
            _ => ExitCode::from(2),
        },
    )
}

fn check_text(checked: &Checked) -> String {
    let paint = colours(std::io::stdout().is_terminal());
    let mut text = report::findings_with_links(&checked.findings, paint);
    let warnings = match checked.warnings().count() {
        0 => "no warnings found.".to_owned(),
        1 => "1 warning has been found!".to_owned(),
        count => format!("{count} warnings have been found!"),
    };
    text.push_str(&match checked.errors().count() {
        0 => format!("Check complete, {warnings}\n"),
        1 => format!("Check stopped at an error, {warnings}\n"),
        count => format!("Check stopped at {count} errors, {warnings}\n"),
    });
    text
}

fn outline(request: &SourceRequest, args: &SourceArgs) -> Result<Outlined, Failure> {
    let outlined = match store(request, args) {
        Some((kiln, runtime)) => runtime.block_on(kiln.outline(request))?,
        None => Outlined::assuming(request)?,
    };
    for (image, reason) in &outlined.unseen {
        report::warning(&format!(
            "`{image}` cannot be looked at, so its triggers are not seen: {reason}"
        ));
    }
    Ok(outlined)
}

fn outline_text(outlined: &Outlined) -> String {
    let outline = &outlined.outline;
    let mut tables = Vec::new();
    if outline.name.is_some() || outline.description.is_some() {
        let name = outline.name.as_deref().unwrap_or("(default)");
        let mut text = format!("TARGET:      {name}\n");
        if let Some(description) = &outline.description {
            text.push_str(&format!("DESCRIPTION: {description}\n"));
        }
        tables.push(text);
    }
    if !outline.args.is_empty() {
        let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"].map(str::to_owned)];
        rows.extend(outline.args.iter().map(|arg| {
            [
                arg.name.clone(),
                words_visible(arg.value.as_deref().unwrap_or_default()),
                words_visible(arg.description.as_deref().unwrap_or_default()),
            ]
        }));
        tables.push(columns(&rows));
    }
    for (title, list) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !list.is_empty() {
            let mut rows = vec![[title, "REQUIRED"].map(str::to_owned)];
            rows.extend(list.iter().map(|mount| {
                let required = if mount.required { "true" } else { "" };
                [words_visible(&mount.id), required.to_owned()]
            }));
            tables.push(columns(&rows));
        }
    }
    if !outline.caches.is_empty() {
        let mut rows = vec![["CACHE".to_owned()]];
        rows.extend(
            outline
                .caches
                .iter()
                .map(|cache| [words_visible(&cache.id)]),
        );
        tables.push(columns(&rows));
    }
    tables.join("\n")
}

fn targets_text(targets: &Targets) -> String {
    let mut rows = vec![["TARGET", "DESCRIPTION"].map(str::to_owned)];
    rows.extend(targets.list.iter().map(|target| {
        let name = match (&target.name, target.is_default) {
            (Some(name), true) => format!("{name} (default)"),
            (Some(name), false) => name.clone(),
            (None, true) => "(default)".to_owned(),
            (None, false) => String::new(),
        };
        let description = target.description.as_deref().unwrap_or_default();
        [name, words_visible(description)]
    }));
    columns(&rows)
}

fn describe() -> String {
    let mut rows = vec![["NAME", "VERSION", "DESCRIPTION"].map(str::to_owned)];
    rows.extend(kiln::subrequests().iter().map(|one| {
        let name = one.name.strip_prefix("frontend.").unwrap_or(one.name);
        [name, one.version, one.description].map(str::to_owned)
    }));
    columns(&rows)
}

fn context(seen: &SeenContext, files: &[String], is_text: bool) -> Done {
    if files.is_empty() {
        let listing = seen.list()?;
        return print(&match is_text {
            true => listing_text(&listing),
            false => ended(listing.json()),
        });
    }
    let sights = files.iter().map(|file| seen.look(file));
    let sights = sights.collect::<Result<Vec<_>, _>>()?;
    print(&match is_text {
        true => sights.iter().map(sight_text).collect(),
        false => ended(Sight::json(&sights)),
    })
}

fn listing_text(listing: &ContextListing) -> String {
    let mut rows: Vec<[String; 2]> = listing
        .entries
        .iter()
        .map(|entry| {
            let size = match entry.kind {
                "file" => words_bytes(entry.bytes),
                kind => kind.to_owned(),
            };
            [size, words_visible(&entry.path)]
        })
        .collect();
    let files = listing.entries.iter().filter(|entry| entry.kind == "file");
    let count = files.count();
    let plural = if count == 1 { "" } else { "s" };
    let left_out = match (&listing.ignore_file, listing.left_out) {
        (None, _) => "no ignore file".to_owned(),
        (Some(file), 0) => format!("nothing left out by {}", words_visible(file)),
        (Some(file), count) => format!("{count} left out by {}", words_visible(file)),
    };
    rows.push([
        words_bytes(listing.total_bytes),
        format!("in {count} file{plural}; {left_out}"),
    ]);
    columns(&rows)
}

fn sight_text(sight: &Sight) -> String {
    match sight {
        Sight::Included { path, rule, .. } => {
            let path = words_visible(path);
            match rule {
                Some(rule) => format!("`{path}` is in the context: {rule} takes it back\n"),
                None => format!("`{path}` is in the context: nothing leaves it out\n"),
            }
        }
        Sight::Excluded {
            path,
            rule,
            above,
            partly,
            ..
        } => {
            let about = match above {
                Some(above) => format!(", as all of `{}`", words_visible(above)),
                None => String::new(),
            };
            let partly = match partly {
                true => ", but for what a later line takes back",
                false => "",
            };
            let path = words_visible(path);
            format!("`{path}` is not in the context: {rule} leaves it out{about}{partly}\n")
        }
        Sight::Missing { path, near, rule } => {
            let mut text = format!("`{}` does not exist", words_visible(path));
            if let Some(rule) = rule {
                text.push_str(&format!(", and {rule} would leave it out"));
            }
            if !near.is_empty() {
                let near: Vec<String> = near
                    .iter()
                    .map(|name| format!("`{}`", words_visible(name)))
                    .collect();
                text.push_str(&format!("; near it there is {}", near.join(" and ")));
            }
            text + "\n"
        }
        Sight::Outside { path } => format!(
            "`{}` is outside of the context: give a path below it\n",
            words_visible(path)
        ),
    }
}

fn ended(mut text: String) -> String {
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<(Method, AnswerFormat, bool)>) {
        let call = parse(text).map_err(|error| error.message);
        let found =
            call.map(|call| call.map(|call| (call.method, call.format, call.ignore_status)));
        assert_eq!(found, Ok(expected), "{text}");
    }

    fn fails(text: &str, expected: &str) {
        let error = parse(text).map_err(|error| error.message).unwrap_err();
        assert_eq!(error, format!("`--call {text}`: {expected}"));
    }

    #[test]
    fn calls() {
        use AnswerFormat::{Json, Sarif, Text};
        check("build", None);
        check("check", Some((Method::Check, Text, false)));
        check("lint,format=sarif", Some((Method::Check, Sarif, false)));
        check("check,ignorestatus=true", Some((Method::Check, Text, true)));
        check("outline,format=json", Some((Method::Outline, Json, false)));
        check(
            "subrequests.describe",
            Some((Method::Describe, Text, false)),
        );
        check("context", Some((Method::Context, Text, false)));
        fails("Check", "there is no method `Check`");
        fails("check,format=xml", "there is no format `xml`");
        fails("check,outline", "`outline` is no option of it");
        fails("check,ignorestatus=x", "`x` is neither true nor false");
    }
}
