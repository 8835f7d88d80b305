//! `kiln tag`, `rmi`, `import`, `inspect`, `history`.

use std::fs::File;
use std::io::Read;
use std::process::ExitCode;

use console::{Alignment, measure_text_width, pad_str, truncate_str};
use kiln::{Error, ExecutorError, Kiln, PlatformDetails};
use serde_json::Value;

use super::host::{self, Needs};
use super::progress::words_bytes;
use super::{Done, Failure, print, report, spec};

/// Instructions in a history are cut to this many characters.
const SHOWN_INSTRUCTION: usize = 72;

/// Lays rows out in columns, the first row being their heads.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: Vec<usize> = (0..N)
        .map(|column| {
            rows.iter()
                .map(|row| measure_text_width(&row[column]))
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| pad_str(cell, *width, Alignment::Left, None))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

pub(crate) fn tag(image: &str, name: &str) -> Done {
    let kiln = host::open(Needs::Records, true)?;
    kiln.tag_image(image, name)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn remove(images: &[String], force: bool) -> Done {
    let kiln = host::open(Needs::Records, true)?;
    let mut code = ExitCode::SUCCESS;
    for image in images {
        // One that is not there does not keep the others.
        match kiln.remove_image(image) {
            Ok(lines) => {
                print(
                    &lines
                        .iter()
                        .map(|line| format!("{line}\n"))
                        .collect::<String>(),
                )?;
            }
            Err(ExecutorError::NoSuchImage { name }) if force => {
                report::note(&format!("no image `{name}` is here"));
            }
            Err(error) => code = ExitCode::from(super::tell(&Failure::Kiln(error.into()))),
        }
    }
    Ok(code)
}

pub(crate) fn import(file: &str, name: &str) -> Done {
    let epoch = host::source_date_epoch()?;
    let kiln = host::open(Needs::Layers, true)?;
    let archive: Box<dyn Read + Send> = match file {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(File::open(path).map_err(|source| Error::File {
            attempt: "open",
            path: path.into(),
            source,
        })?),
    };
    let imported = kiln.import(archive, file, name, epoch)?;
    print(&format!("{}\n", imported.id))?;
    host::settle_later(&kiln)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what `show` makes of an image, and of several a list; one that cannot be shown does not keep the others.
pub(crate) fn each(images: &[String], show: impl Fn(&str) -> Result<Value, Failure>) -> Done {
    if let [image] = images {
        return print(&format!("{:#}\n", show(image)?));
    }
    let mut code = ExitCode::SUCCESS;
    let mut shown = Vec::with_capacity(images.len());
    for image in images {
        match show(image) {
            Ok(json) => shown.push(json),
            Err(failure) => code = ExitCode::from(super::tell(&failure)),
        }
    }
    print(&format!("{:#}\n", Value::Array(shown)))?;
    Ok(code)
}

pub(crate) fn inspect(images: &[String]) -> Done {
    let kiln = host::open(Needs::Records, true)?;
    each(images, |image| details(&kiln, image))
}

fn details(kiln: &Kiln, image: &str) -> Result<Value, Failure> {
    let details = kiln.image_details(image)?;
    let mut json = serde_json::json!({
        "id": details.id,
        "names": details.names,
        "digests": details.digests,
        "size": details.size_bytes,
    });
    if !details.pushed.is_empty() {
        let pushed = details.pushed.iter();
        json["pushed"] = pushed
            .map(|(digest, manifest)| (digest.clone(), parse(manifest)))
            .collect();
    }
    let platforms = details.platforms.iter();
    let mut shown: Vec<_> = platforms.map(shown_platform).collect();
    match &details.index {
        Some(index) => {
            json["index"] = parse(index);
            json["platforms"] = shown.into();
        }
        None => {
            json = shown
                .pop()
                .map_or(json.clone(), |shown| merged(json, shown))
        }
    }
    Ok(json)
}

fn shown_platform(details: &PlatformDetails) -> Value {
    let layers: Vec<_> = details
        .layers
        .iter()
        .map(|(content, size)| serde_json::json!({ "content": content, "size": size }))
        .collect();
    serde_json::json!({
        "platform": details.platform,
        "id": details.id,
        "size": details.size_bytes,
        "config": parse(&details.config),
        "manifest": parse(&details.manifest),
        "layers": layers,
    })
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// The keys of both.
fn merged(mut one: Value, other: Value) -> Value {
    if let (Value::Object(one), Value::Object(other)) = (&mut one, other) {
        one.extend(other);
    }
    one
}

pub(crate) fn history(image: &str, no_trunc: bool, platform: Option<&str>) -> Done {
    let platform = spec::platform("--platform", platform)?;
    let kiln = host::open(Needs::Records, true)?;
    let details = kiln.platform_details(image, platform.as_ref())?;
    let mut sizes = details.layers.iter().map(|(_, size)| *size);
    let mut rows = Vec::new();
    for entry in &details.parsed.history {
        let size = if entry.empty_layer {
            0
        } else {
            sizes.next().unwrap_or(0)
        };
        let by = match no_trunc {
            true => entry.created_by.clone(),
            false => truncate_str(&entry.created_by, SHOWN_INSTRUCTION, "..").into_owned(),
        };
        let created = entry.created.clone().unwrap_or_default();
        rows.push([created, by, words_bytes(size), entry.comment.clone()]);
    }
    // As everywhere else, the last instruction comes first.
    rows.push(["CREATED", "CREATED BY", "SIZE", "COMMENT"].map(str::to_owned));
    rows.reverse();
    print(&columns(&rows))
}
