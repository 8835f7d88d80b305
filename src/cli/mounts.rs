//! `kiln mounts`: cache mounts listed, removed, exported and imported.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use kiln::{
    Cancel, Error, ExportMounts, ExportedMount, ImportMounts, ImportedMount, Kiln, MountsEvent,
    MountsPlace,
};

use super::args::{Progress, RecordFormat};
use super::host::{self, Needs};
use super::images::columns;
use super::progress::{EXPORT, IMPORT, Transfers, words_bytes, words_visible};
use super::{Done, Failure, print, report};

#[derive(Debug, Subcommand)]
pub(crate) enum MountsCommand {
    /// List cache mounts: what they hold, and who uses them
    Ls {
        /// How to write it: text, or json with one mount a line
        #[arg(long, value_enum, default_value = "text", hide_possible_values = true)]
        format: RecordFormat,
    },
    /// Send cache mounts to a registry, a directory or a file: only what is not there yet
    ///
    /// A mount that a step uses is waited for. What is there of other ids stays; of the same id the
    /// younger one counts, so that several jobs can export to one name. A file is written anew beside the old
    /// one, with what that holds.
    #[command(after_help = PLACES, override_usage = "kiln mounts export [OPTIONS] [ID]... <DEST>")]
    Export {
        /// Their ids [default: all], then where to
        #[arg(required = true, value_name = "ID|DEST")]
        words: Vec<String>,
        /// Leave these files out, in patterns as .dockerignore has them
        #[arg(long, value_name = "PATTERN")]
        exclude: Vec<String>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Bring cache mounts here, in the place of those that are: only what is not here yet
    ///
    /// Steps that run meanwhile have the old ones; killed at any time, a mount is the old or the new one.
    #[command(after_help = PLACES)]
    Import {
        /// Only this one; may be given several times
        #[arg(long, value_name = "ID")]
        id: Vec<String>,
        /// Keep what is here and is younger, or is not in the export
        #[arg(long)]
        merge: bool,
        /// Where from
        src: String,
        #[command(flatten)]
        shown: Shown,
    },
    /// Remove cache mounts; one that a step uses stays
    Rm {
        /// Their ids
        #[arg(required_unless_present = "all")]
        ids: Vec<String>,
        /// Remove all
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
}

/// What is to be seen of a transfer.
#[derive(Debug, Clone, Args)]
pub(crate) struct Shown {
    /// How to show progress
    #[arg(long, value_enum, default_value = "auto", env = "BUILDKIT_PROGRESS")]
    progress: Progress,
    /// Print nothing but the result
    #[arg(short, long)]
    quiet: bool,
}

const PLACES: &str = "\
Places:
  registry.example/team/cache:go   a name in a registry; docker:// may stand before it
  ./cache, /var/cache/kiln         a directory: it begins with / or .
  cache.tar, -                     a file: it ends in .tar; - is standard input or output";

/// What a build does about its cache mounts.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TravelArgs {
    /// Take cache mounts that are not here from there, each when the first step that needs it runs:
    /// a registry reference, a directory that begins with / or ., or a .tar (docs/mounts.md)
    #[arg(long, value_name = "PLACE")]
    mounts_from: Vec<String>,
    /// After the build, export the cache mounts that its steps used there, if they changed
    #[arg(long, value_name = "PLACE")]
    mounts_to: Vec<String>,
}

impl TravelArgs {
    pub(crate) fn from(&self) -> Result<Vec<MountsPlace>, Failure> {
        places(&self.mounts_from, "--mounts-from")
    }

