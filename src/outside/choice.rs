//! Who is to read a build file: what the caller says, else what the file says.

use std::path::{Path, PathBuf};

use kiln_executor::{Error as ExecutorError, words};
use kiln_frontend::diagnostic::Diagnostic;
use kiln_frontend::dockerfile::span::Span;
use kiln_frontend::outside::{Asked, Reader, asked};

use crate::delivery::Place;
use crate::dockerfile::{find_dockerfile, shown_name};
use crate::request::Frontend;
use crate::{Entitlement, Error, Findings, SourceRequest};

/// A front end from outside, and the file that it is to read.
pub(crate) struct Chosen {
    pub(crate) frontend: Frontend,
    /// As people know it.
    pub(crate) shown: String,
    pub(crate) file: Option<ChosenFile>,
    /// Where the file says so, if it does.
    span: Option<Span>,
}

impl Chosen {
    /// The error of an image that cannot be had, at the line that names it.
    pub(crate) fn unavailable(&self, error: ExecutorError) -> Error {
        let (Some(file), Some(span)) = (&self.file, self.span) else {
            return error.into();
        };
        let reason = words(&error);
        let message = format!("the front end `{}` cannot be had: {reason}", self.shown);
        let mut diagnostic = Diagnostic::error("image-unavailable", span, message);
        diagnostic.help = error.hint();
        Error::Dockerfile(Box::new(Findings {
            file_name: file.name.clone(),
            text: file.text.as_str().into(),
            diagnostics: vec![diagnostic],
        }))
    }
}

/// The build file.
pub(crate) struct ChosenFile {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) text: String,
}

/// Finds out who is to read the build file; none is the built-in front end.
pub(crate) fn choose(request: &SourceRequest, place: &Place) -> Result<Option<Chosen>, Error> {
    if let Some(frontend) = &request.frontends.chosen {
        let is_named = request.dockerfile.is_some() || place.dockerfile.is_some();
        if !is_named && !place.context.is_dir() {
            return Err(Error::Usage {
                message: format!(
                    "the build context `{}` is not a directory",
                    place.context.display()
                ),
                hint: None,
            });
        }
        let file = is_named.then(|| find(request, place)).transpose()?;
        return Ok(Some(Chosen {
            frontend: frontend.clone(),
            shown: frontend.to_string(),
            file,
            span: None,
        }));
    }
    let file = find(request, place)?;
    let Some(Asked { reader, span }) = asked(&file.text, &request.build_args) else {
        return Ok(None);
    };
    let refuse = |message: String, help: &str| match span {
        Some(span) => Error::Dockerfile(Box::new(Findings {
            file_name: file.name.clone(),
            text: file.text.as_str().into(),
            diagnostics: vec![Diagnostic::error("not-allowed", span, message).with_help(help)],
        })),
        None => Error::Usage {
            message,
            hint: Some(help.to_owned()),
        },
    };
    let frontend = match reader {
        Reader::Image(image) => Frontend::Image(image),
        Reader::Program(program) if program.is_empty() => {
            let message = "`exec:` names no program".to_owned();
            return Err(refuse(message, "as in `# syntax=exec:./frontend.py`"));
        }
        Reader::Program(program) if span.is_none() => {
            let message = format!("the build argument `BUILDKIT_SYNTAX` is `exec:{program}`");
            return Err(refuse(
                message,
                "it names images; --frontend names a program",
            ));
        }
        Reader::Program(program) if place.delivered.is_some() => {
            let message = format!(
                "this file asks for the program `{program}` as its front end, and comes from elsewhere"
            );
            let help =
                "look at it, and build from a directory here, or name a front end with --frontend";
            return Err(refuse(message, help));
        }
        Reader::Program(program) if !request.frontends.allow_exec => {
            let message = format!(
                "this file asks to run the program `{program}` on this host as its front end, and `{}` is not allowed",
                Entitlement::FrontendExec
            );
            let help = format!(
                "if you trust this file, add --allow {}",
                Entitlement::FrontendExec
            );
            return Err(refuse(message, &help));
        }
        // As everything that a file names, it is relative to the file.
        Reader::Program(program) if program.contains('/') => {
            let beside = file.path.parent().unwrap_or(Path::new(""));
            let below = program.trim_start_matches("./");
            match beside.as_os_str().is_empty() {
                true => Frontend::Program(PathBuf::from(program)),
                false => Frontend::Program(beside.join(below)),
            }
        }
        Reader::Program(program) => Frontend::Program(PathBuf::from(program)),
    };
    Ok(Some(Chosen {
        shown: frontend.to_string(),
        frontend,
        file: Some(file),
        span,
    }))
}

fn find(request: &SourceRequest, place: &Place) -> Result<ChosenFile, Error> {
    let written = find_dockerfile(request, place)?;
    Ok(ChosenFile {
        name: shown_name(&written.path, &place.context),
        text: String::from_utf8_lossy(&written.bytes).into_owned(),
        path: written.path,
        bytes: written.bytes,
    })
}