    pub(crate) fn to(&self) -> Result<Vec<MountsPlace>, Failure> {
        places(&self.mounts_to, "--mounts-to")
    }
}

fn places(texts: &[String], flag: &str) -> Result<Vec<MountsPlace>, Failure> {
    let mut places = Vec::new();
    for text in texts {
        let place = MountsPlace::parse(text)?;
        if place == MountsPlace::Stream {
            report::usage(
                &format!(
                    "`{flag} -` is not possible: a build has other uses for standard input and output"
                ),
                Some("name a file that ends in .tar"),
            );
            return Err(Failure::Told(2));
        }
        places.push(place);
    }
    Ok(places)
}

pub(crate) fn mounts(command: &MountsCommand) -> Done {
    match command {
        MountsCommand::Ls { format } => ls(*format),
        MountsCommand::Export {
            words,
            exclude,
            shown,
        } => {
            let (dest, ids) = words.split_last().expect("BUG: clap lets no words pass");
            let request = ExportMounts {
                ids: ids.to_vec(),
                place: MountsPlace::parse(dest)?,
                exclude: exclude.clone(),
            };
            export(&request, shown)
        }
        MountsCommand::Import {
            id,
            merge,
            src,
            shown,
        } => {
            let request = ImportMounts {
                ids: id.clone(),
                place: MountsPlace::parse(src)?,
                merge: *merge,
            };
            import(&request, shown)
        }
        MountsCommand::Rm { ids, all } => rm(ids, *all),
    }
}

fn ls(format: RecordFormat) -> Done {
    let kiln = host::open(Needs::Layers, true)?;
    let mounts = kiln.mounts()?;
    if format == RecordFormat::Json {
        let line = |mount: &kiln::MountSummary| {
            let json = serde_json::json!({
                "id": mount.id,
                "instance": mount.instance,
                "size": mount.size_bytes,
                "files": mount.files,
                "used": mount.used,
                "sharing": mount.sharing,
                "in_use": mount.user.is_some(),
                "pid": mount.user.flatten(),
            });
            format!("{json}\n")
        };
        return print(&mounts.iter().map(line).collect::<String>());
    }
    let header = ["ID", "SIZE", "FILES", "LAST USED", "SHARING", "IN USE BY"];
    let mut rows = vec![header.map(str::to_owned)];
    for mount in &mounts {
        let id = words_visible(&mount.id);
        rows.push([
            match mount.instance {
                0 => id,
                number => format!("{id}#{number}"),
            },
            words_bytes(mount.size_bytes),
            mount.files.to_string(),
            mount.age.clone(),
            mount.sharing.unwrap_or_default().to_owned(),
            match mount.user {
                None => String::new(),
                Some(None) => "another kiln".to_owned(),
                Some(Some(pid)) => format!("pid {pid}"),
            },
        ]);
    }
    print(&columns(&rows))
}

fn rm(ids: &[String], all: bool) -> Done {
    let kiln = host::open(Needs::Layers, true)?;
    let ids = match all {
        false => ids.to_vec(),
        true => {
            let mut ids: Vec<String> = kiln.mounts()?.into_iter().map(|mount| mount.id).collect();
            ids.dedup();
            ids
        }
    };
    let mut code = ExitCode::SUCCESS;
    for id in ids {
        // One that is in use, or not there, does not keep the others.
        match kiln.remove_mount(&id) {
            Ok(()) => {
                print(&format!("removed {}\n", words_visible(&id)))?;
            }
            Err(error) => code = ExitCode::from(super::tell(&Failure::Kiln(error.into()))),
        }
    }
    Ok(code)
}

/// Runs something that can be interrupted.
fn run<T>(
    kiln: &Kiln,
    work: impl AsyncFnOnce(&Kiln) -> Result<T, kiln::ExecutorError>,
) -> Result<T, Failure> {
    let runtime = host::runtime()?;
    let cancel = Cancel::new();
    host::watch_signals(&runtime, cancel.clone());
    runtime.block_on(async {
        tokio::select! {
            done = work(kiln) => Ok(done?),
            () = cancel.cancelled() => Err(Failure::Kiln(Error::Cancelled)),
        }
    })
}

/// Says what is waited for; everything else is said in the end.
fn waits(event: MountsEvent) {
    if let MountsEvent::Waiting { id, pid } = event {
        let whom = pid.map_or("another kiln".to_owned(), |pid| {
            format!("kiln with pid {pid}")
        });
        let id = words_visible(&id);
        report::note(&format!("{whom} uses the cache mount `{id}`; waiting"));
    }
}

fn export(request: &ExportMounts, shown: &Shown) -> Done {
    let kiln = host::open(Needs::Layers, false)?;
    let view = Transfers::new(EXPORT, shown.progress, shown.quiet);
    let observer = view.observer();
    let exported = run(&kiln, async |kiln| {
        kiln.export_mounts(request, &waits, &observer).await
    });
    view.finish(matches!(&exported, Ok(exported) if exported.sent_bytes > 0));
    let exported = exported?;
    let mut lines: String = exported.mounts.iter().map(exported_line).collect();
    if exported.mounts.is_empty() {
        lines.push_str("there are no cache mounts\n");
    }
    match request.place {
        // That is where the export went.
        MountsPlace::Stream => {
            for line in lines.lines() {
                report::note(line);
            }
            Ok(ExitCode::SUCCESS)
        }
        _ => print(&lines),
    }
}

/// One line about an exported mount.
fn exported_line(mount: &ExportedMount) -> String {
    let (new, there) = (words_bytes(mount.new_bytes), words_bytes(mount.there_bytes));
    let sent = match (mount.new_bytes, mount.there_bytes) {
        (0, _) => "nothing new".to_owned(),
        (_, 0) => format!("{new} new"),
        _ => format!("{new} new, {there} there already"),
    };
    format!(
        "exported {}: {}, {}, {sent}\n",
        words_visible(&mount.id),
        files(mount.files),
        words_bytes(mount.bytes)
    )
}

fn import(request: &ImportMounts, shown: &Shown) -> Done {
    let kiln = host::open(Needs::Layers, false)?;
    let view = Transfers::new(IMPORT, shown.progress, shown.quiet);
    let observer = view.observer();
    let imported = run(&kiln, async |kiln| {
        kiln.import_mounts(request, &waits, &observer).await
    });
    let came = |mounts: &Vec<ImportedMount>| mounts.iter().any(|mount| mount.fetched_bytes > 0);
    view.finish(imported.as_ref().is_ok_and(came));
    let imported = imported?;
    let mut lines: String = imported.iter().map(imported_line).collect();
    if imported.is_empty() {
        lines.push_str("the export has no cache mounts\n");
    }
    print(&lines)
}

fn imported_line(mount: &ImportedMount) -> String {
    let fetched = match mount.unchanged {
        true => "nothing new".to_owned(),
        false => format!("{} fetched", words_bytes(mount.fetched_bytes)),
    };
    format!(
        "imported {}: {}, {}, {fetched}\n",
        words_visible(&mount.id),
        files(mount.files),
        words_bytes(mount.bytes)
    )
}

fn files(count: u64) -> String {
    match count {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    }
}
